"""What all runs of a table share: data set, config file, seeds and the user's own settings."""

import inspect
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dpm_plugin.config import flat, load_config
from dpm_plugin.method.vit import plain_backbone
from dpm_plugin.models import MODELS
from dpm_plugin.torchreid_host import image_dataset_classes
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import nearest
from experiments.reproduce.run import Run

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
SYNTHETIC = "synthetic_occluded"
_CONFIG_OF = {
    SYNTHETIC: "dpm_synthetic.yaml",
    "occluded_duke": "dpm_occduke.yaml",
    "occluded_reid": "dpm_occreid.yaml",
    "market1501": "dpm_market1501.yaml",
    "dukemtmcreid": "dpm_dukemtmc.yaml",
}
_RESERVED = {
    "train.seed": "--seeds",
    "data.save_dir": "--out",
    "model.resume": "nothing, it is found by itself",
    "train.resume": "nothing, it is found by itself",
    "model.load_weights": "nothing: every run is trained from the config's start",
}


@dataclass(frozen=True)
class Setting:
    """The base of a table's runs.

    Args:
        config_file: yaml file; its model must be one of the plugin's with a mask.
        overrides: ((key, value), ...) of the user, for every run.
        seeds: of each row.
        root: data root, None for the config's.
    """

    config_file: str
    overrides: tuple
    seeds: tuple
    root: str = None

    @cached_property
    def config(self):
        """The resolved configuration that rows deviate from."""
        return load_config(self.config_file, [str(part) for pair in self.overrides for part in pair])

    @property
    def model(self):
        return self.config.model.name

    @property
    def baseline(self):
        """The model's twin without mask branch."""
        return self.model.replace("dpm_vit", "vit_baseline")

    @property
    def config_name(self):
        """The config file as a reader finds it: relative to the repository where it lies there."""
        file = Path(self.config_file).resolve()
        return str(file.relative_to(CONFIGS.parent)) if CONFIGS in file.parents else self.config_file

    def run(self, seed, model=None, changes=(), label=None):
        """The run of ``model`` (default: the config's) with ``changes`` (dict or pairs) to the config.

        What a change leaves as the config has it is dropped, so that rows of different tables that mean the
        same run are the same run.
        """
        own, model = dict(flat(self.config)), model or self.model
        changes = {key: value for key, value in dict(changes).items() if _plain(own[key]) != _plain(value)}
        parts = [model] + [f"{key.rpartition('.')[2]}{_short(value)}" for key, value in changes.items()]
        overrides = dict(self.overrides) | changes
        return Run(label or "-".join(parts)[:80], self.config_file, model, tuple(overrides.items()), seed)

    def runs(self, model=None, changes=(), label=None):
        """One run for each seed."""
        return tuple(self.run(seed, model, changes, label) for seed in self.seeds)

    def with_overrides(self, changes):
        """The same setting with further settings for every run."""
        return Setting(self.config_file, tuple((dict(self.overrides) | dict(changes)).items()), self.seeds, self.root)

    def architecture(self):
        """(depth, patch size in pixels) of the model, its backbone's own where the config names none."""
        vit = self.config.vit
        if vit.depth and vit.patch_size:
            return vit.depth, vit.patch_size
        backbone = vit.backbone or inspect.signature(MODELS[self.model]).parameters["backbone"].default
        plain = plain_backbone(backbone)
        return vit.depth or len(plain.blocks), vit.patch_size or plain.patch_embed.patch_size[0]


def make_setting(dataset=None, config_file=None, overrides=(), seeds=(1,), root=None, epochs=None, schedule=None):
    """The setting of a command line.

    Args:
        dataset: a registered image data set. Default: that of ``config_file``, else synthetic_occluded.
        config_file: Default: the repository's for this data set; for a set that has none, Occluded-Duke's,
            and for a set without training images, Occluded-REID's, which trains on Market-1501.
        overrides: ["train.lr", "0.01", ...] for every run.
        epochs: of every run, None keeps the config's.
        schedule: ``experiments.compare.budget.schedule_overrides``, asked for only with ``epochs``.

    Raises:
        DPMError: unknown data set or key, a key that the sweep sets itself, or no DPM model.
    """
    pairs = _pairs(overrides)
    for key in _RESERVED.keys() & dict(pairs).keys():
        raise DPMError(f"'{key}' is set by the sweep; use {_RESERVED[key]}")
    if "data.root" in dict(pairs):
        raise DPMError("give the data root by --root")
    if dataset is not None:
        _check_known(dataset)
    config_file = str(config_file or CONFIGS / _default_config(dataset or SYNTHETIC))
    base = dict(_dataset_overrides(dataset, config_file)) | dict(pairs)
    setting = Setting(config_file, tuple(base.items()), tuple(dict.fromkeys(seeds)), root)
    if not setting.model.startswith("dpm_vit"):
        raise DPMError(f"'{setting.model}' in '{config_file}' has no mask to study; set model.name to a dpm_vit model")
    if len(setting.config.data.targets) != 1:
        raise DPMError(f"'{config_file}' tests on {setting.config.data.targets}; choose one data set by --dataset")
    return setting if epochs is None else setting.with_overrides(schedule(setting.config, epochs))


def _pairs(texts):
    if len(texts) % 2:
        raise DPMError(f"keys and values come in pairs: '{texts[-1]}' has no partner")
    return tuple(zip(texts[0::2], texts[1::2]))


def _check_known(dataset):
    known = image_dataset_classes()
    if dataset not in known:
        raise DPMError(
            f"unknown data set '{dataset}' (--dataset); the nearest known one is '{nearest(dataset, known)}'"
        )


def _trains(dataset):
    structure = getattr(image_dataset_classes()[dataset], "structure", None)
    return structure is None or "train" in structure.splits  # those without one all have training images


def _default_config(dataset):
    return _CONFIG_OF.get(dataset) or ("dpm_occduke.yaml" if _trains(dataset) else "dpm_occreid.yaml")


def _dataset_overrides(dataset, config_file):
    """What makes ``config_file`` one for ``dataset``."""
    if dataset is None or load_config(config_file).data.targets == [dataset]:
        return {}
    names = str([dataset])
    return {"data.targets": names} | ({"data.sources": names} if _trains(dataset) else {})


def _plain(value):
    return list(value) if isinstance(value, (list, tuple)) else value


def _short(value):
    if isinstance(value, (list, tuple)):
        return "-".join(map(_short, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
