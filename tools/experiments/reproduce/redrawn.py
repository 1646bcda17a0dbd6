"""The synthetic benchmark's queries, drawn again with another occluder: same person, place and light."""

import contextlib
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dpm_plugin.data.synthetic.generate import images, save_jpeg
from dpm_plugin.data.synthetic.render import Occluder, camera_of, render
from dpm_plugin.data.synthetic.spec import SyntheticSpec
from dpm_plugin.utils.files import replacing

CACHE = "redrawn_queries"
ARRAYS = ("rows", "lengths", "bytes", "hidden", "kinds")


class Redrawn(NamedTuple):
    """n queries: JPEG files in memory, identities, 0-based cameras, hidden shares (0 to 1), occluders."""

    jpegs: list[bytes]
    pids: np.ndarray
    camids: np.ndarray
    hidden: np.ndarray
    kinds: np.ndarray


def query_rows(spec: SyntheticSpec) -> list[tuple[int, int]]:
    """[(identity number, index), ...] of every query of the benchmark."""
    return [(pid, index) for split, pid, index in images(spec) if split == "query"]


def redrawn_queries(
    spec: SyntheticSpec, root: str | Path, rows: list[tuple[int, int]], occluder: Occluder | str | None
) -> Redrawn:
    """Draw queries with ``occluder``, or read them where they were drawn before.

    Kept below ``<root>/synthetic_occluded/redrawn_queries/<digest of the spec>/``, one file a set, written
    whole or not at all; a damaged file is drawn again, and a root that cannot be written only costs time.

    Args:
        root: the data root.
        rows: see :func:`query_rows`; the result has their order.
        occluder: as for :func:`dpm_plugin.data.synthetic.render`.
    """
    folder = Path(root).expanduser() / "synthetic_occluded" / CACHE / spec.digest()
    path = folder / f"{_name(occluder)}-{len(rows)}.npz"
    content = _read(path, rows)
    if content is None:
        content = _draw(spec, rows, occluder)
        with contextlib.suppress(OSError), replacing(path) as file:
            np.savez(file, **content)
    data = content["bytes"].tobytes()
    ends = np.cumsum(content["lengths"])
    return Redrawn(
        [data[end - length : end] for end, length in zip(ends, content["lengths"])],
        np.array([pid for pid, _ in rows]),
        np.array([camera_of(spec, "query", pid, index) for pid, index in rows]),
        content["hidden"],
        content["kinds"],
    )


def _name(occluder: Occluder | str | None) -> str:
    if occluder is None:
        return "none"
    if isinstance(occluder, str):
        return occluder.replace(" ", "_")
    return f"{occluder.kind or 'any'}-{occluder.low:.4f}-{occluder.high:.4f}"


def _draw(spec: SyntheticSpec, rows: list[tuple[int, int]], occluder: Occluder | str | None) -> dict[str, np.ndarray]:
    files, hidden, kinds = [], [], []
    for pid, index in rows:
        drawn = render(spec, "query", pid, index, occluder=occluder)
        file = io.BytesIO()
        save_jpeg(drawn.pixels, file, spec, "query", pid, index)
        files.append(file.getvalue())
        hidden.append(drawn.hidden)
        kinds.append(drawn.occluder)
    lengths = [len(file) for file in files]
    arrays = (rows, lengths, np.frombuffer(b"".join(files), np.uint8), hidden, kinds)
    return {name: np.array(values) for name, values in zip(ARRAYS, arrays)}


def _read(path: Path, rows: list[tuple[int, int]]) -> dict[str, np.ndarray] | None:
    """What was kept for these rows, or None."""
    try:
        with np.load(path, allow_pickle=False) as file:
            content = {name: file[name] for name in ARRAYS}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return content if np.array_equal(content["rows"], rows) else None
