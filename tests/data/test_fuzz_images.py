"""Image files of any content: the right pixels or one line that names the file, in training, searches and checks."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image

from dpm_plugin.apps.check_data.checking import examine
from dpm_plugin.utils.errors import UnreadableImage
from dpm_plugin.utils.images import LARGEST, read_image
from helpers.fuzz import Refused, fuzz, outcome, sizes  # noqa: F401, a fixture

# Pillow warns of what it then refuses, or reads around.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::PIL.Image.DecompressionBombWarning")
MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "I;16", "I;16B"]
FORMATS = ["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000", "TGA", "ICO", "PCX", "EPS", "PDF", "SGI"]


def noise(mode, width, height, seed):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode.startswith("I;16"):
        order = ">u2" if mode.endswith("B") else "<u2"
        wide = values[..., 0].astype(np.uint16) * 256 + values[..., 1]
        return Image.frombytes(mode, (width, height), wide.astype(order).tobytes())
    if mode in ("I", "F"):
        return Image.fromarray(values[..., 0].astype(np.int32 if mode == "I" else np.float32))
    rgba = Image.fromarray(values)
    return rgba if mode == "RGBA" else rgba.convert("RGB").convert({"LAB": "RGB", "PA": "P"}.get(mode, mode))


@st.composite
def files(draw):
    """(bytes of a saved image, as it was saved or spoilt; its format; whether it is what was saved, and readable)."""
    mode, kind = draw(st.sampled_from(MODES)), draw(st.sampled_from(FORMATS))
    image = noise(mode, *draw(st.tuples(st.integers(1, 24), st.integers(1, 24))), draw(st.integers(0, 99)))
    buffer = io.BytesIO()
    try:
        image.save(buffer, kind)
    except (OSError, ValueError, KeyError, SystemError):  # a format without that mode
        image = image.convert("L") if mode.startswith("I") or mode == "F" else image.convert("RGB")
        buffer = io.BytesIO()
        image.save(buffer, kind)
    content = bytearray(buffer.getvalue())
    damage = draw(st.sampled_from(["none", "cut", "bits", "insert", "zeros"]))
    place = draw(st.integers(0, len(content) - 1))
    if damage == "cut":
        del content[place:]
    elif damage == "bits":
        for place in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=8)):
            content[place] ^= 1 << draw(st.integers(0, 7))
    elif damage == "insert":
        content[place:place] = draw(st.binary(min_size=1, max_size=8))
    elif damage == "zeros":
        content[place : place + 16] = bytes(16)
    return bytes(content), kind, damage == "none" and opens(content)


def opens(content):
    """Pillow 10.3 cannot read every file that it writes: small ICO, YCbCr in TIFF."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            if image.format != "EPS":  # which would run Ghostscript
                image.load()
        return True
    except Exception:
        return False


def read_everywhere(path):
    """What training reads; searches and checks must agree on whether it can be read."""
    found = outcome(read_image, str(path))
    other = outcome(read_image, path, True)
    problem = examine(str(path)).finding
    assert isinstance(found, Refused) == isinstance(other, Refused) == bool(problem)
    if isinstance(found, Refused):
        assert str(path) in found and "\n" not in found
    else:
        assert found.mode == "RGB" and 0 < found.width * found.height <= LARGEST
    return found


@sizes(40, 1500)
def test_saved_and_spoilt_images(fuzz, tmp_path):  # noqa: F811
    path = tmp_path / "image.jpg"  # whatever it holds: readers go by content

    def check(case):
        content, kind, is_intact = case
        path.write_bytes(content)
        found = read_everywhere(path)
        if kind in ("EPS", "PDF"):
            assert isinstance(found, Refused)
        elif is_intact and not isinstance(found, Refused):
            with Image.open(io.BytesIO(content)) as image:
                if image.mode.startswith("I;16"):
                    expected = np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
                else:
                    expected = np.asarray(image.convert("RGB"))
            assert (np.asarray(found) == expected).all()
        elif is_intact:
            with Image.open(io.BytesIO(content)) as image:
                assert image.mode in ("I", "F"), found

    fuzz(files(), check)


@sizes(20, 700)
def test_random_bytes_after_the_first_ones_of_a_format(fuzz, tmp_path):  # noqa: F811
    heads = [
        *(b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"II*\0", b"MM\0*", b"BM", b"GIF89a", b"RIFF\0\0\0\0WEBP"),
        *(b"P6\n", b"\0\0\1\0", b"qoif", b"DDS ", b"8BPS", b"\0\0\0\x0cjP  \r\n\x87\n", b"SIMPLE  =", b"\x93NUMPY"),
        *(b"PK\3\4", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    ]
    path = tmp_path / "image.png"

    def check(case):
        path.write_bytes(case[0] + case[1])
        read_everywhere(path)

    fuzz(st.tuples(st.sampled_from(heads), st.binary(max_size=200)), check)


def png(width, height, mode=2):
    """A PNG that declares these sizes and holds next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "content",
    [
        png(2**16, 2**16),
        png(2**31 - 1, 2**31 - 1),
        png(9000, 9000),
        png(1, 2**27),
        b"P6 60000 60000 255\n",
        b"BM" + struct.pack("<IIIIiiHHIIIIII", 54, 0, 54, 40, 50000, 50000, 1, 24, 0, 0, 0, 0, 0, 0),
    ],
    ids=["png", "largest png", "under Pillow's limit", "one column", "ppm", "bmp"],
)
def test_an_image_that_declares_more_pixels_than_memory_is_refused_before_it_is_read(content, tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(content)
    assert isinstance(read_everywhere(path), Refused)


def test_16_bit_grey_is_read_by_its_upper_bytes_and_not_as_white(tmp_path):
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(grey).save(tmp_path / "deep.png")
    assert (np.asarray(read_image(tmp_path / "deep.png"))[..., 0] == grey >> 8).all()


def test_postscript_named_jpg_is_not_run(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "EPS")
    mark = tmp_path / "ran"
    (tmp_path / "a.jpg").write_bytes(
        buffer.getvalue().replace(b"%%EndComments", b"%%EndComments\n(" + str(mark).encode() + b") (w) file closefile")
    )
    with pytest.raises(UnreadableImage, match="a program"):
        read_image(tmp_path / "a.jpg")
    assert not mark.exists()


def test_pixels_damaged_inside_an_intact_file_are_refused_by_searches_too(tmp_path):
    """Looking for EXIF loads a PNG's pixels; that must not swallow that they are damaged."""
    path = tmp_path / "a.png"
    noise("RGB", 8, 8, 0).save(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"IDAT") + 10
    content[place : place + 20] = bytes(20)
    path.write_bytes(bytes(content))
    assert isinstance(read_everywhere(path), Refused)
