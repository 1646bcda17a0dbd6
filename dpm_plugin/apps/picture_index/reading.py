"""Pictures of any format that Pillow reads, the right way up."""

import os
from pathlib import Path

from PIL import ExifTags, Image, ImageOps

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.images import check_opened, to_rgb
from dpm_plugin.utils.text import shown


def read_picture(path):
    """The picture at ``path`` as RGB, turned as its EXIF tag says; of several frames the first.

    Raises:
        DPMError: missing or unreadable; one line that names it.
    """
    if not os.path.isfile(path):
        raise DPMError(f"picture '{shown(path)}' does not exist")
    try:
        with Image.open(path) as file:
            check_opened(file)
            file.load()  # now: looking for EXIF loads a PNG too, and after damage there it would pass as read
            return to_rgb(ImageOps.exif_transpose(file) if _is_turned(file) else file)
    except Exception as error:  # Pillow's readers of 60 formats raise what their parsing meets
        reason = str(error).replace(f" {str(path)!r}", "").strip() or type(error).__name__
        raise DPMError(f"picture '{shown(path)}' cannot be read ({shown(reason.splitlines()[0])})") from error


def _is_turned(file):
    try:
        return file.getexif().get(ExifTags.Base.Orientation, 1) != 1
    except Exception:  # damaged EXIF beside intact pixels; its parser raises whatever it meets
        return False


def list_pictures(folder, leave_out=None):
    """Files below ``folder`` whose ending belongs to a format that Pillow reads, sorted.

    Hidden files and folders are left out, and so is the folder ``leave_out``.

    Returns:
        list of paths relative to ``folder``, with forward slashes.

    Raises:
        DPMError: no such folder, it cannot be listed, or there is no picture in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DPMError(f"'{shown(folder)}' is no folder of pictures")
    leave_out = None if leave_out is None else Path(leave_out).resolve()
    endings = {ending for ending, name in Image.registered_extensions().items() if name in Image.OPEN}
    found = []
    for place, folders, files in os.walk(folder, onerror=_refuse):
        folders[:] = [
            name for name in folders if not name.startswith(".") and (Path(place) / name).resolve() != leave_out
        ]
        found += [
            (Path(place) / name).relative_to(folder).as_posix()
            for name in files
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in endings
        ]
    if not found:
        raise DPMError(f"there is no picture in '{shown(folder)}'; looked for endings such as .jpg, .png, .tif")
    return sorted(found)


def _refuse(error):
    raise DPMError(f"folder '{shown(error.filename)}' cannot be read: {error.strerror}") from error
