"""Writes the benchmark once, in Occluded-Duke's layout, and finds it again."""

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from dpm_plugin.utils.errors import DPMError

from .identity import id_ranges, stream
from .render import camera_of, render
from .scene import camera

try:
    import fcntl
except ImportError:  # not on Windows: there two processes may both draw, and the first to finish wins
    fcntl = None

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
DISTRACTOR_IMAGES = 2
# Below this many images starting processes costs more than it saves.
_WORTH_A_PROCESS = 150


def images(spec):
    """Every image of the data set as (split, identity number, index), in order."""
    ranges = {name: range(first, first + count) for name, (first, count) in id_ranges(spec).items()}
    rows = [("train", pid, i) for pid in ranges["train"] for i in range(spec.train_images)]
    rows += [("query", pid, i) for pid in ranges["test"] for i in range(spec.query_images)]
    rows += [("gallery", pid, i) for pid in ranges["test"] for i in range(spec.gallery_images)]
    rows += [("gallery", pid, i) for pid in ranges["distractor"] for i in range(DISTRACTOR_IMAGES)]
    return rows


def relative_path(spec, split, pid, index):
    """Path below the data set's folder, such as ``query/0001_c2_f0046182.jpg``; the camera counts from 1."""
    number = camera_of(spec, split, pid, index) + 1
    # Unique within an identity: the step of 1000 is larger than the random part, queries come later.
    frame = stream(spec.seed, 40, split, pid, index).randrange(1000) + 1000 * (2 * index + (split == "query"))
    return f"{FOLDERS[split]}/{pid:04d}_c{number}_f{frame:07d}.jpg"


def generate(spec, root, workers=None, verbose=True):
    """Make sure that the data set of ``spec`` lies below ``root`` and return its folder.

    The folder is ``<root>/synthetic_occluded/<digest of the spec>/``; it holds ``bounding_box_train``,
    ``query``, ``bounding_box_test``, ``spec.json`` and ``visibility.json`` (per file the hidden share of the
    person and the kind of occluder). It appears in one step when complete: a process that dies leaves a
    temporary folder that the next one removes, and of several processes one draws while the others wait.

    Args:
        spec: a ``SyntheticSpec``.
        root: the data root; created where missing.
        workers: processes that draw. Default: as many as there are cores. The result does not depend on it.
        verbose: print progress.

    Raises:
        DPMError: ``root`` cannot be written, or the folder was changed after it was written.
    """
    parent = Path(root).expanduser().absolute() / "synthetic_occluded"
    target = parent / spec.digest()
    if target.exists():
        return _verified(target, spec)
    try:
        parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(parent / f".{spec.digest()}.lock") as alone:
            if target.exists():
                return _verified(target, spec)
            if alone:
                for leftover in parent.glob(f".{spec.digest()}-*"):
                    shutil.rmtree(leftover, ignore_errors=True)
            _write_and_rename(spec, target, workers, verbose)
    except OSError as error:
        raise DPMError(
            f"synthetic_occluded cannot be written below '{parent}' ({error}); "
            "point data.root to a folder with room that you may write to"
        ) from error
    return _verified(target, spec)


@contextlib.contextmanager
def _one_at_a_time(path):
    """Hold the lock file ``path``; yields False where the system or the file system has no locks.

    The kernel drops the lock when its process ends, however that happens.
    """
    with open(path, "w") as handle:
        held = False
        if fcntl is not None:
            with contextlib.suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
                held = True
        yield held


def _write_and_rename(spec, target, workers, verbose):
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        folder.chmod(0o755)
        for name in FOLDERS.values():
            (folder / name).mkdir()
        records = _draw_all(spec, folder, workers or os.cpu_count() or 1, verbose)
        _write_json(folder / "visibility.json", dict(sorted(records.items())))
        _write_json(folder / "spec.json", spec.as_dict())
        try:
            folder.rename(target)
        except OSError:
            # Only possible without locks: another process was faster, and drew the same.
            if not target.exists():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_json(path, content):
    path.write_text(json.dumps(content, indent=1) + "\n")


