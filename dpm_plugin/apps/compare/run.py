"""One training run: what determines it, where its folder is, and whether it is finished."""

import hashlib
import json
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from yacs.config import CfgNode

from dpm_plugin.config import SCHEMA, flat, load_config
from dpm_plugin.engine.run_checkpoints import newest_checkpoint
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import read_json
from dpm_plugin.weights.files import read_checkpoint

#: What Python is started with to train: not ``-m dpm_plugin train``, which a file called "train" could be meant by.
PROGRAM = ("-m", "dpm_plugin.commands.train")

#: Keys that do not determine what is learned: where files lie, the seed (it names the folder itself), speed.
NEUTRAL = (
    "data.root data.save_dir data.workers dist.timeout model.resume train.resume train.checkpoint_every "
    "train.keep_checkpoints train.keep_epochs train.overwrite train.seed train.print_freq use_gpu"
).split()
#: Keys that are part of a folder's name only where they are not at their defaults: ways to compute the same thing, and
#: what came later.
OPTIONAL = (
    "data.corrupt data.persistent_workers train.accumulate train.compile train.conv_layout train.deterministic "
    "train.grad_checkpointing train.non_finite train.non_finite_limit train.optim_form train.steps train.sync_bn "
    "vit.parts vit.part_dim vit.prototype_init"
).split()


@dataclass(frozen=True)
class Run:
    """One call of ``dpm train``.

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
    overrides: tuple[tuple[str, object], ...]
    seed: int

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", self.label):
            raise DPMError(f"run label '{self.label}' is no file name; use letters, digits and . _ + -")
        fixed = ((key, tuple(value) if isinstance(value, list) else value) for key, value in self.overrides)
        object.__setattr__(self, "config_file", str(self.config_file))
        object.__setattr__(self, "overrides", tuple(fixed))

    @property
    def name(self) -> str:
        """Label and seed, as messages call the run."""
        return f"{self.label}, seed {self.seed}"

    def config(self, root: str | Path | None = None) -> CfgNode:
        """The resolved configuration of the run (its ``data.save_dir`` is not set).

        Raises:
            DPMError: the settings are wrong.
        """
        options = {"model.name": self.model} | ({} if root is None else {"data.root": str(root)})
        return load_config(self.config_file, [*self._texts(), "train.seed", str(self.seed)], options)

    @cached_property
    def digest(self) -> str:
        """Ten hexadecimal digits of every resolved setting that determines the run."""
        settings = {
            key: value
            for key, value in flat(self.config())
            if key not in NEUTRAL and (key not in OPTIONAL or value != SCHEMA[key].default)
        }
        return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:10]

    def folder(self, base: str | Path) -> Path:
        """The run's ``data.save_dir``: ``base/<label>-<digest>/seed-<seed>``."""
        return Path(base) / f"{self.label}-{self.digest}" / f"seed-{self.seed}"

    def command(self, base: str | Path, root: str | Path | None = None, resume: str | Path | None = None) -> list[str]:
        """Arguments for ``subprocess``; ``resume`` is a checkpoint to go on from."""
        command = [sys.executable, *PROGRAM, "--config-file", self.config_file, "-m", self.model]
        command += [] if root is None else ["--root", str(root)]
        command += [*self._texts(), "train.seed", str(self.seed), "data.save_dir", str(self.folder(base))]
        return command + (["train.overwrite", "True"] if resume is None else ["model.resume", str(resume)])

    def results(self, base: str | Path) -> dict | None:
        """What ``results.json`` of the finished run says; None where the run is missing or unfinished."""
        config = self.config()
        try:
            results = read_json(self.folder(base) / "results.json")
            epochs = {results["datasets"][name]["epoch"] for name in config.data.targets}
        except (OSError, ValueError, KeyError, TypeError):
            return None
        last = config.train.max_epoch
        if config.test.evaluate or epochs <= {last}:
            return results
        # Resumed after its last epoch (killed between training and evaluation) a run names no epoch.
        return results if epochs <= {None, last} and self.epochs_done(base) == last else None

    def checkpoint(self, base: str | Path) -> Path:
        """Path of the checkpoint of the last finished epoch; whether it is there or not."""
        return self.folder(base) / "model" / "last.pth.tar"

    def epochs_done(self, base: str | Path) -> int:
        """Epochs in the checkpoint; 0 where there is none that can be read."""
        if not self.checkpoint(base).is_file():
            return 0
        try:
            return int(read_checkpoint(self.checkpoint(base))["epoch"])
        except (DPMError, KeyError, TypeError, ValueError):
            return 0

    def resumable(self, base: str | Path) -> Path | None:
        """The newest checkpoint to go on from, as ``train.resume auto`` finds it; damaged ones are named on screen.

        None where there is none that can be read.
        """
        try:
            return newest_checkpoint(self.checkpoint(base).parent)
        except DPMError:
            print(f"=> {self.name}: no checkpoint can be resumed, so it is trained anew")
            return None

    def _texts(self) -> list[str]:
        return [text for key, value in self.overrides for text in (key, str(value))]
