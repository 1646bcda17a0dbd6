"""Shapes in body units on a transparent layer, and the cloth they are cut from."""

import math

from PIL import Image, ImageDraw


def shade(color, factor):
    """``color`` made darker (factor below 1) or lighter (above 1)."""
    return tuple(min(int(c * factor), 255) for c in color)


class Cloth:
    """A patterned cloth as large as the layer; shapes are cut out of it."""

    def __init__(self, brush, kind, color, accent):
        self.color = color
        self.image = Image.new("RGBA", brush.image.size, color + (255,))
        draw = ImageDraw.Draw(self.image)

        def box(left, top, right, bottom):
            x0, y0 = brush.pixel((left, top))
            x1, y1 = brush.pixel((right, bottom))
            draw.rectangle((x0, y0, x1, y1), fill=accent + (255,))

        _PATTERN[kind](box, brush, draw, accent + (255,))


def _stripes(box, *_):
    for i in range(2, 11):
        box(-0.4, 0.056 * i + 0.06, 0.4, 0.056 * i + 0.086)


def _pinstripes(box, *_):
    for i in range(-7, 8):
        box(0.034 * i - 0.007, 0.1, 0.034 * i + 0.007, 0.8)


def _checks(box, *_):
    for i in range(-5, 6):
        for j in range(2, 16):
            if (i + j) % 2:
                box(0.045 * i - 0.022, 0.045 * j, 0.045 * i + 0.023, 0.045 * (j + 1))


def _dots(box, brush, draw, accent):
    for i in range(-5, 6):
        for j in range(3, 15):
            x, y = brush.pixel((0.05 * (i + 0.5 * (j % 2)), 0.05 * j))
            r = 0.015 * brush.unit
            draw.ellipse((x - r, y - r, x + r, y + r), fill=accent)


def _halves(box, *_):
    box(-0.4, 0.33, 0.4, 0.9)


def _band(box, *_):
    box(-0.4, 0.245, 0.4, 0.315)


def _sash(box, brush, draw, accent):
    corners = ((-0.14, 0.15), (-0.06, 0.15), (0.14, 0.5), (0.06, 0.5))
    draw.polygon([brush.pixel(p) for p in corners], fill=accent)


def _logo(box, *_):
    box(-0.052, 0.235, 0.052, 0.325)


_PATTERN = {
    "stripes": _stripes,
    "pinstripes": _pinstripes,
    "checks": _checks,
    "dots": _dots,
    "halves": _halves,
    "band": _band,
    "sash": _sash,
    "logo": _logo,
}


class Brush:
    """Draws in body units: 1 is the body's height, the origin lies at the middle of the crown.

    A fill is an RGB colour or a :class:`Cloth`. Every shape gets a darker rim on the side away from
    the light (``light`` -1: from the left, 1: from the right), which keeps limbs apart.
    """

    def __init__(self, size, x, top, unit, light):
        self.image = Image.new("RGBA", size)
        self.draw = ImageDraw.Draw(self.image)
        self.x, self.top, self.unit, self.light = x, top, unit, light

    def pixel(self, point):
        return self.x + point[0] * self.unit, self.top + point[1] * self.unit

    def _fill(self, fill, corners, circles=()):
        """Fill a polygon and ``circles`` (x, y, radius), in pixels, through a stencil where it is a cloth."""
        if not isinstance(fill, Cloth):
            _shapes(self.draw, fill + (255,), corners, circles)
            return
        xs = [x for x, _ in corners] + [x + s * r for x, _, r in circles for s in (-1, 1)]
        ys = [y for _, y in corners] + [y + s * r for _, y, r in circles for s in (-1, 1)]
        left, top = int(min(xs)), int(min(ys))
        box = (left, top, int(max(xs)) + 2, int(max(ys)) + 2)
        stencil = Image.new("L", (box[2] - left, box[3] - top))
        _shapes(
            ImageDraw.Draw(stencil),
            255,
            [(x - left, y - top) for x, y in corners],
            [(x - left, y - top, r) for x, y, r in circles],
        )
        self.image.paste(fill.image.crop(box), (left, top), stencil)

    def polygon(self, points, fill, rim=True):
        """A closed polygon; with a rim its core is squeezed to 86 % of the width."""
        if rim:
            color = fill.color if isinstance(fill, Cloth) else fill
            self.draw.polygon([self.pixel(p) for p in points], fill=shade(color, 0.7) + (255,))
            middle = sum(p[0] for p in points) / len(points) + self.light * 0.006
            points = [(middle + 0.86 * (x - middle), y) for x, y in points]
        self._fill(fill, [self.pixel(p) for p in points])

    def ellipse(self, center, rx, ry, fill, start=0, end=360):
        """An ellipse or, with angles in degrees, a slice of it."""
        x, y = self.pixel(center)
        box = (x - rx * self.unit, y - ry * self.unit, x + rx * self.unit, y + ry * self.unit)
        if (start, end) == (0, 360):
            self.draw.ellipse(box, fill=fill + (255,))
        else:
            self.draw.pieslice(box, start, end, fill=fill + (255,))

    def limb(self, a, b, ra, rb, fill, rim=True):
        """A round-ended limb from ``a`` (radius ``ra``) to ``b`` (radius ``rb``)."""
        if rim:
            color = fill.color if isinstance(fill, Cloth) else fill
            self._capsule(a, b, ra, rb, shade(color, 0.7))
            shift = 0.16 * self.light
            a, b = (a[0] + shift * ra, a[1]), (b[0] + shift * rb, b[1])
            ra, rb = 0.8 * ra, 0.8 * rb
        self._capsule(a, b, ra, rb, fill)

    def _capsule(self, a, b, ra, rb, fill):
        (x0, y0), (x1, y1) = self.pixel(a), self.pixel(b)
        ra, rb = ra * self.unit, rb * self.unit
        length = math.hypot(x1 - x0, y1 - y0) or 1.0
        nx, ny = (y0 - y1) / length, (x1 - x0) / length
        sides = (
            (x0 + nx * ra, y0 + ny * ra),
            (x1 + nx * rb, y1 + ny * rb),
            (x1 - nx * rb, y1 - ny * rb),
            (x0 - nx * ra, y0 - ny * ra),
        )
        self._fill(fill, sides, ((x0, y0, ra), (x1, y1, rb)))


def _shapes(draw, ink, corners, circles):
    draw.polygon(corners, fill=ink)
    for x, y, r in circles:
        draw.ellipse((x - r, y - r, x + r, y + r), fill=ink)
