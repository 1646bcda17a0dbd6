"""One training run of a sweep: what determines it, where its folder is, and whether it is finished."""

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from dpm_plugin.config import flat, load_config
from dpm_plugin.config.schema import SCHEMA
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.weights.files import read_checkpoint

MAIN = Path(__file__).resolve().parents[3] / "tools" / "main.py"

#: Keys that do not determine what is learned: where files lie, the seed (it names the folder itself), speed.
NEUTRAL = (
    "data.root",
    "data.save_dir",
    "data.workers",
    "dist.timeout",
    "model.resume",
    "train.resume",
    "train.checkpoint_every",
    "train.keep_checkpoints",
    "train.seed",
    "train.print_freq",
    "use_gpu",
)

#: Keys younger than finished runs on people's disks: at their defaults they leave the names of folders as they were.
YOUNG = (
    "data.corrupt",
    "data.persistent_workers",
    "train.accumulate",
    "train.compile",
    "train.conv_layout",
    "train.deterministic",
    "train.grad_checkpointing",
    "train.non_finite",
    "train.non_finite_limit",
    "train.optim_form",
    "train.steps",
    "train.sync_bn",
)


@dataclass(frozen=True)
class Run:
    """One call of ``tools/main.py``.

    Args:
        label: human name of the run's folder, such as "dpm_vit_tiny-beta0"; safe in file names.
        config_file: yaml file with settings.
        model: network, ``model.name``.
        overrides: ((key, value), ...) on top of the file; lists are kept as tuples.
        seed: ``train.seed``.

    Raises:
        DPMError: the label is no file name.
    """

    label: str
    config_file: str
    model: str
    overrides: tuple
    seed: int

    def __post_init__(self):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", self.label):
            raise DPMError(f"run label '{self.label}' is no file name; use letters, digits and . _ + -")
        pairs = ((key, tuple(value) if isinstance(value, list) else value) for key, value in self.overrides)
        object.__setattr__(self, "config_file", str(self.config_file))
        object.__setattr__(self, "overrides", tuple(pairs))

    @property
    def name(self):
        """Label and seed, as messages call the run."""
        return f"{self.label}, seed {self.seed}"

    def config(self, root=None):
        """The resolved configuration of the run (its ``data.save_dir`` is not set).

        Raises:
            DPMError: the settings are wrong.
        """
        options = {"model.name": self.model} | ({} if root is None else {"data.root": str(root)})
        return load_config(self.config_file, [*self._pairs(), "train.seed", str(self.seed)], options)

    @cached_property
    def digest(self):
        """Ten hexadecimal digits of every resolved setting that determines the run, all but new defaults included."""
        settings = {
            key: value
            for key, value in flat(self.config())
            if key not in NEUTRAL and (key not in YOUNG or value != SCHEMA[key].default)
        }
        text = json.dumps(settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def folder(self, base):
        """The run's ``data.save_dir``: ``base/<label>-<digest>/seed-<seed>``."""
        return Path(base) / f"{self.label}-{self.digest}" / f"seed-{self.seed}"

    def command(self, base, root=None, *, python=sys.executable, main=MAIN, resume=None):
        """Arguments for ``subprocess``; ``resume`` is a checkpoint to go on from."""
        command = [str(python), str(main), "--config-file", self.config_file, "-m", self.model]
        command += [] if root is None else ["--root", str(root)]
        command += [*self._pairs(), "train.seed", str(self.seed), "data.save_dir", str(self.folder(base))]
        return command + ([] if resume is None else ["model.resume", str(resume)])

    def results(self, base):
        """What ``results.json`` of the finished run says; None where the run is missing or unfinished."""
        folder, config = self.folder(base), self.config()
        try:
            results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
            epochs = [results["datasets"][name]["epoch"] for name in config.data.targets]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if config.test.evaluate or all(epoch == config.train.max_epoch for epoch in epochs):
            return results
        # Resumed after its last epoch (killed between training and evaluation) a run names no epoch.
        after_last = all(epoch in (None, config.train.max_epoch) for epoch in epochs)
        return results if after_last and self.epochs_done(base) == config.train.max_epoch else None

    def checkpoint(self, base):
        """Path of the checkpoint of the last finished epoch; whether it is there or not."""
        return self.folder(base) / "model" / "last.pth.tar"

    def epochs_done(self, base):
        """Epochs in the checkpoint; 0 where there is none that can be read."""
        if not self.checkpoint(base).is_file():
            return 0
        try:
            return int(read_checkpoint(self.checkpoint(base))["epoch"])
        except (DPMError, KeyError, TypeError, ValueError):
            return 0

    def _pairs(self):
        return [text for key, value in self.overrides for text in (key, str(value))]
