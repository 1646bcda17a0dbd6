"""Checkpoint files: read without running code that they hold, and written whole or not at all."""

import os
import tarfile
import warnings
import zipfile
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import replacing
from dpm_plugin.utils.text import first_line, shown

# torchreid writes rank1 as a numpy scalar. These are the only globals beyond torch's own that its files need, and none
# of them can run code; numpy's module was named otherwise before numpy 2.
_SCALAR: Any = np.float64(0).__reduce__()[0]
_NUMPY_SCALARS: list[Any] = [np.dtype, type(np.dtype(np.float64)), type(np.dtype(np.float32))]
_NUMPY_SCALARS += [(_SCALAR, f"{module}.multiarray.scalar") for module in ("numpy.core", "numpy._core")]
# What a state dict lies under, the first that is there: self-supervised training saves a teacher beside its student.
_WRAPPERS = ("state_dict", "model", "module", "teacher", "student")
MOST_WRAPPERS = 4  # dicts around a state dict, such as {"model": {"state_dict": ...}}


def read_checkpoint(path: str | Path) -> Any:
    """The content of a safetensors file or of a torch file, with ``weights_only=True``, on the CPU.

    Raises:
        DPMError: missing, truncated, no checkpoint, or holding objects that could run code.
    """
    path = Path(path).expanduser()
    if not os.path.isfile(path):  # False for names that no file can have, too
        raise DPMError(f"checkpoint '{shown(path)}' {'is a folder' if path.is_dir() else 'does not exist'}")
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        if start[8:] == b"{":  # safetensors: the length of a header in JSON, then the header
            return safetensors.torch.load_file(path)
        _check_records(path)
        with torch.serialization.safe_globals([*_NUMPY_SCALARS, Namespace]):  # DINO saves its command line
            return _load_torch_file(path)
    except Exception as error:  # zip, pickle, header and allow-list errors have no common class
        # torch's own message advises weights_only=False, which would run whatever the file holds
        reason = first_line(str(error).partition("WeightsUnpickler error:")[2] or error)
        raise DPMError(
            f"checkpoint '{path}' cannot be read as plain weights ({reason[:160]}); it is damaged, no checkpoint, "
            "or holds objects that would have to be executed"
        ) from error


def _check_records(path: Path) -> None:
    """Raise ValueError for a file that torch would load, but torch.save never wrote, or not like this.

    A packed record can unpack to any size, many names can mean one record, and torch itself looks at no checksum.
    """
    if tarfile.is_tarfile(path):  # torch would extract it; only torch before 0.2 wrote such files
        raise ValueError("it is a tar archive")
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        if any(record.filename.endswith("/constants.pkl") for record in records):
            how = "torch.save(torch.jit.load(FILE, 'cpu').state_dict(), NEW)"
            raise ValueError(f"it is a TorchScript program, as OpenAI's CLIP is; save its tensors once by {how}")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise ValueError("its records are packed, which torch.save never does")
        if len(set(archive.namelist())) < len(records) or min((record.header_offset for record in records), default=0):
            raise ValueError("it holds records of one name, or more than one archive")  # torch would read others
        if sum(record.file_size for record in records) > path.stat().st_size:
            raise ValueError("its records are together larger than the file")
        if (damaged := archive.testzip()) is not None:
            raise ValueError(f"the checksum of its record '{damaged}' is wrong")


def _load_torch_file(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnicodeDecodeError:  # written by Python 2
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="pickle_load_args only works")  # this one does work
            return torch.load(path, map_location="cpu", weights_only=True, encoding="latin1")


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint as a flat dict; DPMError: see :func:`read_checkpoint` and :func:`state_of`."""
    return state_of(read_checkpoint(path), path)


def state_of(content: Any, path: str | Path) -> dict[str, torch.Tensor]:
    """The tensors in ``content``, read from ``path``: wrappers and ``module.`` prefixes removed.

    Raises:
        DPMError: see :func:`plain_tensors`.
    """
    state = content
    for _ in range(MOST_WRAPPERS):  # a pickle can hold itself
        names = _WRAPPERS if isinstance(state, dict) else ()
        state = next((state[name] for name in names if isinstance(state.get(name), dict)), state)
    return plain_tensors(state, path)


def plain_tensors(state: Any, path: str | Path) -> dict[str, torch.Tensor]:
    """``state``, read from ``path``, as a flat dict of ordinary tensors, ``module.`` prefixes removed.

    Raises:
        DPMError: it is no dict of tensors, two names become one, or a tensor is not dense or larger than the file.
    """
    pairs = state.items() if isinstance(state, dict) else ()
    if not pairs or not all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in pairs):
        raise DPMError(f"'{path}' holds no state dict of tensors")
    tensors = {key.removeprefix("module."): value for key, value in pairs}
    if len(tensors) < len(state):
        raise DPMError(f"'{path}' names a tensor twice, with and without 'module.'; which one counts is not known")
    for key, value in tensors.items():
        what = f"tensor '{key}' in '{path}'"
        if value.layout != torch.strided or value.is_quantized or value.is_meta:
            raise DPMError(f"{what} is sparse, quantised or empty; save it as a plain one")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            why = f"declares {value.numel():,} numbers, more than the file holds for it"
            raise DPMError(f"{what} {why}; the file is damaged, or the tensor was expanded: save a clone")
    return tensors


def write_checkpoint(state: Any, path: str | Path, before: Callable[[], None] | None = None) -> None:
    """Write ``state`` to ``path``: beside it first, read back, then renamed, so that only whole files have its name.

    Args:
        before: called when all is written and right before ``path`` is replaced.

    Raises:
        DPMError: it cannot be written or read back; the old file is then as it was.
    """

    def check(temporary: Path) -> None:
        read_checkpoint(temporary)
        if before is not None:
            before()

    with _written(path), replacing(path, check) as file:
        torch.save(state, file)


def write_state(state: Mapping[str, torch.Tensor], path: str | Path) -> None:
    """Write a flat dict of tensors as :func:`write_checkpoint` does; as safetensors where ``path`` ends so."""
    if Path(path).suffix != ".safetensors":
        write_checkpoint(state, path)
        return
    own = {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}
    with _written(path), replacing(path, read_checkpoint) as file:
        file.write(safetensors.torch.save(own, metadata={"format": "pt"}))  # which transformers and timm ask for


@contextmanager
def _written(path: str | Path) -> Iterator[None]:
    """An error in writing ``path`` as a DPMError with its cause."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, (OSError, DPMError)):  # torch.save wraps what a file raises
            cause = cause.__cause__ or cause.__context__
        if cause is None:
            raise
        why = getattr(cause, "strerror", None) or cause
        raise DPMError(
            f"checkpoint '{shown(path)}' cannot be written: {why}; what was there before is intact"
        ) from error
