"""From a yaml file and the command line to a checked, frozen configuration."""

from pathlib import Path

import torch
import yaml
from yacs.config import CfgNode

from dpm_plugin.config.arguments import synthetic_spec
from dpm_plugin.config.schema import SCHEMA
from dpm_plugin.config.types import YAML_ERRORS, convert, short
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import nearest

_SECTIONS = {name.rsplit(".", depth)[0] for name in SCHEMA for depth in range(1, name.count(".") + 1)}


def default_config():
    """A fresh ``yacs`` node with every key at its default."""
    config = CfgNode()
    for name, key in SCHEMA.items():
        _store(config, name, list(key.default) if isinstance(key.default, (list, tuple)) else key.default)
    return config


def load_config(file="", opts=(), overrides=None):
    """Read the configuration of one run.

    Args:
        file: path of a .yaml/.yml file, or "" for none.
        opts: ``["train.lr", "0.01", ...]``, as torchreid's scripts take them; read last.
        overrides: ``{"data.root": ...}``, from options such as ``--root``; read between file and opts.

    Returns:
        a frozen ``yacs.config.CfgNode``; ``use_gpu`` is False where there is no GPU.

    Raises:
        DPMError: unknown key, wrong type, value out of range, unreadable file, or settings that exclude
            each other.
    """
    config = default_config()
    if file:
        for name, value, line in _read_yaml(file):
            _set(config, name, value, f"in {file}, line {line}")
    for name, value in (overrides or {}).items():
        _set(config, name, value, "on the command line")
    for name, value in _pairs(opts):
        _set(config, name, value, "on the command line")
    check_together(config)
    config.use_gpu = config.use_gpu and torch.cuda.is_available()
    config.freeze()
    return config


def check_together(config):
    """Refuse settings that are fine alone but not together (each would otherwise be ignored in silence).

    Raises:
        DPMError: names both keys.
    """
    synthetic_spec(config)
    is_dpm = config.loss.name == "dpm"
    if not is_dpm:
        for name in ("amp", "steps", "accumulate", "compile", "conv_layout", "grad_checkpointing"):
            value, default = config.train[name], SCHEMA[f"train.{name}"].default
            if value != default:
                raise DPMError(
                    f"train.{name} {value} works with loss.name dpm only, not {config.loss.name}; "
                    f"set train.{name} {default}"
                )
    if config.train.accumulate > config.train.batch_size:
        raise DPMError(
            f"train.accumulate {config.train.accumulate} cannot split a batch of "
            f"{config.train.batch_size} (train.batch_size); lower it"
        )
    if config.data.persistent_workers and (config.data.workers == 0 or config.data.type == "video"):
        raise DPMError("data.persistent_workers needs data.workers above 0 and data.type image; set it to False")
    if config.data.corrupt == "skip" and config.data.type == "video":
        raise DPMError("data.corrupt skip works with data.type image only; set it to error")
    if is_dpm and config.data.type == "video":
        raise DPMError("loss.name dpm trains on images; set data.type image, or loss.name softmax or triplet")
    if config.train.resume and config.model.resume and config.train.resume != config.model.resume:
        raise DPMError("train.resume and model.resume name different checkpoints; set one of them")
    for name in ("checkpoint_every", "non_finite", "deterministic"):
        if config.data.type == "video" and config.train[name] != SCHEMA[f"train.{name}"].default:
            raise DPMError(f"train.{name} {config.train[name]} works with data.type image only")
    if config.train.deterministic and "random_patch" in config.data.transforms:
        raise DPMError(
            "data.transforms random_patch pastes from images that its process read before, which "
            "train.deterministic excludes; leave one of them out"
        )
    if config.data.k_tfm > 1 and is_dpm:
        raise DPMError(f"loss.name dpm takes one view per image; set data.k_tfm 1 (got {config.data.k_tfm})")
    for name in ("visrank", "rerank"):
        if config.test[name] and not config.test.evaluate:
            raise DPMError(f"test.{name} works in an evaluation only; set test.evaluate True as well")
    for name in ("norm_mean", "norm_std"):
        if len(config.data[name]) != 3:
            raise DPMError(f"data.{name} needs one number for each of 3 channels, got {config.data[name]}")
    for name, value in (("test.ranks", config.test.ranks), ("train.stepsize", config.train.stepsize)):
        if not value:
            raise DPMError(f"{name} is empty; give at least one number")
    weights = config.loss.triplet
    if config.loss.name == "triplet" and weights.weight_t + weights.weight_x == 0:
        raise DPMError("loss.triplet.weight_t and loss.triplet.weight_x are both 0; nothing would be trained")
    if config.loss.name == "triplet" and weights.weight_x == 0 and config.train.fixbase_epoch > 0:
        raise DPMError(
            "train.fixbase_epoch trains the classifier, which loss triplet leaves out while "
            "loss.triplet.weight_x is 0; set one of the two"
        )


def flat(node, prefix=""):
    """(dotted key, value) of every setting below ``node``, a configuration or one of its sections."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _set(config, name, value, where):
    if name not in SCHEMA:
        if name in _SECTIONS:
            raise DPMError(
                f"{short(name)} {where} is a section; set one of its keys, "
                f"such as {next(key for key in SCHEMA if key.startswith(name + '.'))}"
            )
        raise DPMError(f"unknown key {short(name)} {where}; the nearest known key is '{nearest(name, SCHEMA)}'")
    try:
        _store(config, name, convert(SCHEMA[name], value))
    except ValueError as error:
        raise DPMError(f"key '{name}' {where}: {error}") from error


def _store(config, name, value):
    *sections, last = name.split(".")
    for section in sections:
        if section not in config:
            config[section] = CfgNode()
        config = config[section]
    config[last] = value


def _pairs(opts):
    opts = list(opts)
    options = [text for text in opts if text.startswith("--")]
    if options:
        raise DPMError(f"option {short(options[0])} comes after the first KEY VALUE pair; put options before the pairs")
    if len(opts) % 2:
        raise DPMError(f"keys and values on the command line come in pairs: {short(opts[-1])} has no partner")
    return zip(opts[0::2], opts[1::2])


def _read_yaml(file):
    """``(dotted key, value, line)`` of every entry of a yaml file."""
    # yacs itself would also run a .py file, and its messages name neither the file nor the line.
    if Path(file).suffix not in (".yaml", ".yml"):
        raise DPMError(f"config file '{file}' must end in .yaml or .yml")
    try:
        loader = yaml.SafeLoader(Path(file).read_text(encoding="utf-8"))
        try:
            root = loader.get_single_node()
            return list(_entries(loader, root, "", file)) if root is not None else []
        finally:
            loader.dispose()
    except OSError as error:
        raise DPMError(f"config file '{file}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DPMError(f"config file '{file}' is no UTF-8 text") from error
    except YAML_ERRORS as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        problem = (str(problem).splitlines() or [type(error).__name__])[0]
        raise DPMError(f"config file '{file}'{line}: no valid YAML ({problem})") from error


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
