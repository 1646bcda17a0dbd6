"""Shapes in body units on a transparent layer, and the cloth they are cut from."""

import math
from collections.abc import Iterable, Sequence

from PIL import Image, ImageDraw

Color = tuple[int, ...]  # red, green and blue from 0 to 255
Point = tuple[float, float]


def shade(fill: "Color | Cloth", factor: float) -> Color:
    """A fill's colour made darker (factor below 1) or lighter (above 1)."""
    color = fill.color if isinstance(fill, Cloth) else fill
    return tuple(min(int(c * factor), 255) for c in color)


def disc(draw: ImageDraw.ImageDraw, x: float, y: float, r: float, fill: Color | int) -> None:
    """A filled circle around (x, y), in pixels."""
    draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)


# Patterns of rectangles: (left, top, right, bottom) of each, in body units.
_BOXES = {
    "stripes": [(-0.4, 0.056 * i + 0.06, 0.4, 0.056 * i + 0.086) for i in range(2, 11)],
    "pinstripes": [(0.034 * i - 0.007, 0.1, 0.034 * i + 0.007, 0.8) for i in range(-7, 8)],
    "checks": [
        (0.045 * i - 0.022, 0.045 * j, 0.045 * i + 0.023, 0.045 * (j + 1))
        for i in range(-5, 6)
        for j in range(2, 16)
        if (i + j) % 2
    ],
    "halves": [(-0.4, 0.33, 0.4, 0.9)],
    "band": [(-0.4, 0.245, 0.4, 0.315)],
    "logo": [(-0.052, 0.235, 0.052, 0.325)],
}
_SASH = ((-0.14, 0.15), (-0.06, 0.15), (0.14, 0.5), (0.06, 0.5))
_DOTS = [(0.05 * (i + 0.5 * (j % 2)), 0.05 * j) for i in range(-5, 6) for j in range(3, 15)]


class Cloth:
    """A cloth with pattern ``kind`` as large as the brush's layer; shapes are cut out of it."""

    def __init__(self, brush: "Brush", kind: str, color: Color, accent: Color) -> None:
        self.color = color
        self.image = Image.new("RGBA", brush.image.size, color)
        draw = ImageDraw.Draw(self.image)
        if kind == "sash":
            draw.polygon([brush.pixel(point) for point in _SASH], fill=accent)
        elif kind == "dots":
            for point in _DOTS:
                disc(draw, *brush.pixel(point), 0.015 * brush.unit, accent)
        else:
            for left, top, right, bottom in _BOXES[kind]:
                draw.rectangle((*brush.pixel((left, top)), *brush.pixel((right, bottom))), fill=accent)


class Brush:
    """Draws in body units: 1 is the body's height, the origin lies at the middle of the crown.

    A fill is an RGB colour or a :class:`Cloth`. A rim on the side away from the light keeps limbs apart.

    Args:
        size: width and height of the layer in pixels.
        x, top, unit: the origin and the body's height in pixels.
        light: where it comes from, -1: left, 1: right.
    """

    def __init__(self, size: tuple[int, int], x: float, top: float, unit: float, light: int) -> None:
        self.image = Image.new("RGBA", size)
        self.draw = ImageDraw.Draw(self.image)
        self.x, self.top, self.unit, self.light = x, top, unit, light

    def pixel(self, point: Point) -> Point:
        """A point in body units in pixels."""
        return self.x + point[0] * self.unit, self.top + point[1] * self.unit

    def _fill(self, fill, corners, circles=()):
        """Fill a polygon and ``circles`` (x, y, radius), in pixels, through a stencil where it is a cloth."""
        if not isinstance(fill, Cloth):
            _shapes(self.draw, fill, corners, circles)
            return
        xs = [x for x, _ in corners] + [x + s * r for x, _, r in circles for s in (-1, 1)]
        ys = [y for _, y in corners] + [y + s * r for _, y, r in circles for s in (-1, 1)]
        left, top, right, bottom = int(min(xs)), int(min(ys)), int(max(xs)) + 2, int(max(ys)) + 2
        stencil = Image.new("L", (right - left, bottom - top))
        moved = [(x - left, y - top) for x, y in corners], [(x - left, y - top, r) for x, y, r in circles]
        _shapes(ImageDraw.Draw(stencil), 255, *moved)
        self.image.paste(fill.image.crop((left, top, right, bottom)), (left, top), stencil)

    def polygon(self, points: Sequence[Point], fill: Color | Cloth, rim: bool = True) -> None:
        """A closed polygon; with a rim its core is squeezed to 86 % of the width."""
        if rim:
            self.draw.polygon([self.pixel(p) for p in points], fill=shade(fill, 0.7))
            middle = sum(p[0] for p in points) / len(points) + self.light * 0.006
            points = [(middle + 0.86 * (x - middle), y) for x, y in points]
        self._fill(fill, [self.pixel(p) for p in points])

    def ellipse(self, center: Point, rx: float, ry: float, fill: Color, start: int = 0, end: int = 360) -> None:
        """An ellipse or, with angles in degrees, a slice of it."""
        (x, y), rx, ry = self.pixel(center), rx * self.unit, ry * self.unit
        box = (x - rx, y - ry, x + rx, y + ry)
        if (start, end) == (0, 360):
            self.draw.ellipse(box, fill=fill)
        else:
            self.draw.pieslice(box, start, end, fill=fill)

    def limb(self, a: Point, b: Point, ra: float, rb: float, fill: Color | Cloth, rim: bool = True) -> None:
        """A round-ended limb from ``a`` (radius ``ra``) to ``b`` (radius ``rb``)."""
        if rim:
            self._capsule(a, b, ra, rb, shade(fill, 0.7))
            shift = 0.16 * self.light
            a, b = (a[0] + shift * ra, a[1]), (b[0] + shift * rb, b[1])
            ra, rb = 0.8 * ra, 0.8 * rb
        self._capsule(a, b, ra, rb, fill)

    def _capsule(self, a, b, ra, rb, fill):
        (x0, y0), (x1, y1) = self.pixel(a), self.pixel(b)
        ra, rb = ra * self.unit, rb * self.unit
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        nx, ny = (y0 - y1) / length, (x1 - x0) / length
        ends = ((x0, y0, ra), (x1, y1, rb), (x1, y1, -rb), (x0, y0, -ra))
        self._fill(fill, [(x + nx * r, y + ny * r) for x, y, r in ends], ends[:2])


def _shapes(draw, ink, corners: Iterable[Point], circles):
    draw.polygon(corners, fill=ink)
    for x, y, r in circles:
        disc(draw, x, y, r, ink)
