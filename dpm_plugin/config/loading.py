"""From a yaml file and the command line to a checked, frozen configuration."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from yacs.config import CfgNode

from dpm_plugin.config.arguments import own_options, synthetic_spec
from dpm_plugin.config.schema import SCHEMA
from dpm_plugin.config.shipped import config_path
from dpm_plugin.config.types import YAML_ERRORS, convert
from dpm_plugin.utils.command import pairs
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import read_text
from dpm_plugin.utils.text import first_line, nearest, short

PATHS = ("data.root", "data.save_dir", "model.load_weights", "model.resume", "train.resume", "vit.pretrained_file")
_SECTIONS = {name.rsplit(".", depth)[0] for name in SCHEMA for depth in range(1, name.count(".") + 1)}


def load_config(file: str | Path = "", opts: Sequence[str] = (), overrides: Mapping[str, Any] | None = None) -> CfgNode:
    """Read the configuration of one run.

    Args:
        file: path of a .yaml/.yml file, the name of a shipped one such as ``dpm_occduke``, or "" for none.
        opts: ``["train.lr", "0.01", ...]``, as torchreid's scripts take them; read last.
        overrides: ``{"data.root": ...}``, from options such as ``--root``; read between file and opts.

    Returns:
        a frozen node; ``use_gpu`` is False where there is no GPU.

    Raises:
        DPMError: unknown key, wrong type, value out of range, unreadable file, or settings that exclude each other.
    """
    file = file and config_path(file)
    config = CfgNode()
    for name, key in SCHEMA.items():
        _store(config, name, convert(key, key.default))
    for name, value, line in _read_yaml(file) if file else ():
        _set(config, name, value, f"in {file}, line {line}")
    for name, value in (*(overrides or {}).items(), *pairs(opts)):
        _set(config, name, value, "on the command line")
    synthetic_spec(config)  # checks its ranges
    own_options(config)
    for problem in _conflicts(config):
        raise DPMError(problem)
    config.use_gpu = config.use_gpu and torch.cuda.is_available()
    config.freeze()
    return config


def _conflicts(config):
    """Settings that are fine alone but not together, of which one would else be ignored in silence."""
    data, train, test, loss = config.data, config.train, config.test, config.loss
    is_dpm, is_triplet, is_video = loss.name == "dpm", loss.name == "triplet", data.type == "video"
    defaults = {name: SCHEMA[f"train.{name}"].default for name in train}
    for name in () if is_dpm else ("amp", "steps", "accumulate", "compile", "conv_layout", "grad_checkpointing"):
        if train[name] != defaults[name]:
            key = f"train.{name}"
            yield f"{key} {train[name]} works with loss.name dpm only, not {loss.name}; set {key} {defaults[name]}"
    if (parts := train.accumulate) > (size := train.batch_size):
        yield f"train.accumulate {parts} cannot split a batch of {size} (train.batch_size); lower it"
    if data.persistent_workers and (data.workers == 0 or is_video):
        yield "data.persistent_workers needs data.workers above 0 and data.type image; set it to False"
    if data.corrupt == "skip" and is_video:
        yield "data.corrupt skip works with data.type image only; set it to error"
    if is_dpm and is_video:
        yield "loss.name dpm trains on images; set data.type image, or loss.name softmax or triplet"
    if config.model.load_sha256 and not config.model.load_weights:
        yield "model.load_sha256 needs model.load_weights, whose file it is compared with"
    if train.resume and config.model.resume and train.resume != config.model.resume:
        yield "train.resume and model.resume name different checkpoints; set one of them"
    if train.overwrite and train.resume == "auto":
        yield "train.overwrite True and train.resume auto exclude each other; set one of them"
    for name in ("checkpoint_every", "non_finite", "deterministic") if is_video else ():
        if train[name] != defaults[name]:
            yield f"train.{name} {train[name]} works with data.type image only"
    if train.deterministic and "random_patch" in data.transforms:
        why = "pastes from images that its process read before, which train.deterministic excludes"
        yield f"data.transforms random_patch {why}; leave one of them out"
    if data.k_tfm > 1 and is_dpm:
        yield f"loss.name dpm takes one view per image; set data.k_tfm 1 (got {data.k_tfm})"
    for name in ("visrank", "rerank"):
        if test[name] and not test.evaluate:
            yield f"test.{name} works in an evaluation only; set test.evaluate True as well"
    for name in ("norm_mean", "norm_std"):
        if len(data[name]) != 3:
            yield f"data.{name} needs one number for each of 3 channels, got {data[name]}"
    if 0 in data.norm_std:
        yield f"data.norm_std {data.norm_std} would divide by 0; give numbers above 0"
    if is_triplet and train.batch_size == 1 and not test.evaluate:
        yield "train.batch_size 1 leaves loss triplet nothing to compare; give at least 2"
    if not data.save_dir:
        yield "data.save_dir is empty; name a folder, '.' for the current one"
    for name, value in (("test.ranks", test.ranks), ("train.stepsize", train.stepsize)):
        if not value:
            yield f"{name} is empty; give at least one number"
    if is_triplet and loss.triplet.weight_t + loss.triplet.weight_x == 0:
        yield "loss.triplet.weight_t and loss.triplet.weight_x are both 0; nothing would be trained"
    if is_triplet and loss.triplet.weight_x == 0 and train.fixbase_epoch > 0:
        why = "trains the classifier, which loss triplet leaves out while loss.triplet.weight_x is 0"
        yield f"train.fixbase_epoch {why}; set one of the two"


def check_ignored(config: CfgNode, has_mask: bool) -> None:
    """Refuse settings of the mask that would be ignored in silence; apart, so that runs that had them still open.

    Args:
        has_mask: whether the model that is trained has a mask generator and a loss that trains it.

    Raises:
        DPMError: names the key and what to set.
    """
    train, dpm = config.train, config.loss.dpm
    for name in ("mask_lr_mult", "mask_schedule"):
        default = SCHEMA[f"train.{name}"].default
        if train[name] == default:
            continue
        if not has_mask:
            what = f"'{config.model.name}' with loss.name {config.loss.name} trains none; set it to {default}"
            raise DPMError(f"train.{name} {train[name]} is for a mask generator, but {what}")
        if name == "mask_schedule" and train.lr_scheduler != "warmup_cosine":
            raise DPMError(f"train.mask_schedule {train[name]} works with train.lr_scheduler warmup_cosine only")
    if not dpm.mask_renormalise and not dpm.mask_variant.endswith("n"):
        why = f"loss.dpm.mask_variant {dpm.mask_variant} normalises after the mask anyway"
        raise DPMError(f"loss.dpm.mask_renormalise False would be ignored: {why}; set it to True")


def flat(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, value) of every setting below ``node``, a configuration or one of its sections."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _set(config, name, value, where):
    if name in _SECTIONS:
        example = next(key for key in SCHEMA if key.startswith(name + "."))
        raise DPMError(f"{short(name)} {where} is a section; set one of its keys, such as {example}")
    if name not in SCHEMA:
        near = _nearest_key(name)
        advice = "configs/REFERENCE.md lists all" if near is None else f"the nearest known key is '{near}'"
        raise DPMError(f"unknown key {short(name)} {where}; {advice}")
    try:
        value = convert(SCHEMA[name], value)
    except ValueError as error:
        raise DPMError(f"key '{name}' {where}: {error}") from error
    if name in PATHS and ("\0" in value or value.encode("utf-8", "replace").decode() != value):
        raise DPMError(f"key '{name}' {where}: {short(value)} is no file name in UTF-8")
    _store(config, name, os.path.expanduser(value) if name in PATHS else value)


def _nearest_key(name):
    """By spelling, else by the last part (``lr`` -> ``train.lr``); None where no key is near."""
    last = name.rpartition(".")[2]
    same_last = [key for key in SCHEMA if key.rpartition(".")[2] == last]
    return nearest(name, SCHEMA, near=0.75) or nearest(name, same_last, near=0) or nearest(name, SCHEMA)


def _store(config, name, value):
    *sections, last = name.split(".")
    for section in sections:
        config = config.setdefault(section, CfgNode())
    config[last] = value


def _read_yaml(file):
    """``(dotted key, value, line)`` of every entry of a yaml file."""
    # yacs itself would also run a .py file, and its messages name neither the file nor the line.
    if Path(file).suffix not in (".yaml", ".yml"):
        raise DPMError(f"config file '{file}' must end in .yaml or .yml")
    try:
        loader = yaml.SafeLoader(read_text(file))
        root = loader.get_single_node()
        return list(_entries(loader, root, "", file)) if root is not None else []
    except OSError as error:
        raise DPMError(f"config file '{file}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DPMError(f"config file '{file}' is no UTF-8 text") from error
    except YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise DPMError(f"config file '{file}'{line}: no valid YAML ({first_line(problem)})") from error


def _entries(loader, node, prefix, file):
    line = node.start_mark.line + 1
    if not isinstance(node, yaml.MappingNode):
        raise DPMError(f"'{prefix or 'the file'}' in {file}, line {line} must hold 'key: value' lines")
    seen = set()
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise DPMError(f"a key in {file}, line {line} is a list or mapping; keys are words")
        name = prefix + ("." if prefix else "") + key.value
        if name in seen:
            raise DPMError(f"key {short(name)} appears twice in {file}, the second time in line {line}")
        seen.add(name)
        # Not into mappings of unknown keys: an alias in one may lead back to itself.
        if name in _SECTIONS:
            yield from _entries(loader, value, name, file)
        else:
            yield name, loader.construct_object(value, deep=True), line
