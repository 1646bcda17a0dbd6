"""Who may write to a run's folder, ``data.save_dir``: one training at a time, and no evaluation where a run lies."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from dpm_plugin.engine.run_checkpoints import FOLDER, all_checkpoints, newest_checkpoint
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import locked
from dpm_plugin.weights.files import read_checkpoint

LOCK = ".training.lock"  # in the run's folder, from the first training on
PATIENCE = 10.0  # seconds that the loader processes of a killed run may take to notice
EVALUATIONS = "evaluations"


def evaluation_folder(folder: str | Path, is_owner: bool = False) -> Path:
    """Where an evaluation writes: ``folder``, or where a run lies there a new ``folder/evaluations/<time>``.

    ``is_owner``: this process may hold the folder's lock (:func:`owned`), which is then no sign of another run.
    """
    folder = Path(folder)
    if (is_owner or not (folder / LOCK).exists()) and not all_checkpoints(folder / FOLDER):
        return folder
    first, number = folder / EVALUATIONS / time.strftime("%Y-%m-%d-%H-%M-%S"), 1
    own = first
    while True:
        try:
            own.mkdir(parents=True)
        except FileExistsError:
            number += 1
            own = first.with_name(f"{first.name}-{number}")
        except OSError as error:
            raise DPMError(f"data.save_dir '{folder}' cannot be written: {error.strerror}") from error
        else:
            print(f"=> '{folder}' holds a run, which stays as it is: this evaluation goes to '{own}'")
            return own


@contextmanager
def owned(folder: str | Path) -> Iterator[None]:
    """Hold ``folder`` for one training; it is made where missing.

    Raises:
        DPMError: another process trains there, or it cannot be written.
    """
    deadline, is_held = time.monotonic() + PATIENCE, False
    with ExitStack() as lock:
        while not is_held:
            try:
                lock.enter_context(locked(Path(folder) / LOCK, wait=False))
                is_held = True
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    advice = "wait for it, or set another data.save_dir"
                    raise DPMError(f"another process trains in '{folder}'; {advice}") from error
                time.sleep(0.2)
            except OSError as error:
                raise DPMError(f"data.save_dir '{folder}' cannot be written: {error.strerror}") from error
        yield


@contextmanager
def save_folder(folder: str | Path, source: str, evaluate: bool, overwrite: bool) -> Iterator[Path]:
    """The folder that a run writes to: ``folder``, held for it alone while it trains, or one for an evaluation.

    Args:
        source: the checkpoint that the run goes on from, "auto" for the newest in ``folder``, or "".
        evaluate, overwrite: whether it only evaluates, and whether it may replace an older run.

    Raises:
        DPMError: another process trains there, or a run lies there that is neither resumed nor to be overwritten.
    """
    folder = Path(folder)
    if evaluate:
        yield evaluation_folder(folder)
        return
    with owned(folder):
        if _starts_afresh(folder, source) and not overwrite:
            refuse_used(folder)
        yield folder


def clear_older(folder: str | Path, source: str, evaluate: bool, overwrite: bool) -> None:
    """Remove the run that is to be overwritten, where one is about to begin; arguments as of :func:`save_folder`."""
    if overwrite and not evaluate and _starts_afresh(Path(folder), source):
        clear(folder)


def _starts_afresh(folder, source):
    """Whether the run goes on from no checkpoint of its own folder."""
    return source != "auto" and not (source and Path(source).resolve().parent == (folder / FOLDER).resolve())


def refuse_used(folder: str | Path) -> None:
    """Raise DPMError where ``folder`` holds the checkpoints of a run, which a fresh one would replace."""
    what, newest = "a run whose checkpoints cannot be read", None
    with suppress(DPMError):
        if (newest := newest_checkpoint(Path(folder) / FOLDER)) is None:
            return
        epochs = read_checkpoint(newest)["epoch"]
        what = f"a run of {epochs} epoch{'' if epochs == 1 else 's'}"
    advice = "train.resume auto goes on with it; or set another data.save_dir, or train.overwrite True"
    raise DPMError(f"'{folder}' holds {what}; {advice}")


def clear(folder: str | Path) -> None:
    """Remove the checkpoints and results of the run in ``folder``, so that nothing of it is taken for a later one's."""
    for path in [Path(folder) / "results.json", *all_checkpoints(Path(folder) / FOLDER)]:
        path.unlink(missing_ok=True)
