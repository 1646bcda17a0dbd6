"""What all runs of a table share: data set, config file, seeds and the user's own settings."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from yacs.config import CfgNode

from dpm_plugin.apps.compare.budget import schedule_overrides, stock_overrides
from dpm_plugin.apps.compare.run import Run
from dpm_plugin.config import flat, load_config, model_kwargs
from dpm_plugin.method.vit import ViT
from dpm_plugin.models import BASELINES, MODELS
from dpm_plugin.torchreid_host import image_dataset_classes
from dpm_plugin.utils.command import pairs
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import unknown

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
    """

    config_file: str
    overrides: tuple[tuple[str, object], ...]
    seeds: tuple[int, ...]

    @cached_property
    def config(self) -> CfgNode:
        """The resolved configuration that rows deviate from."""
        return load_config(self.config_file, [str(part) for pair in self.overrides for part in pair])

    @property
    def model(self) -> str:
        return self.config.model.name

    @property
    def baseline(self) -> str:
        """The model's twin without mask branch."""
        return self.model.replace("_parts", "").replace("dpm_vit", "vit_baseline")

    @property
    def config_name(self) -> str:
        """The config file as a reader finds it: relative to the repository where it lies there."""
        file = Path(self.config_file).resolve()
        return str(file.relative_to(CONFIGS.parent)) if CONFIGS in file.parents else self.config_file

    def run(
        self, seed: int, model: str | None = None, changes: Mapping[str, object] | None = None, label: str | None = None
    ) -> Run:
        """The run of ``model`` (default: the config's) with ``changes`` to the config.

        What a change leaves as the config has it is dropped, so that rows of different tables that mean the
        same run are the same run.
        """
        own, model = dict(flat(self.config)), model or self.model
        changes = (stock_overrides(model, self.config) if model in BASELINES else {}) | dict(changes or {})
        changes = {key: value for key, value in changes.items() if _plain(own[key]) != _plain(value)}
        parts = [model, *(f"{key.rpartition('.')[2]}{_short(value)}" for key, value in changes.items())]
        overrides = dict(self.overrides) | changes
        return Run(label or "-".join(parts)[:80], self.config_file, model, tuple(overrides.items()), seed)

    def runs(
        self, model: str | None = None, changes: Mapping[str, object] | None = None, label: str | None = None
    ) -> tuple[Run, ...]:
        """One run for each seed."""
        return tuple(self.run(seed, model, changes, label) for seed in self.seeds)

    def with_overrides(self, changes: Mapping[str, object]) -> "Setting":
        """The same setting with further settings for every run."""
        return replace(self, overrides=tuple((dict(self.overrides) | changes).items()))

    @cached_property
    def architecture(self) -> tuple[int, int]:
        """(depth, patch size in pixels) of the model, its backbone's own where the config names none."""
        vit = self.config.vit
        if vit.depth and vit.patch_size:
            return vit.depth, vit.patch_size
        return self._backbone.depth, self._backbone.transformer.patch_embed.patch_size[0]

    @property
    def dim(self) -> int:
        """Channels of a token, the backbone's own where the config names none."""
        return self.config.vit.embed_dim or self._backbone.dim

    @cached_property
    def _backbone(self) -> ViT:
        options = model_kwargs(self.config, num_classes=2, num_cameras=0) | {"pretrained": False}
        with torch.device("meta"):  # without memory: only to be looked at
            return MODELS[self.baseline](**options).backbone


def make_setting(
    dataset: str | None = None,
    config_file: str | None = None,
    overrides: Sequence[str] = (),
    seeds: Iterable[int] = (1,),
    epochs: int | None = None,
) -> Setting:
    """The setting of a command line.

    Args:
        dataset: a registered image data set. Default: that of ``config_file``, else synthetic_occluded.
        config_file: Default: the repository's for this data set; for a set that has none, Occluded-Duke's,
            and for a set without training images, Occluded-REID's, which trains on Market-1501.
        overrides: ["train.lr", "0.01", ...] for every run.
        epochs: of every run, with the schedule fitted to them. Default: the config's.

    Raises:
        DPMError: unknown data set or key, a key that the sweep sets itself, or no DPM model.
    """
    given = dict(pairs(overrides))
    for key in _RESERVED.keys() & given.keys():
        raise DPMError(f"'{key}' is set by the sweep; use {_RESERVED[key]}")
    if "data.root" in given:
        raise DPMError("give the data root by --root")
    known = image_dataset_classes()
    if dataset is not None and dataset not in known:
        raise unknown("data set (--dataset)", dataset, known)
    config_file = str(config_file or CONFIGS / _default_config(dataset or SYNTHETIC))
    base = _dataset_overrides(dataset, config_file) | given
    setting = Setting(config_file, tuple(base.items()), tuple(dict.fromkeys(seeds)))
    if not setting.model.startswith("dpm_vit"):
        raise DPMError(f"'{setting.model}' in '{config_file}' has no mask to study; set model.name to a dpm_vit model")
    if len(setting.config.data.targets) != 1:
        raise DPMError(f"'{config_file}' tests on {setting.config.data.targets}; choose one data set by --dataset")
    return setting if epochs is None else setting.with_overrides(schedule_overrides(setting.config, epochs))


def _trains(dataset: str) -> bool:
    structure = getattr(image_dataset_classes()[dataset], "structure", None)
    return structure is None or "train" in structure.splits  # those without one all have training images


def _default_config(dataset: str) -> str:
    return _CONFIG_OF.get(dataset) or ("dpm_occduke.yaml" if _trains(dataset) else "dpm_occreid.yaml")


def _dataset_overrides(dataset: str | None, config_file: str) -> dict[str, object]:
    """What makes ``config_file`` one for ``dataset``."""
    if dataset is None or load_config(config_file).data.targets == [dataset]:
        return {}
    names = str([dataset])
    return {"data.targets": names} | ({"data.sources": names} if _trains(dataset) else {})


def _plain(value: object) -> object:
    return list(value) if isinstance(value, (list, tuple)) else value


def _short(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return "-".join(map(_short, value))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")
