"""The synthetic benchmark's queries, drawn again with another occluder: same person, place and light."""

import contextlib
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dpm_plugin.data.synthetic.generate import images, save_jpeg
from dpm_plugin.data.synthetic.render import camera_of, render
from dpm_plugin.utils.files import replacing

CACHE = "redrawn_queries"


class Redrawn(NamedTuple):
    """n queries: JPEG files in memory, identities, 0-based cameras, hidden shares (0 to 1), occluders."""

    jpegs: list
    pids: np.ndarray
    camids: np.ndarray
    hidden: np.ndarray
    kinds: np.ndarray


def query_rows(spec):
    """[(identity number, index), ...] of every query of the benchmark."""
    return [(pid, index) for split, pid, index in images(spec) if split == "query"]


def redrawn_queries(spec, root, rows, occluder, drawn=lambda: None):
    """Draw queries with ``occluder``, or read them where they were drawn before.

    Kept below ``<root>/synthetic_occluded/redrawn_queries/<digest of the spec>/``, one file a set, written
    whole or not at all; a damaged file is drawn again, and a root that cannot be written only costs time.

    Args:
        spec: a ``SyntheticSpec``.
        root: the data root.
        rows: [(identity number, index), ...], see :func:`query_rows`.
        occluder: as for :func:`dpm_plugin.data.synthetic.render`.
        drawn: called after each picture that was drawn or read.

    Returns:
        Redrawn, in the order of ``rows``.
    """
    folder = Path(root).expanduser() / "synthetic_occluded" / CACHE / spec.digest()
    path = folder / f"{_name(occluder)}-{len(rows)}.npz"
    content = _read(path, rows)
    if content is None:
        content = _draw(spec, rows, occluder, drawn)
        with contextlib.suppress(OSError):
            _write(path, content)
    else:
        for _ in rows:
            drawn()
    pids = np.array([pid for pid, _ in rows])
    camids = np.array([camera_of(spec, "query", pid, index) for pid, index in rows])
    ends = np.cumsum(content["lengths"])
    data = content["bytes"].tobytes()
    jpegs = [data[end - length : end] for end, length in zip(ends, content["lengths"])]
    return Redrawn(jpegs, pids, camids, content["hidden"], content["kinds"])


def _name(occluder):
    if occluder is None:
        return "none"
    if isinstance(occluder, str):
        return occluder.replace(" ", "_")
    return f"{occluder.kind or 'any'}-{occluder.low:.4f}-{occluder.high:.4f}"


def _draw(spec, rows, occluder, drawn):
    files, hidden, kinds = [], [], []
    for pid, index in rows:
        pixels, share, kind = render(spec, "query", pid, index, occluder=occluder)
        file = io.BytesIO()
        save_jpeg(pixels, file, spec, "query", pid, index)
        files.append(file.getvalue())
        hidden.append(share)
        kinds.append(kind)
        drawn()
    return {
        "rows": np.array(rows),
        "lengths": np.array([len(file) for file in files]),
        "bytes": np.frombuffer(b"".join(files), np.uint8),
        "hidden": np.array(hidden),
        "kinds": np.array(kinds),
    }


def _read(path, rows):
    """What :func:`_write` wrote for these rows, or None."""
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in ("rows", "lengths", "bytes", "hidden", "kinds")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return content if np.array_equal(content["rows"], rows) else None


def _write(path, content):
    with replacing(path) as file:
        np.savez(file, **content)
