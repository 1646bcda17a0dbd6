"""The cameras: each has its own place, light, tint, sharpness, noise and compression."""
import dataclasses
import functools

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .brush import shade
from .identity import stream


@dataclasses.dataclass(frozen=True)
class Camera:
    """What every image of a camera shares.

    ``matrix`` (3, 3) mixes RGB (gain, tint and saturation), ``gamma`` bends it, ``haze`` lifts the black level (0 to 1);
    ``blur`` is a radius and ``detail`` the kept share of the resolution; ``noise`` is a standard deviation out
    of 255; ``quality`` is JPEG's.
    """

    matrix: tuple
    gamma: float
    haze: float
    blur: float
    detail: float
    noise: float
    quality: int
    light: int
    views: tuple
    place: str


PLACES = ("street", "park", "hall", "campus", "shop", "station", "yard", "crossing")


@functools.lru_cache(maxsize=64)
def camera(seed, count, index):
    """The :class:`Camera` number ``index`` (0-based) of ``count``.

    Brightness and tint are spread evenly over the cameras rather than drawn, so that a data set with few
    of them still has a dark, a bright, a bluish and a reddish one.
    """
    order = stream(seed, 10).permutation(count)
    hues = stream(seed, 11).permutation(count)
    rng = stream(seed, 12, index)
    gain = 0.5 + 0.85 * order[index] / max(count - 1, 1)
    angle = 2 * np.pi * (hues[index] + rng.uniform(-0.2, 0.2)) / count
    tint = 1 + rng.uniform(0.16, 0.28) * np.cos(angle - np.array([0.0, 2.1, 4.2]))
    saturation = rng.uniform(0.45, 1.1)
    gray = np.full((3, 3), 1 / 3.0)
    matrix = gain * np.diag(tint) @ (saturation * np.eye(3) + (1 - saturation) * gray)
    views = [0.25] * 4
    views[rng.randint(4)] += 1.0
    views[rng.randint(4)] += 0.6
    return Camera(
        matrix=tuple(map(tuple, matrix.round(6).tolist())),
        gamma=float(rng.uniform(0.7, 1.45)),
        haze=float(rng.uniform(0.0, 0.16)),
        blur=float(rng.uniform(0.0, 0.8)),
        detail=float(rng.uniform(0.55, 1.0)),
        noise=float(rng.uniform(2.0, 9.0)),
        quality=int(rng.randint(62, 93)),
        light=int(rng.choice((-1, 1))),
        views=tuple(views),
        place=PLACES[(index + int(stream(seed, 13).randint(len(PLACES)))) % len(PLACES)],
    )


@functools.lru_cache(maxsize=64)
def panorama(seed, count, index, height):
    """The place in front of a camera, six times as wide as high; images crop it.

    Returns:
        An RGB picture of (7.5 ``height``, 1.25 ``height``) pixels.
    """
    rng = stream(seed, 14, index)
    size = (int(7.5 * height), int(1.25 * height))
    wall, ground = _COLORS[camera(seed, count, index).place]
    image = Image.new("RGB", size, wall)
    draw = ImageDraw.Draw(image)
    horizon = int(size[1] * rng.uniform(0.42, 0.6))
    _backdrop(draw, rng, size[0], horizon, wall, camera(seed, count, index).place)
    draw.rectangle((0, horizon, *size), fill=ground)
    _floor(draw, rng, size, horizon, ground)
    _things(draw, rng, size, horizon)
    return _mottle(image, rng)


_COLORS = {
    "street": ((150, 140, 130), (104, 104, 108)),
    "park": ((92, 124, 76), (126, 142, 92)),
    "hall": ((196, 190, 178), (160, 152, 142)),
    "campus": ((164, 110, 86), (150, 146, 140)),
    "shop": ((120, 130, 146), (176, 172, 164)),
    "station": ((84, 92, 104), (120, 118, 112)),
    "yard": ((176, 170, 150), (150, 132, 108)),
    "crossing": ((128, 146, 160), (84, 86, 90)),
}


def _backdrop(draw, rng, width, horizon, wall, place):
    """Windows, doors and posters on walls; trees in front of the sky in parks."""
    x = 0
    while x < width:
        w = int(rng.uniform(0.12, 0.5) * horizon)
        color = shade(wall, rng.uniform(0.6, 1.35))
        draw.rectangle((x, 0, x + w, horizon), fill=color)
        if place in ("park", "yard", "crossing"):
            for _ in range(8):
                cx, cy, r = x + rng.uniform(0, w), rng.uniform(-0.2, 0.9) * horizon, rng.uniform(0.08, 0.3) * horizon
                green = (int(rng.randint(30, 90)), int(rng.randint(70, 130)), int(rng.randint(20, 70)))
                draw.ellipse((cx - r, cy - r, cx + r, cy + r), fill=green)
        else:
            glass = tuple(int(v) for v in rng.randint(20, 235, 3) * 0.5 + 0.5 * np.array(wall))
            top, pad = rng.uniform(0, 0.4) * horizon, 0.14 * w
            bottom = rng.uniform(0.6, 1.0) * horizon
            draw.rectangle((x + pad, top, x + w - pad, bottom), fill=glass)
            if rng.random_sample() < 0.6:
                draw.line((x + w / 2, top, x + w / 2, bottom), fill=shade(color, 0.7), width=2)
                draw.line((x + pad, (top + bottom) / 2, x + w - pad, (top + bottom) / 2), fill=shade(color, 0.7), width=2)
        x += w + 1


