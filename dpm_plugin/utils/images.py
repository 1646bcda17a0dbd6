"""One image file as RGB: the one place that says what can be read, for training, checks and searches."""

import numpy as np
from PIL import Image, UnidentifiedImageError

LARGEST = 2**26  # pixels, 8192 x 8192: thousands of times a person's; a small file can declare billions
RUN_BY_PILLOW = ("EPS",)  # PostScript is a program; Pillow has Ghostscript run it
NO_RANGE = ("I", "F")  # whole and real numbers: nothing says which is black and which is white


class Undecodable(ValueError):
    """Why a file is no readable image, in one line."""


def decode(file):
    """RGB pixels of the file at path ``file``; of several frames the first.

    Raises:
        Undecodable: it is no image, damaged, or larger than ``LARGEST``.
    """
    try:
        with Image.open(file) as image:
            check_opened(image)
            return to_rgb(image)
    except Undecodable:
        raise
    except UnidentifiedImageError as error:
        raise Undecodable("no kind of image that Pillow knows") from error
    except Exception as error:  # Pillow's readers of 60 formats raise what their parsing meets
        reason = str(error).strip() or type(error).__name__
        raise Undecodable(reason.splitlines()[0]) from error


def check_opened(image):
    """Refuse an image that is opened but not read yet, where reading it would do harm or have no one meaning.

    Raises:
        Undecodable: a bomb, a program, or numbers without a range.
    """
    if image.format in RUN_BY_PILLOW:
        raise Undecodable(f"{image.format} is a program that would be run, not an image")
    if image.width * image.height > LARGEST:
        raise Undecodable(f"it declares {image.width} x {image.height} pixels, more than {LARGEST:,} in all")
    if image.mode in NO_RANGE:
        raise Undecodable(f"pixels of Pillow's mode {image.mode} have no range; save it with 8 bits a channel")


def to_rgb(image):
    """``image`` of any mode as RGB; 16-bit grey by its upper bytes, which Pillow would clip to white."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")
