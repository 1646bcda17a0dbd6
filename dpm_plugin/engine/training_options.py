"""How a run is kept and when it ends: what the engines of this package take beside torchreid's arguments."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TrainingOptions:
    """How a run keeps checkpoints, and what follows a number that is not finite.

    Attributes:
        checkpoint_every: iterations between checkpoints. Default: 0, at the end of each epoch only.
        keep_checkpoints: newest ones to keep, see :mod:`~dpm_plugin.engine.run_checkpoints`. Default: 3.
        keep_epochs: newest evaluated epochs whose weights to keep. Default: 0, all.
        non_finite: "stop" the run at a loss or gradient that is not finite, or "skip" the iteration: it is undone,
            which takes a second copy of weights and optimizer state, and counted. Default: "stop".
        non_finite_limit: iterations skipped in a row that stop the run all the same. Default: 10.
        position_seed: see :class:`~dpm_plugin.engine.resumable_loader.ResumableLoader`. Default: None.
        patience: evaluations without a better one that end training, see :class:`~dpm_plugin.engine.patience.Patience`.
            Default: 0, none do.
        record: what checkpoints say of the run, see :mod:`~dpm_plugin.engine.run_record`; None: what is resumed is only
            evaluated. Default: nothing.
    """

    checkpoint_every: int = 0
    keep_checkpoints: int = 3
    keep_epochs: int = 0
    non_finite: str = "stop"
    non_finite_limit: int = 10
    position_seed: int | None = None
    patience: int = 0
    record: Mapping[str, Any] | None = field(default_factory=dict)
