"""Draws an identity in a pose, seen from any side.

The body is a small skeleton in three dimensions: ``lateral`` (to the person's left), ``y`` (down from the
crown) and ``forward``, all in body heights, turned by the view and projected along the optical axis.
"""

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image

from .brush import Brush, Cloth, shade
from .identity import Identity, pick


class Pose(NamedTuple):
    """Changes from image to image: angles in radians."""

    yaw: float  # 0 faces the camera, pi shows the back, +-pi/2 the sides
    stride: float
    spread: float
    elbow: float
    phone: bool
    lean: float


def draw_pose(rng: random.Random, view_weights: Sequence[float]) -> Pose:
    """A random pose; ``view_weights`` weigh front, right, back and left."""
    yaw = pick(rng, range(4), view_weights) * math.pi / 2 + rng.gauss(0, 0.32)
    stride, spread, elbow = rng.uniform(-0.4, 0.4), rng.uniform(0.04, 0.22), rng.uniform(0.1, 0.7)
    return Pose(yaw, stride, spread, elbow, phone=rng.random() < 0.12, lean=rng.gauss(0, 0.03))


def draw_person(
    size: tuple[int, int], who: Identity, pose: Pose, x: float, top: float, unit: float, light: int = 1
) -> Image.Image:
    """The person as an RGBA layer; ``size``, ``x``, ``top``, ``unit`` and ``light`` are those of :class:`Brush`."""
    return _Figure(Brush(size, x, top, unit, light), who, pose).draw()


def _outline(*rows):
    """Corners of a shape that is (middle, half its width, y) in each of ``rows``, from above."""
    left, right = [(x - half, y) for x, half, y in rows], [(x + half, y) for x, half, y in rows]
    return [left[0], *right, *left[:0:-1]]


def _between(a, b, share):
    """The point on the way from ``a`` to ``b``."""
    return (1 - share) * a[0] + share * b[0], (1 - share) * a[1] + share * b[1]


