"""Writes the benchmark once, in Occluded-Duke's folder structure, and finds it again."""

import contextlib
import functools
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import locked, read_json
from dpm_plugin.utils.progress import Progress
from dpm_plugin.utils.text import first_line, short

from .identity import id_ranges, stream
from .render import camera_of, render
from .scene import camera
from .spec import SyntheticSpec

FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
DISTRACTOR_IMAGES = 2
_WORTH_A_PROCESS = 150  # images; below, starting a process costs more than it saves


def images(spec: SyntheticSpec) -> list[tuple[str, int, int]]:
    """Every image of the data set as (split, identity number, index), in order."""
    pids = id_ranges(spec)
    parts = (
        ("train", pids["train"], spec.train_images),
        ("query", pids["test"], spec.query_images),
        ("gallery", pids["test"], spec.gallery_images),
        ("gallery", pids["distractor"], DISTRACTOR_IMAGES),
    )
    return [(split, pid, index) for split, numbers, count in parts for pid in numbers for index in range(count)]


def relative_path(spec: SyntheticSpec, split: str, pid: int, index: int) -> str:
    """Path below the data set's folder, such as ``query/0001_c2_f0046182.jpg``; the camera counts from 1."""
    number = camera_of(spec, split, pid, index) + 1
    # Unique within an identity: the step of 1000 is larger than the random part, queries come later.
    frame = stream(spec.seed, 40, split, pid, index).randrange(1000) + 1000 * (2 * index + (split == "query"))
    return f"{FOLDERS[split]}/{pid:04d}_c{number}_f{frame:07d}.jpg"


def generate(spec: SyntheticSpec, root: str | Path, workers: int | None = None, verbose: bool = True) -> Path:
    """Make sure that the data set of ``spec`` lies below ``root`` and return its folder.

    ``<root>/synthetic_occluded/<digest of the spec>/`` holds the folders of images, ``spec.json`` and
    ``visibility.json``: per file the hidden share of the person, also by bands of the image's height
    (:class:`~dpm_plugin.data.synthetic.render.Drawn`), and the kind of occluder. It appears in one step
    when complete: a process that dies leaves a temporary folder that the next one removes, and of several
    processes one draws while the others wait.

    Args:
        root: the data root; created where missing.
        workers: processes that draw. Default: as many as there are cores. The result does not depend on it.

    Raises:
        DPMError: ``root`` cannot be written, or the folder was changed after it was written.
    """
    parent = Path(root).expanduser().absolute() / "synthetic_occluded"
    target = parent / spec.digest()
    try:
        if not target.exists():
            with locked(parent / f".{target.name}.lock") as alone:
                for leftover in parent.glob(f".{target.name}-*") if alone else ():
                    shutil.rmtree(leftover, ignore_errors=True)
                if not target.exists():
                    _write_and_rename(spec, target, workers, verbose)
    except OSError as error:
        what = f"synthetic_occluded cannot be written below '{parent}' ({error})"
        raise DPMError(f"{what}; point data.root to a folder with room that you may write to") from error
    try:
        written = read_json(target / "spec.json")
    except (OSError, ValueError):
        written = None
    splits = [split for split, _, _ in images(spec)]
    wanted = {folder: splits.count(split) for split, folder in FOLDERS.items()}
    found = {folder: len(list((target / folder).glob("*.jpg"))) for folder in wanted}
    if written != spec.as_dict() or found != wanted or not (target / "visibility.json").is_file():
        what = f"'{target}' is not as it was written (images: {found}, expected {wanted})"
        raise DPMError(f"{what}; delete that folder and it will be drawn again")
    return target


def read_visibility(folder: Path) -> dict[str, dict]:
    """What ``visibility.json`` of a folder that :func:`generate` returned says, see there.

    Raises:
        DPMError: it cannot be read, or holds something else.
    """
    path = folder / "visibility.json"
    try:
        records = read_json(path)
        for name, record in records.items():
            if not (0 <= float(record["hidden"]) <= 1 and isinstance(record["occluder"], str)):
                raise ValueError(f"it says {short(record)} of {short(name)}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        what = f"'{path}' is not as it was written ({type(error).__name__}: {first_line(error)})"
        raise DPMError(f"{what}; delete its folder and it will be drawn again") from error
    return records


def _write_and_rename(spec, target, workers, verbose):
    rows, records = images(spec), {}
    show = functools.partial(print, flush=True) if verbose else lambda text: None
    show(f"=> Drawing synthetic_occluded: {len(rows)} images, once for these settings")
    progress = Progress(len(rows), "images", lambda text: show(f"   drawn: {text}"))
    workers = max(1, min(workers or os.cpu_count() or 1, len(rows) // _WORTH_A_PROCESS))
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        folder.chmod(0o755)
        for name in FOLDERS.values():
            (folder / name).mkdir()
        drawing = _draw(spec, folder, rows) if workers == 1 else _draw_in_processes(spec, folder, rows, workers)
        with contextlib.closing(drawing):
            for name, record in drawing:
                records[name] = record
                progress.at(len(records))
        if len(records) != len(rows):
            raise DPMError("synthetic_occluded: a worker was killed (out of memory?); try again with more memory")
        lines = (f" {json.dumps(name)}: {json.dumps(record)}" for name, record in sorted(records.items()))
        (folder / "visibility.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")  # a line an image
        (folder / "spec.json").write_text(json.dumps(spec.as_dict(), indent=1) + "\n")
        try:
            folder.rename(target)
        except OSError:
            # Only possible without locks: another process was faster, and drew the same.
            if not target.exists():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _draw(spec, folder, rows):
    """Draw ``rows``; yields (relative path, all that :class:`Drawn` says beside the pixels) of each."""
    for row in rows:
        drawn = render(spec, *row)
        name = relative_path(spec, *row)
        save_jpeg(drawn.pixels, folder / name, spec, *row)
        bands = {side: [round(share, 4) for share in getattr(drawn, side)] for side in ("person_bands", "hidden_bands")}
        yield name, {"hidden": round(drawn.hidden, 4), "occluder": drawn.occluder, **bands}


def _draw_in_processes(spec, folder, rows, workers):
    # Forked where possible: a spawned process would import torch again, and needs a guarded main module.
    # Not a pool: its processes would outlive this one if it is killed, and hold the lock.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    processes, receivers = [], []
    try:
        for k in range(workers):
            receiver, sender = context.Pipe(duplex=False)
            receivers.append(receiver)
            task = (spec, folder, rows[k::workers], sender)
            processes.append(context.Process(target=_worker, args=task, daemon=True))
            processes[-1].start()
            sender.close()
        while receivers:
            for receiver in multiprocessing.connection.wait(receivers):
                try:
                    drawn = receiver.recv()
                except EOFError:
                    receivers.remove(receiver)
                    continue
                if isinstance(drawn, str):
                    what = f"synthetic_occluded: a worker failed ({drawn})"
                    raise DPMError(f"{what}; try again with more room and memory")
                yield drawn
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _worker(spec, folder, rows, sender):
    with sender, contextlib.suppress(BrokenPipeError):  # where the parent is gone
        try:
            for drawn in _draw(spec, folder, rows):
                sender.send(drawn)
        except Exception as error:  # reported by the parent, whatever it was
            sender.send(f"{type(error).__name__}: {error}")


def save_jpeg(
    pixels: np.ndarray, file: str | Path | BinaryIO, spec: SyntheticSpec, split: str, pid: int, index: int
) -> None:
    """Save (H, W, 3) pixels to a path or file object at the image's camera's quality, part of its character."""
    quality = camera(spec.seed, spec.cameras, camera_of(spec, split, pid, index)).quality
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