def _verified(target, spec):
    """``target`` if it holds what :func:`generate` wrote."""
    try:
        written = json.loads((target / "spec.json").read_text())
    except (OSError, ValueError):
        written = None
    wanted = dict.fromkeys(FOLDERS.values(), 0)
    for split, _, _ in images(spec):
        wanted[FOLDERS[split]] += 1
    found = {folder: len(list((target / folder).glob("*.jpg"))) for folder in wanted}
    if written != spec.as_dict() or found != wanted or not (target / "visibility.json").is_file():
        raise DPMError(
            f"'{target}' is not as it was written (images: {found}, expected {wanted}); "
            "delete that folder and it will be drawn again"
        )
    return target


def _draw_all(spec, folder, workers, verbose):
    """Draw every image; returns {relative path: {"hidden": share, "occluder": kind}}."""
    rows = images(spec)
    progress = _Progress(len(rows), verbose)
    workers = max(1, min(workers, len(rows) // _WORTH_A_PROCESS))
    if workers == 1:
        return dict(_progressing(_draw(spec, folder, rows), progress))
    # Forked where possible: a spawned process would import torch again, and needs a guarded main module.
    method = "fork" if sys.platform == "linux" else "spawn"
    context = multiprocessing.get_context(method)
    records, shares = {}, []
    try:
        for k in range(workers):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=_worker, args=(spec, folder, rows[k::workers], sender), daemon=True)
            process.start()
            sender.close()
            shares.append((process, receiver))
        waiting = {receiver: process for process, receiver in shares}
        while waiting:
            for receiver in multiprocessing.connection.wait(list(waiting)):
                try:
                    batch = receiver.recv()
                except EOFError:
                    waiting.pop(receiver)
                    continue
                if isinstance(batch, str):
                    raise DPMError(
                        f"synthetic_occluded: a worker failed ({batch}); try again with more room and memory"
                    )
                records.update(batch)
                progress.step(len(batch))
    finally:
        for process, _ in shares:
            process.terminate()
            process.join()
    if len(records) != len(rows):
        raise DPMError("synthetic_occluded: a worker was killed (out of memory?); try again with more memory")
    return records


def _worker(spec, folder, rows, sender):
    """Draw ``rows`` and send the records in batches; ends by itself where the parent is gone."""
    try:
        batch = []
        for record in _draw(spec, folder, rows):
            batch.append(record)
            if len(batch) == 50:
                sender.send(batch)
                batch = []
        sender.send(batch)
    except BrokenPipeError:
        pass
    except Exception as error:  # reported by the parent, whatever it was
        sender.send(f"{type(error).__name__}: {error}")
    finally:
        sender.close()


def _draw(spec, folder, rows):
    for split, pid, index in rows:
        pixels, hidden, kind = render(spec, split, pid, index)
        name = relative_path(spec, split, pid, index)
        save_jpeg(pixels, folder / name, spec, split, pid, index)
        yield name, {"hidden": round(hidden, 4), "occluder": kind}


def save_jpeg(pixels, file, spec, split, pid, index):
    """Save (H, W, 3) pixels to a path or file object at the image's camera's quality, part of its character."""
    quality = camera(spec.seed, spec.cameras, camera_of(spec, split, pid, index)).quality
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)


def _progressing(records, progress):
    for record in records:
        yield record
        progress.step(1)


class _Progress:
    """Prints a line now and then: how many images are drawn and how long the rest will take."""

    def __init__(self, total, verbose):
        self.total, self.verbose, self.done = total, verbose, 0
        self.start = self.last = time.monotonic()
        if verbose:
            print(f"=> Drawing synthetic_occluded: {total} images, once for these settings", flush=True)

    def step(self, count):
        self.done += count
        now = time.monotonic()
        if self.verbose and (now - self.last > 5 or self.done == self.total):
            self.last = now
            left = (now - self.start) / self.done * (self.total - self.done)
            print(f"   {self.done}/{self.total} images, {left:.0f} s left", flush=True)
