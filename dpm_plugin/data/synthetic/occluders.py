"""What stands between the camera and the person.

Every function paints one occluder on a transparent layer as large as the picture. The layer is then slid in
from below, from above or from a side until the wanted share of the person is hidden (:func:`place`).
"""

import numpy as np
from PIL import Image, ImageDraw

from .brush import shade
from .identity import CLOTH, pick
from .person import draw_person, draw_pose


def _layer(size):
    image = Image.new("RGBA", size)
    return image, ImageDraw.Draw(image)


def _color(rng, low=40, high=220):
    return tuple(rng.randrange(low, high) for _ in range(3))


def _wall(size, rng):
    """A brick or concrete wall over the full width."""
    image, draw = _layer(size)
    w, h = size
    base = ((150, 84, 66), (168, 164, 156), (120, 116, 110), (196, 184, 160))[rng.randrange(4)]
    draw.rectangle((0, 0, w, h), fill=base + (255,))
    course = max(h // rng.randrange(14, 24), 4)
    if rng.random() < 0.6:
        for row, y in enumerate(range(0, h, course)):
            draw.line((0, y, w, y), fill=shade(base, 0.72) + (255,), width=2)
            for x in range(-course * (row % 2), w, course * 2):
                draw.line((x, y, x, y + course), fill=shade(base, 0.72) + (255,), width=2)
    draw.rectangle((0, 0, w, course * 0.7), fill=shade(base, 1.2) + (255,))
    return image


def _car(size, rng):
    """Part of a parked car: roof, windows, bonnet, door line, wheel."""
    image, draw = _layer(size)
    w, h = size
    paint = CLOTH[rng.randrange(len(CLOTH))]
    flip = -1 if rng.random() < 0.5 else 1
    middle = w / 2 + rng.uniform(-0.35, 0.35) * w

    def at(x, y):
        return middle + flip * x * h, y * h

    draw.rectangle((0, 0.3 * h, w, 1.2 * h), fill=paint + (255,))
    # The bonnet is lower than the roof; what lies above it stays free.
    draw.polygon(
        [at(-0.6, 0.0), at(0.2, 0.0), at(0.42, 0.2), at(0.9, 0.25), at(0.9, 0.4), at(-0.6, 0.4)], fill=paint + (255,)
    )
    glass = (58, 70, 84, 255)
    draw.polygon([at(-0.14, 0.04), at(0.17, 0.04), at(0.36, 0.2), at(-0.14, 0.2)], fill=glass)
    draw.polygon([at(-0.6, 0.04), at(-0.18, 0.04), at(-0.18, 0.2), at(-0.6, 0.2)], fill=glass)
    draw.line([at(-0.16, 0.2), at(-0.16, 0.55)], fill=shade(paint, 0.6) + (255,), width=2)
    draw.line([at(-0.9, 0.3), at(0.9, 0.3)], fill=shade(paint, 1.3) + (255,), width=3)
    draw.rectangle((0, 0.58 * h, w, h), fill=shade(paint, 0.5) + (255,))
    x, y = at(0.35, 0.55)
    r = 0.13 * h
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(22, 22, 24, 255))
    draw.ellipse((x - r / 2, y - r / 2, x + r / 2, y + r / 2), fill=(150, 150, 154, 255))
    return image


def _leaves(draw, rng, size, count, low, high):
    w, h = size
    for _ in range(count):
        x, y = rng.uniform(-0.1, 1.1) * w, rng.uniform(low, high) * h
        r = rng.uniform(0.03, 0.1) * h
        green = (rng.randrange(24, 96), rng.randrange(70, 140), rng.randrange(20, 70), 255)
        draw.ellipse((x - r, y - 0.7 * r, x + r, y + 0.7 * r), fill=green)


def _bush(size, rng):
    image, draw = _layer(size)
    draw.rectangle((0, 0.16 * size[1], *size), fill=(46, 84, 40, 255))
    _leaves(draw, rng, size, 60, 0.04, 1.0)
    return image


def _branches(size, rng):
    """Leaves that hang in from above."""
    image, draw = _layer(size)
    draw.rectangle((0, 0, size[0], 0.8 * size[1]), fill=(52, 90, 42, 255))
    _leaves(draw, rng, size, 60, 0.0, 0.94)
    return image


def _boxes(size, rng):
    """A stack of crates of uneven height."""
    image, draw = _layer(size)
    w, h = size
    x = -rng.uniform(0, 0.2) * w
    while x < w:
        width, top = rng.uniform(0.3, 0.6) * w, rng.uniform(0, 0.16) * h
        while top < h:
            color, height = shade((176, 132, 86), rng.uniform(0.7, 1.2)), rng.uniform(0.2, 0.3) * h
            edge, slat = shade(color, 0.6) + (255,), shade(color, 0.75) + (255,)
            draw.rectangle((x, top, x + width, top + height), fill=color + (255,), outline=edge)
            draw.line((x, top + height * 0.5, x + width, top + height * 0.5), fill=slat, width=3)
            top += height
        x += width
    return image