class _Figure:
    def __init__(self, brush, who, pose):
        self.brush, self.who, self.pose = brush, who, pose
        self.sin, self.cos = math.sin(pose.yaw), math.cos(pose.yaw)
        plain = who.pattern == "plain" or (who.pattern == "logo" and self.cos < 0.1)
        self.top_cloth = who.upper_color if plain else Cloth(brush, who.pattern, who.upper_color, who.accent)

    def at(self, lateral, y, forward=0.0):
        """Body coordinates to the layer's; the camera looks down a little, so nearer is lower."""
        depth = forward * self.cos - lateral * self.sin
        return lateral * self.cos + forward * self.sin + self.pose.lean * (0.5 - y), y + 0.12 * depth

    def half(self, wide, deep):
        """Half the visible width of a trunk that is ``wide`` from the front and ``deep`` from the side."""
        return math.hypot(wide * self.cos, deep * self.sin) * self.who.build

    def line(self, a, b, ra, rb, fill):
        """A limb without a rim."""
        self.brush.limb(a, b, ra, rb, fill, rim=False)

    def patch(self, wide, top, wide_below, bottom, fill):
        """A flat piece on the chest: half widths and y of its upper and its lower edge."""
        points = [self.at(lateral, y, 0.06) for lateral, y in _outline((0, wide, top), (0, wide_below, bottom))]
        self.brush.polygon(points, fill, rim=False)

    def draw(self):
        far = 1 if self.sin > 0 else -1  # the limb with this sign is the farther one
        if self.cos > 0:
            self.back()
        self.arm(far)
        self.leg(far)
        self.leg(-far)
        if self.who.lower in ("skirt", "long_skirt"):
            self.skirt()
        self.torso()
        if self.cos > 0 and self.who.bag == "backpack":  # its straps
            for x in (-0.066, 0.066):
                self.line(self.at(x, 0.165, 0.04), self.at(x * 1.15, 0.33, 0.05), 0.012, 0.01, self.who.bag_color)
        self.arm(-far)
        self.head()
        if self.cos <= 0:
            self.back()
        return self.brush.image

    def leg(self, side):
        who, limb, swing = self.who, self.brush.limb, self.pose.stride * side
        shin = swing - max(0.0, -swing) * 0.8 - 0.05
        hip = (side * 0.046 * who.build, 0.5, 0.0)
        knee = (hip[0], 0.5 + 0.24 * math.cos(swing), 0.24 * math.sin(swing))
        ankle = (hip[0], knee[1] + 0.215 * math.cos(shin), knee[2] + 0.215 * math.sin(shin))
        a, b, c = self.at(*hip), self.at(*knee), self.at(*ankle)
        dim = 0.82 if side * self.sin > 0.2 else 1.0
        cloth, skin, shoes = (shade(color, dim) for color in (who.lower_color, who.skin, who.shoes))
        bare = {"shorts": 1, "skirt": 2, "long_skirt": 2}.get(who.lower, 0)
        r = who.build * (1.25 if who.lower == "wide" else 1.0)
        limb(b, c, *((0.03, 0.02, skin) if bare else (0.036 * r, 0.03 * r, cloth)))
        limb(a, b, 0.054 * r, 0.038 * r if bare < 2 else 0.034, skin if bare == 2 else cloth)
        if who.lower_stripe and bare < 2:
            end, shift = b if bare else c, side * 0.03 * self.cos
            self.line((a[0] + shift, a[1]), (end[0] + shift * 0.8, end[1]), 0.009, 0.009, who.accent)
        toe = self.at(ankle[0] + side * 0.01, ankle[1] + 0.014, ankle[2] + 0.07)
        if who.boots:
            limb(_between(b, c, 0.5), c, 0.034, 0.03, shoes)
        self.line((c[0], c[1] + 0.008), toe, 0.027, 0.023, shoes)

    def skirt(self):
        hem = 0.68 if self.who.lower == "skirt" else 0.86
        top, bottom = self.half(0.082, 0.066), self.half(0.115, 0.1) * (1 if hem < 0.7 else 1.12)
        (x, _), (x1, _) = self.at(0, 0.46), self.at(0, hem)
        sway = self.pose.stride * self.sin * 0.03
        left, right = x1 - bottom + sway, x1 + bottom + sway
        self.brush.polygon(((x - top, 0.46), (x + top, 0.46), (right, hem), (left, hem)), self.who.lower_color)
        if self.who.lower_stripe:
            high, low = hem - 0.03, hem - 0.01
            self.brush.polygon(((left, high), (right, high), (right, low), (left, low)), self.who.accent, rim=False)

    def torso(self):
        who, limb = self.who, self.brush.limb
        hem = {"coat": 0.7, "hoodie": 0.54, "jacket": 0.54, "sweater": 0.53}.get(who.upper, 0.515)
        shoulder, waist = self.half(0.118, 0.066), self.half(0.088, 0.066)
        hip = self.half(0.098, 0.076) * (1.12 if who.upper == "coat" else 1.0)
        (x0, _), (x1, _), (x2, _) = self.at(0, 0.17), self.at(0, 0.38), self.at(0, hem)
        outline = _outline((x0, 0.03, 0.145), (x0, shoulder, 0.178), (x1, waist, 0.37), (x2, hip, hem))
        self.brush.polygon(outline, self.top_cloth)
        if who.upper in ("jacket", "coat") and self.cos < 0.15:  # the seam of the back
            self.line(self.at(0, 0.2, -0.06), self.at(0, hem - 0.02, -0.06), 0.003, 0.003, shade(who.upper_color, 0.75))
        elif who.upper in ("jacket", "coat"):  # open over a light or dark shirt
            shirt = (226, 226, 222) if sum(who.upper_color) < 330 else (52, 54, 62)
            self.patch(0.036, 0.15, 0.036 * 0.8, hem - 0.01, shirt)
        elif who.upper == "hoodie":
            dark = shade(who.upper_color, 0.62)
            if self.cos > 0.2:
                self.patch(0.05, 0.43, 0.07, 0.5, dark)
            limb(self.at(-0.04, 0.16, -0.02), self.at(0.04, 0.16, -0.02), 0.022, 0.022, dark)
        if who.scarf:
            limb(self.at(-0.035, 0.155), self.at(0.035, 0.155), 0.024, 0.024, who.scarf_color)
            if self.cos > 0:
                limb(self.at(0.03, 0.165, 0.06), self.at(0.035, 0.3, 0.07), 0.017, 0.017, who.scarf_color)

    def arm(self, side):
        who, pose, limb = self.who, self.pose, self.brush.limb
        swing = -pose.stride * side * 0.9
        bent = swing + (1.9 if pose.phone and side > 0 else pose.elbow)
        out = side * 0.155 * math.sin(pose.spread)
        shoulder = (side * 0.108 * who.build, 0.19, 0.0)
        elbow = (shoulder[0] + out, 0.19 + 0.155 * math.cos(swing), 0.155 * math.sin(swing))
        hand = (elbow[0] + 0.5 * out, elbow[1] + 0.15 * math.cos(bent), elbow[2] + 0.15 * math.sin(bent))
        a, b, c = self.at(*shoulder), self.at(*elbow), self.at(*hand)
        far = side * self.sin > 0.25
        dim = 0.8 if far else 0.94
        skin, cloth = shade(who.skin, dim), self.top_cloth
        if far or not isinstance(cloth, Cloth) or who.pattern in ("logo", "sash"):
            cloth = shade(who.upper_color, dim)
        sleeve = skin if who.upper in ("tshirt", "tank") else cloth
        r = 0.9 + 0.5 * (who.build - 1)
        self.line(c, c, 0.021, 0.021, skin)
        limb(b, c, 0.027 * r, 0.021 * r, sleeve)
        limb(a, b, 0.038 * r, 0.03 * r, sleeve)
        if who.upper == "tshirt":
            limb(a, _between(a, b, 0.65), 0.043 * r, 0.04 * r, cloth)
        if side < 0:
            self.carried(*c)

    def carried(self, hand_x, hand_y):
        """What hangs from the right hand or the right shoulder."""
        who, color = self.who, self.who.bag_color
        if who.bag == "hand":
            w, y = 0.035 + 0.035 * abs(self.sin), hand_y + 0.05
            for x in (hand_x - w * 0.5, hand_x + w * 0.5):
                self.line((x, y), (hand_x, hand_y), 0.005, 0.005, color)
            self.brush.polygon(_outline((hand_x, w, y), (hand_x, w * 1.1, hand_y + 0.15)), color)
        elif who.bag == "suitcase":
            x, y = self.at(-0.15, 0.8, -0.04)
            w = 0.05 + 0.03 * abs(self.sin)
            self.line((hand_x, hand_y), (x, y - 0.08), 0.005, 0.005, (60, 60, 64))
            self.brush.polygon(_outline((x, w, y - 0.09), (x, w, y + 0.14)), color)
        elif who.bag == "shoulder":
            x, y = self.at(-0.125 * who.build, 0.5, 0.02)
            w = 0.045 + 0.03 * abs(self.sin)
            self.line(self.at(0.07, 0.165, 0.05 * self.cos), (x, y - 0.04), 0.008, 0.008, color)
            self.brush.polygon(_outline((x, w, y - 0.05), (x, w, y + 0.07)), color)

    def back(self):
        """Hair on the back and, over it, a backpack."""
        dark = shade(self.who.hair, 0.85)
        if self.who.hair_style == "long":
            (x, _), w = self.at(0, 0.1, -0.03), 0.056 * self.who.head
            self.brush.polygon(_outline((x, w, 0.06), (x, 1.15 * w, 0.22)), dark)
        elif self.who.hair_style == "ponytail":
            self.line(self.at(0, 0.06, -0.055), self.at(0, 0.2, -0.075), 0.02, 0.014, dark)
        if self.who.bag == "backpack":
            (x, _), w = self.at(0, 0.3, -0.095), math.hypot(0.092 * self.cos, 0.055 * self.sin)
            outline = _outline((x, 0.7 * w, 0.165), (x, w, 0.2), (x, w, 0.42), (x, 0.85 * w, 0.445))
            self.brush.polygon(outline, self.who.bag_color)
            pocket = _outline((x, 0.6 * w, 0.32), (x, 0.6 * w, 0.41))
            self.brush.polygon(pocket, shade(self.who.bag_color, 0.62), rim=False)

    def head(self):
        who, ellipse, k = self.who, self.brush.ellipse, self.who.head
        self.line(self.at(0, 0.12), self.at(0, 0.16), 0.026, 0.03, shade(who.skin, 0.82))
        x, _ = self.at(0, 0.072, -0.008)
        scalp = who.skin if who.hair_style == "bald" else who.hair
        puff = 1.4 if who.hair_style == "afro" else 1.0
        ellipse((x, 0.068 - 0.008 * (puff > 1)), 0.052 * k * puff, 0.067 * k * (0.5 + 0.5 * puff), scalp)
        if who.hair_style == "bun":
            ellipse(self.at(0, 0.008, -0.03), 0.026, 0.024, scalp)
        if self.cos > -0.45:
            width = 0.042 * k * (1.0 if self.cos > 0.3 else 0.82)
            ellipse((self.at(0, 0.083, 0.022)[0], 0.084), width, 0.053 * k, who.skin)
        if self.cos > 0.25:
            for lateral in (-0.017, 0.017):
                ellipse((self.at(lateral, 0, 0.035)[0], 0.08), 0.006, 0.005, (40, 30, 30))
            ellipse((self.at(0, 0, 0.038)[0], 0.112), 0.012, 0.004, shade(who.skin, 0.65))
        if who.hat != "none":
            self.hat(x)

    def hat(self, x):
        kind, k = self.who.hat, self.who.head
        color, dark = self.who.hat_color, shade(self.who.hat_color, 0.75)
        if kind == "brim":
            self.brush.ellipse((x, 0.052), 0.088 * k, 0.018, dark)
        self.brush.ellipse((x, 0.056), 0.057 * k, 0.068 * k, color, 180, 360)
        if kind == "cap":
            self.line(self.at(0, 0.053, 0.02), self.at(0, 0.055, 0.085), 0.011, 0.009, dark)
        elif kind == "beanie":
            band = _outline((x, 0.058 * k, 0.038), (x, 0.058 * k, 0.062))
            self.brush.polygon(band, shade(color, 0.7), rim=False)
