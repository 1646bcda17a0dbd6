"""One image file as RGB: the one place that says what can be read, for training, checks and searches."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dpm_plugin.utils.errors import DPMError, UnreadableImage
from dpm_plugin.utils.text import shown

LARGEST = 2**26  # pixels, 8192 x 8192: thousands of times a person's; a small file can declare billions
RUN_BY_PILLOW = ("EPS",)  # PostScript is a program; Pillow has Ghostscript run it
NO_RANGE = ("I", "F")  # whole and real numbers: nothing says which is black and which is white


class Undecodable(ValueError):
    """Why a file is no readable image, in one line."""


def has_image_ending(name: str) -> bool:
    """Whether a file name has the ending of a format that Pillow reads, and is not hidden."""
    formats = Image.registered_extensions()  # ending -> format, of all that Pillow reads or writes
    return name[0] != "." and formats.get(os.path.splitext(name)[1].lower()) in Image.OPEN


def read_image(path: str | os.PathLike, upright: bool = False) -> Image.Image:
    """:func:`decode`, with errors that name the file and say what to do.

    Raises:
        UnreadableImage: the file cannot be decoded.
        DPMError: there is no such file.
    """
    if not os.path.isfile(path):
        raise DPMError(f"image '{shown(path)}' does not exist; was it moved?")
    try:
        return decode(path, upright)
    except Undecodable as error:
        raise UnreadableImage(
            f"image '{shown(path)}' cannot be read ({error}); replace it by an intact copy or remove it"
        ) from error


def decode(path: str | os.PathLike, upright: bool = False) -> Image.Image:
    """RGB pixels of an image file and nothing else of it; of several frames the first.

    Args:
        path: of the file.
        upright: whether to turn the image as its EXIF tag says. Default: False, as data sets are read.

    Raises:
        Undecodable: it is no image, damaged, a program, without a range of values, or larger than ``LARGEST``.
    """
    with _one_reason():
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for whoever writes
            raise Undecodable("it is no regular file")
        with Image.open(path) as image:
            _check_opened(image)
            rgb = _to_rgb(_turned(image) if upright else image)
        rgb.info = {}  # comments and profiles, which Pillow would write into every copy
        return rgb


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB pixels of a PIL image, the same as :func:`decode` makes of its file; Undecodable where that raises it."""
    with _one_reason():
        _check_opened(image)
        return _to_rgb(image)


@contextmanager
def _one_reason() -> Iterator[None]:
    """Turn whatever Pillow raises within the block into Undecodable."""
    try:
        yield
    except Undecodable:
        raise
    except UnidentifiedImageError as error:
        raise Undecodable("no kind of image that Pillow knows") from error
    except Exception as error:  # Pillow's readers of 60 formats raise what their parsing meets
        reason = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
        raise Undecodable(shown(reason.splitlines()[0])) from error


def _check_opened(image: Image.Image) -> None:
    """Refuse an image that is opened but not read yet, where reading it would do harm or have no one meaning."""
    if image.format in RUN_BY_PILLOW:
        raise Undecodable(f"{image.format} is a program that would be run, not an image")
    if image.width * image.height > LARGEST:
        raise Undecodable(f"it declares {image.width} x {image.height} pixels, more than {LARGEST:,} in all")
    if image.mode in NO_RANGE:
        raise Undecodable(f"pixels of Pillow's mode {image.mode} have no range; save it with 8 bits a channel")


def _turned(image: Image.Image) -> Image.Image:
    image.load()  # now: looking for EXIF loads a PNG too, and after damage there it would pass as read
    try:
        is_upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except Exception:  # damaged EXIF beside intact pixels; its parser raises whatever it meets
        return image
    return image if is_upright else ImageOps.exif_transpose(image)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # by the upper bytes; Pillow would clip to white
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")
