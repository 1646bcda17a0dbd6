"""The checkpoints of a run: what they hold, which there are in its folder, and which one to go on from.

``model/last.pth.tar`` is the newest, ``last-1.pth.tar`` the one before and so on; ``model.pth.tar-<epoch>`` is
torchreid's, of every evaluated epoch; ``best.pth.tar`` the evaluated one of the highest rank-1.
"""

import os
from pathlib import Path
from typing import Any

from torch import nn

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import put_copy
from dpm_plugin.weights.files import plain_tensors, read_checkpoint, write_checkpoint

FOLDER = "model"  # in the run's folder: torchreid's name of the engine's one model
LAST = "last.pth.tar"
BEST = "best.pth.tar"


def restore(
    path: str | Path, model: nn.Module, optimizer: Any = None, scheduler: Any = None, scaler: Any = None
) -> dict[str, Any]:
    """Put a checkpoint's weights and training state into the parts of a run; returns the checkpoint's content.

    Random generators and the position within an epoch are left alone; an engine's ``resume`` restores these too.

    Args:
        path: a file written by this package or by torchreid.
        optimizer, scheduler, scaler: each takes up its state where the file has one. Default: the run has none.

    Raises:
        DPMError: unreadable, or of another model; names what differs.
    """
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint or "epoch" not in checkpoint:
        raise DPMError(f"'{path}' holds weights but no training state, so it can't be resumed; use model.load_weights")
    state = plain_tensors(checkpoint["state_dict"], path)
    own, given = ({(key, tensor.shape) for key, tensor in tensors.items()} for tensors in (model.state_dict(), state))
    differing = sorted({key for key, _ in own ^ given})
    if differing:
        found = f"{len(differing)} tensors differ, the first is '{differing[0]}'"
        advice = "resume with the same model, classes, cameras and image size, or use model.load_weights"
        raise DPMError(f"checkpoint '{path}' is of another model: {found}; {advice}")
    model.load_state_dict(state)
    for name, part in (("optimizer", optimizer), ("scheduler", scheduler), ("scaler", scaler)):
        if part is not None and checkpoint.get(name):
            try:
                part.load_state_dict(checkpoint[name])
            except (ValueError, KeyError, TypeError) as error:
                raise DPMError(f"the {name} state in '{path}' does not fit this run's {name}: {error}") from error
    return checkpoint


def write_last(state: dict[str, Any], path: str | Path, keep: int = 3) -> None:
    """Write ``state`` to ``path``, ``.../last.pth.tar``, and keep older ones as ``last-1.pth.tar`` and so on.

    ``keep``: how many there are then, this one included. Where it cannot be written, a DPMError, all stay as they were.
    """
    write_checkpoint(state, path, before=lambda: _keep_older(Path(path), keep))


def _keep_older(path: Path, keep: int) -> None:
    head, _, tail = path.name.partition(".")
    older = lambda number: path.with_name(f"{head}-{number}.{tail}")
    number = keep
    while older(number).exists():  # of a run that kept more
        older(number).unlink()
        number += 1
    if not path.exists():
        return
    for number in range(keep - 1, 1, -1):
        if older(number - 1).exists():
            os.replace(older(number - 1), older(number))
    if keep > 1:
        put_copy(path, older(1))


def newest_checkpoint(folder: str | Path) -> Path | None:
    """Path of the newest checkpoint in ``folder`` that can be read; None where there is no checkpoint at all.

    Damaged ones are named on screen and passed over; where none can be read, that is a DPMError.
    """
    folder, last = Path(folder), Path(folder) / LAST
    if _progress(last) is not None:
        return last
    others = [path for pattern in ("last-*.pth.tar", "model.pth.tar-*", BEST) for path in sorted(folder.glob(pattern))]
    found = [(progress, path) for path in others if (progress := _progress(path)) is not None]
    if found:
        return max(found, key=lambda each: each[0])[1]
    if others or last.exists():
        advice = "remove them to start from the beginning, or name another one in train.resume"
        raise DPMError(f"none of the {len(others) + last.exists()} checkpoints in '{folder}' can be read; {advice}")
    return None


def _progress(path: Path) -> tuple[int, int, bool] | None:
    """(finished epochs, batches of the next one, whether evaluated) of a checkpoint; None if it cannot be resumed."""
    if not path.exists():
        return None
    try:
        content = read_checkpoint(path)
        progress = content.get("progress") or {}
        return int(content["epoch"]), int(progress.get("iteration", 0)), bool(progress.get("evaluated", False))
    except (DPMError, AttributeError, KeyError, TypeError, ValueError) as error:
        print(f"=> '{path}' is passed over: {error}")
        return None
