"""The checkpoints of a run: what they hold, which there are in its folder, and which one to go on from.

``model/last.pth.tar`` is the newest, ``last-1.pth.tar`` the one before and so on: these hold all that resuming needs.
``model.pth.tar-<epoch>``, torchreid's name, are the weights of every evaluated epoch, and ``best.pth.tar`` those of the
highest rank-1, of equal ones of the highest mAP, of equal ones again the first.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dpm_plugin.engine.run_record import check_same_run
from dpm_plugin.engine.training_state import take_up
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import put_copy
from dpm_plugin.utils.text import first_line
from dpm_plugin.weights.files import plain_tensors, read_checkpoint, write_checkpoint

FOLDER = "model"  # in the run's folder: torchreid's name of the engine's one model
LAST = "last.pth.tar"
BEST = "best.pth.tar"


def restore(
    path: str | Path,
    model: nn.Module,
    optimizer: Any = None,
    scheduler: Any = None,
    scaler: Any = None,
    record: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Put a checkpoint's weights and training state into the parts of a run; returns the checkpoint's content.

    Random generators and the position within an epoch are left alone; an engine's ``resume`` restores these too.

    Args:
        path: a file written by this package or by torchreid.
        optimizer, scheduler, scaler: each takes up its state where the file has one. Default: the run has none.
        record: of the run that trains on, see :func:`~dpm_plugin.engine.run_record.check_same_run`. Default: None, the
            weights are only evaluated, and need no training state.

    Raises:
        DPMError: unreadable, or of another model or run; names what differs.
    """
    checkpoint = read_checkpoint(path)
    needed = {"state_dict", "epoch"} | ({"optimizer"} if record is not None and optimizer is not None else set())
    if not isinstance(checkpoint, dict) or needed - set(checkpoint) or not _is_count(checkpoint["epoch"]):
        raise DPMError(f"'{path}' holds weights but no training state, so it can't be resumed; use model.load_weights")
    if record is not None:
        check_same_run(checkpoint, record, f"checkpoint '{path}'")
    state = plain_tensors(checkpoint["state_dict"], path)
    own, theirs = ({(key, tensor.shape) for key, tensor in tensors.items()} for tensors in (model.state_dict(), state))
    differing = sorted({key for key, _ in own ^ theirs})
    if differing:
        found = f"{len(differing)} tensors differ, the first is '{differing[0]}'"
        advice = "resume with the same model, classes, cameras and image size, or use model.load_weights"
        raise DPMError(f"checkpoint '{path}' is of another model: {found}; {advice}")
    model.load_state_dict(state)
    for name, part in (("optimizer", optimizer), ("scheduler", scheduler), ("scaler", scaler)):
        given = checkpoint.get(name)
        if part is None or given is None or (isinstance(given, dict) and not given):
            continue
        try:
            take_up(part, given, path)
        except Exception as error:  # torch's parts trust what they are given
            raise DPMError(
                f"the {name} state in '{path}' does not fit this run's {name}: {first_line(error)}"
            ) from error
    return checkpoint


def _is_count(epoch: Any) -> bool:
    return isinstance(epoch, int) and not isinstance(epoch, bool) and epoch >= 0


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


def keep_newest(folder: Path, keep: int) -> None:
    """Remove all files ``model.pth.tar-<epoch>`` of ``folder`` but the ``keep`` written last; 0 keeps all."""
    found = folder.glob("model.pth.tar-[0-9]*")
    for path in sorted(found, key=lambda path: path.stat().st_mtime_ns)[:-keep] if keep else ():
        path.unlink()


def disk_needed(model: nn.Module, optimizer: torch.optim.Optimizer, checkpoints: int, epochs: int) -> int:
    """About the bytes of so many checkpoints, and of the weights of so many evaluated epochs."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
    has = optimizer.defaults.get  # of the tensors that an optimizer keeps for each parameter
    moments = 2 * bool(has("betas")) + bool(has("amsgrad")) + bool(has("momentum")) + bool(has("alpha"))
    return weights * (epochs + checkpoints * (1 + moments))


def newest_checkpoint(folder: str | Path) -> Path | None:
    """Path of the newest checkpoint in ``folder`` that can be read; None where there is no checkpoint at all.

    Damaged ones are named on screen and passed over; where none can be read, that is a DPMError.
    """
    folder, last = Path(folder), Path(folder) / LAST
    if _progress(last) is not None:
        return last
    everything = all_checkpoints(folder)
    found = [(progress, path) for path in everything if path != last and (progress := _progress(path)) is not None]
    if found:
        return max(found, key=lambda each: each[0])[1]
    if everything:
        advice = "remove them to start from the beginning, or name another one in train.resume"
        raise DPMError(f"none of the {len(everything)} checkpoints in '{folder}' can be resumed; {advice}")
    return None


def all_checkpoints(folder: str | Path) -> list[Path]:
    """Every checkpoint in ``folder``, a run's ``model``, readable or not."""
    patterns = (LAST, "last-[0-9]*.pth.tar", "model.pth.tar-[0-9]*", BEST)
    return [path for pattern in patterns for path in sorted(Path(folder).glob(pattern))]


def _progress(path: Path) -> tuple[int, int, bool] | None:
    """(finished epochs, batches of the next one, whether evaluated) of a checkpoint; None if it cannot be resumed."""
    if not path.exists():
        return None
    try:
        content = read_checkpoint(path)
        if "optimizer" not in content:  # the weights of an evaluated epoch
            return None
        progress = content.get("progress") or {}
        return int(content["epoch"]), int(progress.get("iteration", 0)), bool(progress.get("evaluated", False))
    except (DPMError, AttributeError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        print(f"=> '{path}' is passed over: {error}")
        return None
