"""The weights that DPM's authors published, fetched by name (``zoo:occluded_duke``) and kept in a cache."""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import torch

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import write_file
from dpm_plugin.utils.text import first_line, unknown
from dpm_plugin.weights.files import read_state
from dpm_plugin.weights.key_names import recognise

CACHE_VARIABLE = "DPM_CACHE"
PREFIX = "zoo:"

# What configs/released/ says of the model and its images, without the training.
_SETTINGS = {
    "model.name": "dpm_vit",
    "vit.camera_weight": 3.0,
    "vit.mask_pool": "max",
    "vit.prototype_init": "xavier",
    "loss.name": "dpm",
    "train.amp": "auto",
    "data.height": 256,
    "data.width": 128,
    "data.norm_mean": [0.5, 0.5, 0.5],
    "data.norm_std": [0.5, 0.5, 0.5],
}


class Published(NamedTuple):
    """One file: its id on Google Drive, and the settings that its model was trained with."""

    drive_id: str
    settings: dict[str, Any]


#: Name -> Published: the released implementation's ViT-B/16, trained on Occluded-Duke and on Market-1501.
ZOO = {
    "occluded_duke": Published("12rTyilUnwOy-lsaM65Y_ce_6AmOivgm1", {**_SETTINGS, "vit.stride": 11}),
    "occluded_reid": Published("1J86byKnQocDK9XZeQuMvg-qvS_gN_zAd", {**_SETTINGS, "vit.stride": 12}),
}


def published(path: str | Path) -> Published | None:
    """The entry of ``ZOO`` that ``zoo:NAME`` means, DPMError where there is none; None for every other path."""
    prefix, found, name = os.fspath(path).partition(PREFIX)
    if prefix or not found:
        return None
    if name not in ZOO:
        raise unknown("published weights", PREFIX + name, [PREFIX + other for other in ZOO])
    return ZOO[name]


def local_file(path: str | Path) -> str | Path:
    """``path`` as it is, or for ``zoo:NAME`` the file in the cache, downloaded where it is not there yet.

    The cache is the folder named by the environment variable DPM_CACHE, else ``dpm_torchreid`` in torch's hub folder.
    A file takes its name when it is whole and has been read, so an interrupted download leaves nothing. Its SHA-256 is
    kept beside it, and a line says where the file, or one fetched later, has another.

    Raises:
        DPMError: unknown name; or no download, with the page to take the file from by hand and the place to put it.
    """
    entry = published(path)
    if entry is None:
        return path
    folder = os.environ.get(CACHE_VARIABLE) or os.path.join(torch.hub.get_dir(), "dpm_torchreid")
    file = Path(folder, f"{os.fspath(path).removeprefix(PREFIX)}.pth").expanduser()
    if file.is_file():
        _compare(file)
        return file
    print(f"=> fetching '{path}' to '{file}'")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=file.parent, prefix=".download-") as beside:  # os.replace: same disk
            arrived = Path(beside, file.name)
            download_from_drive(entry.drive_id, arrived)
            naming = recognise(read_state(arrived))
            if naming != "released":
                raise DPMError(f"what came is a {naming} checkpoint, not one of DPM's released implementation")
            os.replace(arrived, file)
        _compare(file, first=True)
    except Exception as error:  # network, Google's refusals, file system, a page instead of the file
        page = f"https://drive.google.com/file/d/{entry.drive_id}/view"
        raise DPMError(
            f"'{path}' can't be downloaded ({first_line(error)[:200]}); download {page} by hand and put it "
            f"at '{file}', or name a folder that has {file.name} by {CACHE_VARIABLE}"
        ) from error
    return file


def check_digest(path: str | Path, expected: str) -> None:
    """Raise DPMError where the file at ``path`` has another SHA-256 than ``expected``, in hexadecimal digits."""
    if (found := _sha256(path)) != expected.strip().lower():
        raise DPMError(f"'{path}' has the SHA-256 {found}, not {expected} (model.load_sha256); fetch the right file")


def _sha256(path: str | Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    except OSError as error:
        raise DPMError(f"'{path}' cannot be read: {error.strerror or error}") from error
    return digest.hexdigest()


def _compare(file: Path, first: bool = False) -> None:
    """Say where ``file`` is not what was fetched first; ``first``: there may be no record of that yet."""
    record = file.with_name(f"{file.name}.sha256")
    if not record.is_file() and not first:  # placed by hand
        return
    digest = _sha256(file)
    if not record.is_file():
        write_file(record, f"{digest}  {file.name}\n")  # as sha256sum -c reads it
    elif (known := record.read_text(encoding="utf-8", errors="replace")[:64]) != digest:
        print(f"=> '{file}' has changed: SHA-256 {digest}, at the first fetch {known}; to accept it delete '{record}'")


def download_from_drive(drive_id: str, path: Path) -> None:
    """The one call of gdown; raises where it gets nothing."""
    import gdown  # loads only where a download is needed

    if gdown.download(id=drive_id, output=str(path)) is None:  # so older versions report a failure
        raise OSError("Google Drive refused it")