def _floor(draw, rng, size, horizon, ground):
    for _ in range(int(rng.randint(3, 9))):
        y = horizon + (size[1] - horizon) * rng.random_sample() ** 1.5
        thick = 1 + 0.08 * (y - horizon)
        draw.rectangle((0, y, size[0], y + thick), fill=shade(ground, rng.uniform(0.75, 1.25)))
    for x in range(-size[0], size[0], int(rng.randint(14, 60))):
        slope = int(rng.randint(10, 60))
        draw.line((x, horizon, x + slope, size[1]), fill=shade(ground, 0.88), width=1)


def _things(draw, rng, size, horizon):
    """Posts, bins and parked cars behind where people walk."""
    for _ in range(int(rng.randint(10, 18))):
        x = rng.uniform(0, size[0])
        color = tuple(int(v) for v in rng.randint(20, 210, 3))
        kind = rng.randint(3)
        base = horizon + rng.uniform(0.02, 0.2) * size[1]
        if kind == 0:
            draw.rectangle((x, base - rng.uniform(0.4, 0.9) * size[1], x + rng.uniform(2, 7), base), fill=shade(color, 0.6))
        elif kind == 1:
            w, h = rng.uniform(8, 20), rng.uniform(12, 30)
            draw.rectangle((x, base - h, x + w, base), fill=color)
        else:
            w, h = rng.uniform(0.5, 0.8) * size[1], rng.uniform(0.16, 0.24) * size[1]
            draw.rectangle((x, base - 0.6 * h, x + w, base - 0.12 * h), fill=color)
            draw.rectangle((x + 0.2 * w, base - h, x + 0.75 * w, base - 0.6 * h), fill=shade(color, 0.5))
            for wheel in (0.2, 0.78):
                cx, r = x + wheel * w, 0.17 * h
                draw.ellipse((cx - r, base - 0.2 * h - r, cx + r, base - 0.2 * h + r), fill=(24, 24, 26))


def _mottle(image, rng):
    """Stains and shadows: brightness that varies slowly over the picture."""
    small = rng.uniform(0.72, 1.25, (max(image.height // 10, 2), max(image.width // 10, 2)))
    field = Image.fromarray((small * 128).astype(np.uint8)).resize(image.size, Image.BICUBIC)
    pixels = np.asarray(image, np.float32) * (np.asarray(field, np.float32)[:, :, None] / 128)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def background(seed, count, index, size, rng):
    """A random piece of a camera's place as an RGB picture of ``size`` (width, height) pixels."""
    scene = panorama(seed, count, index, 128)
    height = rng.uniform(0.78, 1.0) * scene.height
    width = height * size[0] / size[1]
    if width > scene.width:
        width, height = scene.width, scene.width * size[1] / size[0]
    left = rng.uniform(0, scene.width - width)
    top = rng.uniform(0, scene.height - height)
    return scene.resize(size, Image.BILINEAR, box=(left, top, left + width, top + height))


@functools.lru_cache(maxsize=4)
def _grain(seed):
    return stream(seed, 15).normal(0, 1, (1200, 1200, 3)).astype(np.float32)


def expose(image, view, seed, rng):
    """What ``view`` records of the RGB picture ``image``: uint8 (H, W, 3), before JPEG.

    Besides the camera's own character every image has its own brightness, colour of light and a
    gradient of light from one side or a shadow across.
    """
    width, height = image.size
    if view.detail < 0.97:
        small = image.resize((max(int(width * view.detail), 4), max(int(height * view.detail), 4)), Image.BILINEAR)
        image = small.resize((width, height), Image.BILINEAR)
    if view.blur > 0.15:
        image = image.filter(ImageFilter.GaussianBlur(view.blur))
    pixels = np.asarray(image, np.float32)
    matrix = np.array(view.matrix) * rng.uniform(0.8, 1.25) * rng.uniform(0.94, 1.06, (3, 1))
    # Row by row: a matrix product may take another order of summation on another machine.
    mixed = [pixels[:, :, 0] * np.float32(m[0]) + pixels[:, :, 1] * np.float32(m[1]) + pixels[:, :, 2] * np.float32(m[2])
             for m in matrix]
    out = np.stack(mixed, axis=2)  # (H, W, 3)
    slope = rng.uniform(0.0, 0.5) * view.light
    out *= (1 + slope * np.linspace(-0.5, 0.5, width, dtype=np.float32))[None, :, None]
    if rng.random_sample() < 0.3:
        edge = int(rng.uniform(0.15, 0.85) * height)
        out[edge:] *= np.float32(rng.uniform(0.55, 0.85))
    haze = np.float32(view.haze)
    curve = (255 * ((np.arange(1024) / 1023) ** view.gamma)).astype(np.float32)
    out = curve[np.clip(out * (1023 / 255), 0, 1023).astype(np.int16)]
    out = out * (1 - haze) + 200 * haze
    top, left = rng.randint(1200 - min(height, 1199)), rng.randint(1200 - min(width, 1199))
    out += np.float32(view.noise) * _grain(seed)[top:top + height, left:left + width]
    return np.clip(out, 0, 255).astype(np.uint8)
