"""The cameras: each has its own place, light, tint, sharpness, noise and compression."""

import dataclasses
import functools
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from .brush import disc, shade
from .identity import stream


@dataclasses.dataclass(frozen=True)
class Camera:
    """What every image of a camera shares."""

    matrix: tuple[tuple[float, float, float], ...]  # (3, 3), mixes RGB: gain, tint and saturation
    gamma: float
    haze: float  # lifts the black level, 0 to 1
    detail: float  # share of the resolution that its blur leaves
    noise: float  # standard deviation out of 255
    quality: int  # JPEG's
    light: int  # side that light comes from: -1 left, 1 right
    views: tuple[float, ...]  # weights of the sides that people show there: front, right, back, left
    place: str


# Place: colours of its wall and its ground.
PLACES = {
    "street": ((150, 140, 130), (104, 104, 108)),
    "park": ((92, 124, 76), (126, 142, 92)),
    "hall": ((196, 190, 178), (160, 152, 142)),
    "campus": ((164, 110, 86), (150, 146, 140)),
    "shop": ((120, 130, 146), (176, 172, 164)),
    "station": ((84, 92, 104), (120, 118, 112)),
    "yard": ((176, 170, 150), (150, 132, 108)),
    "crossing": ((128, 146, 160), (84, 86, 90)),
}


@functools.lru_cache(maxsize=64)
def camera(seed: int, count: int, index: int) -> Camera:
    """Camera number ``index`` (0-based) of ``count``."""
    # Brightness and tint are spread evenly rather than drawn: few cameras still differ in both.
    order, hues = (stream(seed, key).sample(range(count), count) for key in (10, 11))
    rng = stream(seed, 12, index)
    gain = 0.9 + 0.2 * order[index] / max(count - 1, 1)
    angle = 2 * np.pi * (hues[index] + rng.uniform(-0.2, 0.2)) / count
    tint = 1 + rng.uniform(0.02, 0.05) * np.cos(angle - np.array([0.0, 2.1, 4.2]))
    saturation = rng.uniform(0.88, 1.08)
    gray = np.full((3, 3), 1 / 3.0)
    matrix = gain * np.diag(tint) @ (saturation * np.eye(3) + (1 - saturation) * gray)
    views = [0.25] * 4
    views[rng.randrange(4)] += 1.0
    views[rng.randrange(4)] += 0.6
    return Camera(
        matrix=tuple(map(tuple, matrix.round(6).tolist())),
        gamma=rng.uniform(0.92, 1.1),
        haze=rng.uniform(0.0, 0.05),
        detail=rng.uniform(0.6, 1.0),
        noise=rng.uniform(2.0, 5.0),
        quality=rng.randrange(62, 93),
        light=rng.choice((-1, 1)),
        views=tuple(views),
        place=list(PLACES)[(index + stream(seed, 13).randrange(len(PLACES))) % len(PLACES)],
    )


@functools.lru_cache(maxsize=64)
def panorama(seed: int, count: int, index: int, height: int) -> Image.Image:
    """The place in front of a camera, six times as wide as high: 7.5 x 1.25 ``height``; images show pieces of it."""
    rng, size = stream(seed, 14, index), (960, 160)
    place = camera(seed, count, index).place
    wall, ground = PLACES[place]
    image = Image.new("RGB", size, wall)
    draw = ImageDraw.Draw(image)
    horizon = int(size[1] * rng.uniform(0.42, 0.6))
    _backdrop(draw, rng, size[0], horizon, wall, place)
    draw.rectangle((0, horizon, *size), fill=ground)
    for _ in range(rng.randrange(3, 9)):
        y = horizon + (size[1] - horizon) * rng.random() ** 1.5
        thick = 1 + 0.08 * (y - horizon)
        draw.rectangle((0, y, size[0], y + thick), fill=shade(ground, rng.uniform(0.75, 1.25)))
    for x in range(-size[0], size[0], rng.randrange(14, 60)):
        draw.line((x, horizon, x + rng.randrange(10, 60), size[1]), fill=shade(ground, 0.88), width=1)
    _things(draw, rng, size, horizon)
    # Stains and shadows: brightness that varies slowly over the image.
    numbers = np.random.RandomState(rng.randrange(2**32))
    small = numbers.uniform(0.72, 1.25, (size[1] // 10, size[0] // 10))
    field = Image.fromarray((small * 128).astype(np.uint8)).resize(size, Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.float32) * (np.asarray(field, np.float32)[:, :, None] / 128)
    # Out of focus and paler than what stands in front of it, as distance makes it.
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.5))
    image = Image.blend(image, Image.new("RGB", size, ground), 0.5)
    return image.resize((int(7.5 * height), int(1.25 * height)), Image.Resampling.BILINEAR)


