"""The checkpoints of a run's folder: which there are, how many are kept, and which one to go on from.

``model/last.pth.tar`` is the newest, ``last-1.pth.tar`` the one before and so on; ``model.pth.tar-<epoch>`` is
torchreid's, of every evaluated epoch; ``best.pth.tar`` the evaluated one of the highest rank-1.
"""

import os
from pathlib import Path

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import put_copy
from dpm_plugin.weights.files import read_checkpoint, write_checkpoint

LAST = "last.pth.tar"
BEST = "best.pth.tar"


def write_last(state, path, keep=3):
    """Write ``state`` to ``path``, and keep what was there under the names of older ones.

    Args:
        path: ``.../last.pth.tar``.
        keep: how many there are then, this one included: ``last-1.pth.tar`` to ``last-<keep - 1>.pth.tar``.

    Raises:
        DPMError: it cannot be written; all files are then as they were.
    """
    write_checkpoint(state, path, before=lambda: _keep_older(Path(path), keep))


def _older(path, number):
    head, _, tail = path.name.partition(".")
    return path.with_name(f"{head}-{number}.{tail}")


def _keep_older(path, keep):
    number = keep
    while _older(path, number).exists():  # of a run that kept more
        _older(path, number).unlink()
        number += 1
    if not path.exists():
        return
    for number in range(keep - 1, 1, -1):
        if _older(path, number - 1).exists():
            os.replace(_older(path, number - 1), _older(path, number))
    if keep > 1:
        put_copy(path, _older(path, 1))


def newest_checkpoint(folder):
    """Path of the newest checkpoint in ``folder`` that can be read; None where there is no checkpoint at all.

    Damaged ones are named on screen and passed over.

    Raises:
        DPMError: there are some, and none can be read.
    """
    folder = Path(folder)
    last = folder / LAST
    patterns = ("last-*.pth.tar", "model.pth.tar-*", BEST)
    others = [path for pattern in patterns for path in sorted(folder.glob(pattern))]
    if _progress(last) is not None:
        return last
    found = [(progress, path) for path in others if (progress := _progress(path)) is not None]
    if found:
        return max(found, key=lambda each: each[0])[1]
    if others or last.exists():
        raise DPMError(
            f"none of the {len(others) + last.exists()} checkpoints in '{folder}' can be read; remove "
            "them to start from the beginning, or name another one in train.resume"
        )
    return None


def _progress(path):
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
