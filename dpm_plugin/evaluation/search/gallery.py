"""Gallery features that are read chunk by chunk: in memory, on a GPU, or memory-mapped from a file."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dpm_plugin.method.masked_cosine import unit_rows
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import replacing

STORED = ("float16", "float32")  # what a file holds; NumPy has no bfloat16
ROWS = 1024  # in one step of writing
LENGTH_ERROR = 0.01  # of a stored unit row; float16 and bfloat16 round by less


class Gallery:
    """Features to search, as they are.

    Unit rows, as :meth:`save` writes them, spare every search their normalisation (a seventh of the time for 100
    queries). In float16 or bfloat16 they take half the memory, and a distance moves by up to 1e-3 or 1e-2.

    Args:
        rows: (G, D) float16, bfloat16, float32 or float64 tensor on any device, or a NumPy array of float16, 32
            or 64, memory-mapped (``np.load(path, mmap_mode="r")``) where it is larger than the memory. Not copied.
        unit: the rows have length 1 (or 0) already, up to the rounding of their type. Default: False.

    Raises:
        DPMError: not two-dimensional, no row, or a type that is not listed.
    """

    def __init__(self, rows: Tensor | np.ndarray, *, unit: bool = False) -> None:
        self.rows, self.unit = _as_tensor(rows), unit
        if self.rows.dim() != 2 or 0 in self.rows.shape or not self.rows.is_floating_point():
            got = f"{tuple(self.rows.shape)} of {self.rows.dtype}"
            raise DPMError(f"a gallery is a (G, D) float tensor or array with at least one row, got {got}")

    @classmethod
    def of(cls, rows: "AnyGallery") -> "Gallery":
        """``rows`` themselves where they are a gallery, else ``Gallery(rows)``."""
        return rows if isinstance(rows, Gallery) else cls(rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def dim(self) -> int:
        """D, the width of the rows."""
        return self.rows.shape[1]

    def save(self, path: str | Path, dtype: str = "float32") -> None:
        """Write unit rows, "float32" (default) or "float16", to a NumPy ``.npy`` file, in memory for 1024 rows.

        Raises:
            DPMError: another dtype, values that are not finite (says where), or a file that cannot be written.
        """
        if dtype not in STORED:
            raise DPMError(f"a gallery is stored as {' or '.join(STORED)}, got {dtype!r}")
        header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": tuple(self.rows.shape)}
        try:
            with replacing(path) as file:
                np.lib.format.write_array_header_1_0(file, header)
                for _, unit in self.chunks(ROWS):
                    file.write(unit.cpu().numpy().astype(dtype).data)
        except OSError as error:
            raise DPMError(f"gallery '{path}' cannot be written: {error.strerror}") from error

    @classmethod
    def open(cls, path: str | Path) -> "Gallery":
        """Memory-map a file that :meth:`save` wrote; DPMError where it is missing or no such file."""
        try:
            gallery = cls(np.load(path, mmap_mode="r", allow_pickle=False), unit=True)
        except (OSError, ValueError, EOFError) as error:
            raise DPMError(f"gallery '{path}' cannot be read: {error}") from error
        lengths = gallery.rows[:ROWS].float().norm(dim=1)
        if not ((lengths - 1).abs().minimum(lengths) < LENGTH_ERROR).all():
            advice = "search features as Gallery(np.load(path, mmap_mode='r'))"
            raise DPMError(f"the rows of '{path}' are not of length 1: it was not written by Gallery.save; {advice}")
        return gallery

    def chunks(self, size: int, device: torch.device | str | None = None) -> Iterator[tuple[int, Tensor]]:
        """Yield (number of the first row, :meth:`unit_rows` (c, D) from there) over the whole gallery."""
        for start in range(0, len(self), size):
            yield start, self.unit_rows(slice(start, start + size), device)

    def unit_rows(self, which: slice | Tensor, device: torch.device | str | None = None) -> Tensor:
        """Float32 rows of length 1 (a zero row stays zero) on ``device`` (default: where they are stored).

        ``which`` is a slice, or a (c,) int64 tensor of row numbers. DPMError names the first row that is not finite.
        """
        rows = self.rows
        # index_select takes half the time of rows[which].
        unit = rows[which] if isinstance(which, slice) else rows.index_select(0, which.to(rows.device))
        unit = unit.to(device or rows.device)
        if not self.unit:
            unit = unit_rows(unit)
        elif unit.dtype != torch.float32:  # rounding made the rows longer or shorter
            unit = F.normalize(unit.float())
        finite = unit.sum(dim=1).isfinite()  # (c,): NaN and infinity survive a sum, and no unit row's overflows
        if not finite.all():
            bad = int((~finite).nonzero()[0])
            number = which.start + bad if isinstance(which, slice) else int(which[bad])
            raise DPMError(f"gallery row {number} holds NaN or infinity; the model has diverged or the file is damaged")
        return unit


AnyGallery = Gallery | Tensor | np.ndarray


def _as_tensor(rows: Tensor | np.ndarray) -> Tensor:
    if isinstance(rows, torch.Tensor):
        return rows.detach()
    if not isinstance(rows, np.ndarray):
        raise DPMError(f"a gallery is a torch tensor or NumPy array, got {type(rows).__name__}")
    try:
        with warnings.catch_warnings():  # a gallery is never written to
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            return torch.from_numpy(rows)
    except (TypeError, ValueError) as error:
        raise DPMError(f"a gallery of NumPy type {rows.dtype} cannot be read: {error}") from error