def _sign(size, rng):
    """A board with lines of lettering, on legs that are out of the picture."""
    image, draw = _layer(size)
    w, h = size
    board, ink = _color(rng, 120, 250), _color(rng, 0, 90)
    draw.rectangle((0, 0, w, h), fill=board + (255,), outline=shade(board, 0.5) + (255,), width=4)
    for y in np.arange(0.06, 0.95, 0.08):
        draw.rectangle((0.1 * w, y * h, rng.uniform(0.4, 0.9) * w, (y + 0.03) * h), fill=ink + (255,))
    return image


def _pillar(size, rng):
    image, draw = _layer(size)
    w, h = size
    width = rng.uniform(0.32, 0.6) * w
    color = _color(rng, 90, 200)
    for i in range(8):
        tone = shade(color, 1.15 - 0.6 * abs(i / 7 - 0.35))
        draw.rectangle((width * i / 8, 0, width * (i + 1) / 8, h), fill=tone + (255,))
    if rng.random() < 0.4:
        y = rng.uniform(0.1, 0.7) * h
        draw.rectangle((0.15 * width, y, 0.85 * width, y + 0.2 * h), fill=_color(rng) + (255,))
    return image


def _tree(size, rng):
    image, draw = _layer(size)
    w, h = size
    width, bark = rng.uniform(0.25, 0.5) * w, (92, 70, 52)
    draw.polygon(((0.1 * width, 0), (0.9 * width, 0), (width, h), (0, h)), fill=bark + (255,))
    for _ in range(26):
        x, y = rng.uniform(0.1, 0.85) * width, rng.uniform(0, 1) * h
        draw.line(
            (x, y, x + rng.uniform(-4, 4), y + rng.uniform(8, 30)),
            fill=shade(bark, rng.uniform(0.6, 1.3)) + (255,),
            width=3,
        )
    return image


def _corner(size, rng):
    """The corner of a building or an open door; hides everything on its side."""
    image, draw = _layer(size)
    color = _color(rng, 80, 210)
    draw.rectangle((0, 0, *size), fill=color + (255,))
    draw.rectangle((0, 0, 0.07 * size[0], size[1]), fill=shade(color, 1.3) + (255,))
    joint = shade(color, 0.8) + (255,)
    for y in np.arange(rng.uniform(0, 0.2), 1, 0.25):
        draw.line((0.07 * size[0], y * size[1], size[0], y * size[1]), fill=joint, width=3)
    return image


# Kind: weight, from where it slides in, painter. A person comes from another identity of the same set.
KINDS = {
    "person": (3.2, "side", None),
    "car": (1.4, "below", _car),
    "wall": (1.0, "below", _wall),
    "bush": (1.0, "below", _bush),
    "boxes": (0.8, "below", _boxes),
    "sign": (0.8, "below", _sign),
    "branches": (0.9, "above", _branches),
    "pillar": (1.3, "side", _pillar),
    "tree": (0.9, "side", _tree),
    "corner": (1.1, "side", _corner),
}


def draw_kind(rng):
    """A random kind by its weight."""
    return pick(rng, list(KINDS), [weight for weight, _, _ in KINDS.values()])


def paint(kind, size, who, view, rng):
    """An occluder as an RGBA layer of ``size`` pixels.

    Args:
        who: the ``Identity`` of a person in the way.
        view: the ``Camera``, for the light on that person and the way people walk there.
    """
    if kind != "person":
        return KINDS[kind][2](size, rng)
    # Nearer to the camera, hence larger and with the feet often below the picture.
    unit = size[1] * rng.uniform(0.95, 1.3)
    top = size[1] * rng.uniform(0.0, 0.25)
    return draw_person(size, who, draw_pose(rng, view.views), size[0] / 2, top, unit, view.light)


def place(layer, kind, body, low, high, target, from_left):
    """Slide ``layer`` over the person until about ``target`` of it is hidden.

    Args:
        layer: RGBA occluder as large as the picture.
        body: uint8 (H, W), the person's alpha.
        low, high: bounds of the hidden share.
        from_left: for kinds from the side: which one.

    Returns:
        (dx, dy, share) of the place nearest to ``target``, or None where no place is within the bounds.
    """
    cover = np.asarray(layer.getchannel("A"))
    height, width = body.shape
    direction = KINDS[kind][1]
    thin_body, thin_cover = body[::4, ::4] > 127, cover[::4, ::4] > 127
    offsets = []
    for part in np.linspace(-0.9, 0.95, 38):
        if direction == "side":
            dx = int(part * width)
            offsets.append((dx if not from_left else -dx, 0))
        elif part > 0:
            offsets.append((0, int(part * height) if direction == "below" else -int(part * height)))
    coarse = [hidden_share(thin_body, thin_cover, dx // 4, dy // 4) for dx, dy in offsets]
    for i in np.argsort(np.abs(np.array(coarse) - target), kind="stable")[:4]:
        share = hidden_share(body > 127, cover > 127, *offsets[i])
        if low <= share <= high:
            return (*offsets[i], share)
    return None


def hidden_share(body, cover, dx=0, dy=0):
    """Share of ``body`` (H, W bool) under ``cover`` (H, W bool) moved by (dx, dy) pixels."""
    height, width = body.shape
    seen = body[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
    over = cover[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]
    return float(np.count_nonzero(seen & over)) / max(int(np.count_nonzero(body)), 1)