def _backdrop(draw, rng, width, horizon, wall, place):
    """Windows, doors and posters on walls; trees in front of the sky in parks."""
    x = 0
    while x < width:
        w = int(rng.uniform(0.12, 0.5) * horizon)
        color = shade(wall, rng.uniform(0.6, 1.35))
        draw.rectangle((x, 0, x + w, horizon), fill=color)
        if place in ("park", "yard", "crossing"):
            for _ in range(8):
                cx, cy = x + rng.uniform(0, w), rng.uniform(-0.2, 0.9) * horizon
                r = rng.uniform(0.08, 0.3) * horizon
                disc(draw, cx, cy, r, (rng.randrange(30, 90), rng.randrange(70, 130), rng.randrange(20, 70)))
        else:
            glass = tuple((rng.randrange(20, 235) + v) // 2 for v in wall)
            top, pad = rng.uniform(0, 0.4) * horizon, 0.14 * w
            bottom = rng.uniform(0.6, 1.0) * horizon
            draw.rectangle((x + pad, top, x + w - pad, bottom), fill=glass)
            if rng.random() < 0.6:
                bar, middle = shade(color, 0.7), (top + bottom) / 2
                draw.line((x + w / 2, top, x + w / 2, bottom), fill=bar, width=2)
                draw.line((x + pad, middle, x + w - pad, middle), fill=bar, width=2)
        x += w + 1


def _things(draw, rng, size, horizon):
    """Posts, bins and parked cars behind where people walk."""
    for _ in range(rng.randrange(10, 18)):
        x = rng.uniform(0, size[0])
        color = tuple(rng.randrange(20, 210) for _ in range(3))
        kind = rng.randrange(3)
        base = horizon + rng.uniform(0.02, 0.2) * size[1]
        if kind == 0:
            tall, wide = rng.uniform(0.4, 0.9) * size[1], rng.uniform(2, 7)
            draw.rectangle((x, base - tall, x + wide, base), fill=shade(color, 0.6))
        elif kind == 1:
            w, h = rng.uniform(8, 20), rng.uniform(12, 30)
            draw.rectangle((x, base - h, x + w, base), fill=color)
        else:
            w, h = rng.uniform(0.5, 0.8) * size[1], rng.uniform(0.16, 0.24) * size[1]
            draw.rectangle((x, base - 0.6 * h, x + w, base - 0.12 * h), fill=color)
            draw.rectangle((x + 0.2 * w, base - h, x + 0.75 * w, base - 0.6 * h), fill=shade(color, 0.5))
            for wheel in (0.2, 0.78):
                disc(draw, x + wheel * w, base - 0.2 * h, 0.17 * h, (24, 24, 26))


def background(seed: int, count: int, index: int, size: tuple[int, int], rng: random.Random) -> Image.Image:
    """A random piece of a camera's place as an RGB image of ``size`` (width, height) pixels."""
    scene = panorama(seed, count, index, max(size[1], size[0] // 7))
    left = rng.randrange(scene.width - size[0] + 1)
    top = rng.randrange(scene.height - size[1] + 1)
    return scene.crop((left, top, left + size[0], top + size[1]))


@functools.lru_cache(maxsize=1)
def _grain(height, width):
    return np.random.RandomState(0).normal(0, 1, (height + 256, width + 256, 3)).astype(np.float32)


@functools.lru_cache(maxsize=64)
def _curve(gamma, haze):
    """Lookup table of the camera's gamma and haze."""
    return (255 * (np.arange(256) / 255) ** gamma * (1 - haze) + 200 * haze).astype(np.float32)


def expose(scene: Image.Image, size: tuple[int, int], view: Camera, rng: random.Random) -> np.ndarray:
    """What the camera ``view`` records of the RGB ``scene`` at ``size`` (width, height): uint8 (H, W, 3), before JPEG.

    Every image has its own brightness and colour of light, falling off to one side, and at times a shadow below.
    """
    width, height = size
    small = max(round(width * view.detail), 8), max(round(height * view.detail), 16)
    image = scene.resize(small, Image.Resampling.BOX).resize(size, Image.Resampling.BILINEAR)
    brightness, rows = rng.uniform(0.94, 1.07), []
    for row in view.matrix:
        gain = brightness * rng.uniform(0.98, 1.02)
        rows += [*(gain * mixed for mixed in row), 0]
    mixed = np.asarray(image.convert("RGB", rows))  # (H, W, 3)
    slope = rng.uniform(0.0, 0.25) * view.light
    across = 1 + slope * (np.arange(width, dtype=np.float32) / width - 0.5)
    down = np.ones(height, np.float32)
    if rng.random() < 0.15:
        down[int(rng.uniform(0.15, 0.85) * height) :] = rng.uniform(0.7, 0.9)
    pixels = _curve(view.gamma, view.haze)[mixed] * (down[:, None] * across)[:, :, None]
    top, left = rng.randrange(256), rng.randrange(256)
    pixels += np.float32(view.noise) * _grain(height, width)[top : top + height, left : left + width]
    return np.clip(pixels, 0, 255, out=pixels).astype(np.uint8)
