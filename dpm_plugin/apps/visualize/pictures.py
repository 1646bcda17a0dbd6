"""Images as a person looks at them: one size, with heat maps over them."""

import base64
import io

import matplotlib
import numpy as np
from PIL import Image

from dpm_plugin.torchreid_host import read_image

HEIGHT = 192  # pixels of a picture on the page and in the PNG


def open_picture(path, image_size):
    """The file at ``path`` as RGB of HEIGHT pixels, in the proportions of the model's (height, width).

    Raises:
        DPMError: the file cannot be read; the message names it.
    """
    height, width = image_size
    return read_image(path).resize((max(1, round(HEIGHT * width / height)), HEIGHT), Image.Resampling.LANCZOS)


def overlay_drivers(picture, values):
    """Red where a patch raises the channel, blue where it lowers it; full colour at the largest magnitude.

    Args:
        picture: PIL image.
        values: (H, W) float; NaN shows the picture alone.
    """
    values = np.nan_to_num(values)
    share = values / (np.abs(values).max() or 1.0)  # -1 .. 1
    return _blend(picture, "RdBu_r", (share + 1) / 2, 0.85 * np.abs(share))


def overlay_attention(picture, values):
    """Dark where a head does not look, bright yellow where it looks most.

    Arguments as :func:`overlay_drivers`.
    """
    seen = np.isfinite(values)
    values = np.nan_to_num(values)
    share = values / (values.max() or 1.0)  # 0 .. 1
    return _blend(picture, "inferno", share, (0.35 + 0.35 * share) * seen)


def _blend(picture, name, share, opacity):
    """Colours of ``share`` (H, W) over the grey picture. Nearest: the edges seen are those of the patches."""
    colours = matplotlib.colormaps[name](share, bytes=True)[..., :3]  # (H, W, 3) uint8
    layer, alpha = (
        Image.fromarray(part).resize(picture.size, Image.Resampling.NEAREST)
        for part in (colours, np.uint8(np.round(255 * opacity)))
    )
    return Image.composite(layer, picture.convert("L").convert("RGB"), alpha)


def data_uri(picture):
    """The picture as the text of an ``src`` attribute, JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
