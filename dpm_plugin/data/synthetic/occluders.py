"""What stands between the camera and the person.

Every painter covers a transparent layer as large as the image; it is then slid in until the asked share of the
person is hidden (:func:`place`).
"""

import random
from collections.abc import Callable
from functools import partial

import numpy as np
from PIL import Image, ImageDraw

from .brush import disc, shade
from .identity import CLOTH, Identity
from .person import draw_person, draw_pose
from .scene import Camera


def _color(rng, low=40, high=220):
    return tuple(rng.randrange(low, high) for _ in range(3))


def _wall(draw, w, h, rng):
    """A brick or concrete wall over the full width."""
    base = ((150, 84, 66), (168, 164, 156), (120, 116, 110), (196, 184, 160))[rng.randrange(4)]
    draw.rectangle((0, 0, w, h), fill=base)
    course, joint = max(h // rng.randrange(14, 24), 4), shade(base, 0.72)
    if rng.random() < 0.6:
        for row, y in enumerate(range(0, h, course)):
            draw.line((0, y, w, y), fill=joint, width=2)
            for x in range(-course * (row % 2), w, course * 2):
                draw.line((x, y, x, y + course), fill=joint, width=2)
    draw.rectangle((0, 0, w, course * 0.7), fill=shade(base, 1.2))


def _car(draw, w, h, rng):
    """Part of a parked car: roof, windows, bonnet, door line, wheel."""
    paint = CLOTH[rng.randrange(len(CLOTH))]
    flip = -1 if rng.random() < 0.5 else 1
    middle = w / 2 + rng.uniform(-0.35, 0.35) * w

    at = lambda *points: [(middle + flip * x * h, y * h) for x, y in points]
    draw.rectangle((0, 0.3 * h, w, 1.2 * h), fill=paint)
    # The bonnet is lower than the roof; what lies above it stays free.
    draw.polygon(at((-0.6, 0.0), (0.2, 0.0), (0.42, 0.2), (0.9, 0.25), (0.9, 0.4), (-0.6, 0.4)), fill=paint)
    glass = (58, 70, 84)
    draw.polygon(at((-0.14, 0.04), (0.17, 0.04), (0.36, 0.2), (-0.14, 0.2)), fill=glass)
    draw.polygon(at((-0.6, 0.04), (-0.18, 0.04), (-0.18, 0.2), (-0.6, 0.2)), fill=glass)
    draw.line(at((-0.16, 0.2), (-0.16, 0.55)), fill=shade(paint, 0.6), width=2)
    draw.line(at((-0.9, 0.3), (0.9, 0.3)), fill=shade(paint, 1.3), width=3)
    draw.rectangle((0, 0.58 * h, w, h), fill=shade(paint, 0.5))
    for radius, color in ((0.13 * h, (22, 22, 24)), (0.13 * h / 2, (150, 150, 154))):
        disc(draw, *at((0.35, 0.55))[0], radius, color)


def _leaves(draw, w, h, rng, shadow, top, bottom, low, high):
    """A bush, or branches that hang in from above."""
    draw.rectangle((0, top * h, w, bottom * h), fill=shadow)
    for _ in range(60):
        x, y, r = rng.uniform(-0.1, 1.1) * w, rng.uniform(low, high) * h, rng.uniform(0.03, 0.1) * h
        green = (rng.randrange(24, 96), rng.randrange(70, 140), rng.randrange(20, 70))
        draw.ellipse((x - r, y - 0.7 * r, x + r, y + 0.7 * r), fill=green)


def _boxes(draw, w, h, rng):
    """A stack of crates of uneven height."""
    x = -rng.uniform(0, 0.2) * w
    while x < w:
        width, top = rng.uniform(0.3, 0.6) * w, rng.uniform(0, 0.16) * h
        while top < h:
            color, height = shade((176, 132, 86), rng.uniform(0.7, 1.2)), rng.uniform(0.2, 0.3) * h
            draw.rectangle((x, top, x + width, top + height), fill=color, outline=shade(color, 0.6))
            draw.line((x, top + height * 0.5, x + width, top + height * 0.5), fill=shade(color, 0.75), width=3)
            top += height
        x += width


def _sign(draw, w, h, rng):
    """A board with lines of lettering, on legs that are out of the image."""
    board, ink = _color(rng, 120, 250), _color(rng, 0, 90)
    draw.rectangle((0, 0, w, h), fill=board, outline=shade(board, 0.5), width=4)
    for y in np.arange(0.06, 0.95, 0.08):
        draw.rectangle((0.1 * w, y * h, rng.uniform(0.4, 0.9) * w, (y + 0.03) * h), fill=ink)


def _pillar(draw, w, h, rng):
    width, color = rng.uniform(0.32, 0.6) * w, _color(rng, 90, 200)
    for i in range(8):
        tone = shade(color, 1.15 - 0.6 * abs(i / 7 - 0.35))
        draw.rectangle((width * i / 8, 0, width * (i + 1) / 8, h), fill=tone)
    if rng.random() < 0.4:
        y = rng.uniform(0.1, 0.7) * h
        draw.rectangle((0.15 * width, y, 0.85 * width, y + 0.2 * h), fill=_color(rng))


def _tree(draw, w, h, rng):
    width, bark = rng.uniform(0.25, 0.5) * w, (92, 70, 52)
    draw.polygon(((0.1 * width, 0), (0.9 * width, 0), (width, h), (0, h)), fill=bark)
    for _ in range(26):
        x, y = rng.uniform(0.1, 0.85) * width, rng.uniform(0, 1) * h
        crack = (x, y, x + rng.uniform(-4, 4), y + rng.uniform(8, 30))
        draw.line(crack, fill=shade(bark, rng.uniform(0.6, 1.3)), width=3)


def _corner(draw, w, h, rng):
    """The corner of a building or an open door; hides everything on its side."""
    color = _color(rng, 80, 210)
    draw.rectangle((0, 0, w, h), fill=color)
    draw.rectangle((0, 0, 0.07 * w, h), fill=shade(color, 1.3))
    for y in np.arange(rng.uniform(0, 0.2), 1, 0.25):
        draw.line((0.07 * w, y * h, w, y * h), fill=shade(color, 0.8), width=3)


# Kind: weight, from where it slides in, painter. A person is another identity of the same set.
KINDS: dict[str, tuple[float, str, Callable | None]] = {
    "person": (3.2, "side", None),
    "car": (1.4, "below", _car),
    "wall": (1.0, "below", _wall),
    "bush": (1.0, "below", partial(_leaves, shadow=(46, 84, 40), top=0.16, bottom=1.0, low=0.04, high=1.0)),
    "boxes": (0.8, "below", _boxes),
    "sign": (0.8, "below", _sign),
    "branches": (0.9, "above", partial(_leaves, shadow=(52, 90, 42), top=0.0, bottom=0.8, low=0.0, high=0.94)),
    "pillar": (1.3, "side", _pillar),
    "tree": (0.9, "side", _tree),
    "corner": (1.1, "side", _corner),
}


#: Kind: how often it is drawn.
WEIGHTS = {kind: weight for kind, (weight, _, _) in KINDS.items()}


def paint(kind: str, size: tuple[int, int], who: Identity, view: Camera, rng: random.Random) -> Image.Image:
    """An occluder as an RGBA layer of ``size`` (width, height) pixels; a "person" is ``who``, seen by ``view``."""
    (width, height), painter = size, KINDS[kind][2]
    if painter is None:  # a person nearer to the camera, hence larger and with the feet often below the image
        unit, top = height * rng.uniform(0.95, 1.3), height * rng.uniform(0.0, 0.25)
        return draw_person(size, who, draw_pose(rng, view.views), width / 2, top, unit, view.light)
    image = Image.new("RGBA", size)
    painter(ImageDraw.Draw(image), width, height, rng)
    return image


def place(
    layer: Image.Image, kind: str, body: np.ndarray, low: float, high: float, target: float, from_left: bool
) -> tuple[int, int] | None:
    """Slide ``layer``, an RGBA occluder of ``kind``, over the person until about ``target`` of it is hidden.

    Args:
        body: uint8 (H, W), the person's alpha; ``layer`` is as large.
        low, high: bounds of the hidden share.
        from_left: for kinds from the side: which one.

    Returns:
        (dx, dy) of the place nearest to ``target``, or None where no place is within the bounds.
    """
    height, width = body.shape
    body, cover = body > 127, np.asarray(layer.getchannel("A")) > 127
    parts = np.linspace(-0.9, 0.95, 38)
    start = KINDS[kind][1]
    if start == "side":
        offsets = [(int(part * width) * (-1 if from_left else 1), 0) for part in parts]
    else:
        offsets = [(0, int(part * height) * (1 if start == "below" else -1)) for part in parts if part > 0]
    coarse = [hidden_share(body[::4, ::4], cover[::4, ::4], dx // 4, dy // 4) for dx, dy in offsets]
    for i in np.argsort(np.abs(np.array(coarse) - target), kind="stable")[:4]:
        if low <= hidden_share(body, cover, *offsets[i]) <= high:
            return offsets[i]
    return None


def hidden_pixels(body: np.ndarray, cover: np.ndarray, dx: int = 0, dy: int = 0) -> np.ndarray:
    """The pixels of ``body`` (H, W bool) under ``cover`` (H, W bool) moved by (dx, dy) pixels, (H, W) bool."""
    height, width = body.shape
    seen = slice(max(dy, 0), height + min(dy, 0)), slice(max(dx, 0), width + min(dx, 0))
    over = slice(max(-dy, 0), height - max(dy, 0)), slice(max(-dx, 0), width - max(dx, 0))
    hidden = np.zeros_like(body)
    hidden[seen] = body[seen] & cover[over]
    return hidden


def hidden_share(body: np.ndarray, cover: np.ndarray, dx: int = 0, dy: int = 0) -> float:
    """The share of ``body`` that :func:`hidden_pixels` finds."""
    return float(np.count_nonzero(hidden_pixels(body, cover, dx, dy))) / max(int(np.count_nonzero(body)), 1)
