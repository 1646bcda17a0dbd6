"""Draws an identity in a pose, seen from any side.

The body is a small skeleton in three dimensions: ``lateral`` (to the person's left), ``y`` (down from the
crown) and ``forward``, all in body heights, turned by the view and projected along the optical axis.
"""

import dataclasses
import math

from .brush import Brush, Cloth, shade
from .identity import pick


@dataclasses.dataclass(frozen=True)
class Pose:
    """Changes from image to image: angles in radians.

    ``yaw`` 0 faces the camera, pi shows the back, +-pi/2 the sides.
    """

    yaw: float
    stride: float
    spread: float
    elbow: float
    phone: bool
    lean: float


def draw_pose(rng, view_weights):
    """A random pose; ``view_weights`` weigh front, right, back and left."""
    view = pick(rng, range(4), view_weights)
    return Pose(
        yaw=view * math.pi / 2 + rng.gauss(0, 0.32),
        stride=rng.uniform(-0.4, 0.4),
        spread=rng.uniform(0.04, 0.22),
        elbow=rng.uniform(0.1, 0.7),
        phone=rng.random() < 0.12,
        lean=rng.gauss(0, 0.03),
    )


def draw_person(size, who, pose, x, top, unit, light=1):
    """The person as an RGBA layer.

    Args:
        size: of the layer in pixels, (width, height).
        who: an ``Identity``.
        pose: a :class:`Pose`.
        x, top: of the middle of the crown, in pixels.
        unit: the body's height in pixels.
        light: -1 or 1, the side the light comes from.
    """
    return _Figure(Brush(size, x, top, unit, light), who, pose).draw()


def _box(left, top, right, bottom):
    return (left, top), (right, top), (right, bottom), (left, bottom)


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

    def draw(self):
        # The limb with this sign is the farther one.
        far = 1 if self.sin > 0 else -1
        facing = self.cos > 0
        if facing:
            self.hair_behind()
            self.backpack()
        self.arm(far)
        self.leg(far)
        self.leg(-far)
        self.skirt()
        self.torso()
        if facing:
            self.straps()
            self.arm(-far)
            self.head()
        else:
            self.arm(-far)
            self.head()
            self.hair_behind()
            self.backpack()
        return self.brush.image

    def leg(self, side):
        who, swing = self.who, self.pose.stride * side
        shin = swing - max(0.0, -swing) * 0.8 - 0.05
        hip = (side * 0.046 * who.build, 0.5, 0.0)
        knee = (hip[0], 0.5 + 0.24 * math.cos(swing), 0.24 * math.sin(swing))
        ankle = (hip[0], knee[1] + 0.215 * math.cos(shin), knee[2] + 0.215 * math.sin(shin))
        a, b, c = self.at(*hip), self.at(*knee), self.at(*ankle)
        dim = 0.82 if side * self.sin > 0.2 else 1.0
        cloth, skin = shade(who.lower_color, dim), shade(who.skin, dim)
        bare = {"shorts": 1, "skirt": 2, "long_skirt": 2}.get(who.lower, 0)
        r = who.build * (1.25 if who.lower == "wide" else 1.0)
        self.brush.limb(
            b, c, 0.036 * r if bare == 0 else 0.03, 0.03 * r if bare == 0 else 0.02, skin if bare else cloth
        )
        self.brush.limb(a, b, 0.054 * r, 0.038 * r if bare < 2 else 0.034, skin if bare == 2 else cloth)
        if who.lower_stripe and bare < 2:
            end = c if bare == 0 else b
            shift = side * 0.03 * self.cos
            self.brush.limb((a[0] + shift, a[1]), (end[0] + shift * 0.8, end[1]), 0.009, 0.009, who.accent, rim=False)
        toe = self.at(ankle[0] + side * 0.01, ankle[1] + 0.014, ankle[2] + 0.07)
        if who.boots:
            middle = (0.5 * b[0] + 0.5 * c[0], 0.5 * b[1] + 0.5 * c[1])
            self.brush.limb(middle, c, 0.034, 0.03, shade(who.shoes, dim))
        self.brush.limb((c[0], c[1] + 0.008), toe, 0.027, 0.023, shade(who.shoes, dim), rim=False)

    def skirt(self):
        if self.who.lower not in ("skirt", "long_skirt"):
            return
        hem = 0.68 if self.who.lower == "skirt" else 0.86
        top, bottom = self.half(0.082, 0.066), self.half(0.115, 0.1) * (1 if hem < 0.7 else 1.12)
        (x, _), (x1, _) = self.at(0, 0.46), self.at(0, hem)
        sway = self.pose.stride * self.sin * 0.03
        points = ((x - top, 0.46), (x + top, 0.46), (x1 + bottom + sway, hem), (x1 - bottom + sway, hem))
        self.brush.polygon(points, self.who.lower_color)
        if self.who.lower_stripe:
            points = (
                (x1 - bottom + sway, hem - 0.03),
                (x1 + bottom + sway, hem - 0.03),
                (x1 + bottom + sway, hem - 0.01),
                (x1 - bottom + sway, hem - 0.01),
            )
            self.brush.polygon(points, self.who.accent, rim=False)

    def torso(self):
        who = self.who
        hem = {"coat": 0.7, "hoodie": 0.54, "jacket": 0.54, "sweater": 0.53}.get(who.upper, 0.515)
        shoulder, waist = self.half(0.118, 0.066), self.half(0.088, 0.066)
        hip = self.half(0.098, 0.076) * (1.12 if who.upper == "coat" else 1.0)
        (x0, _), (x1, _), (x2, _) = self.at(0, 0.17), self.at(0, 0.38), self.at(0, hem)
        outline = [
            (x0 - 0.03, 0.145),
            (x0 + 0.03, 0.145),
            (x0 + shoulder, 0.178),
            (x1 + waist, 0.37),
            (x2 + hip, hem),
            (x2 - hip, hem),
            (x1 - waist, 0.37),
            (x0 - shoulder, 0.178),
        ]
        self.brush.polygon(outline, self.top_cloth)
        if who.upper in ("jacket", "coat"):
            self.opening(hem)
        elif who.upper == "hoodie":
            dark = shade(who.upper_color, 0.62)
            if self.cos > 0.2:
                self.brush.polygon(
                    [
                        self.at(-0.05, 0.43, 0.06),
                        self.at(0.05, 0.43, 0.06),
                        self.at(0.07, 0.5, 0.06),
                        self.at(-0.07, 0.5, 0.06),
                    ],
                    dark,
                    rim=False,
                )
            self.brush.limb(self.at(-0.04, 0.16, -0.02), self.at(0.04, 0.16, -0.02), 0.022, 0.022, dark)
        if who.scarf:
            self.brush.limb(self.at(-0.035, 0.155), self.at(0.035, 0.155), 0.024, 0.024, who.scarf_color)
            if self.cos > 0:
                self.brush.limb(self.at(0.03, 0.165, 0.06), self.at(0.035, 0.3, 0.07), 0.017, 0.017, who.scarf_color)

    def opening(self, hem):
        """An open front over a light or dark shirt, or the seam of the back."""
        if self.cos < 0.15:
            seam = shade(self.who.upper_color, 0.75)
            self.brush.limb(self.at(0, 0.2, -0.06), self.at(0, hem - 0.02, -0.06), 0.003, 0.003, seam, rim=False)
            return
        shirt = (226, 226, 222) if sum(self.who.upper_color) < 330 else (52, 54, 62)
        width = 0.036
        self.brush.polygon(
            [
                self.at(-width, 0.15, 0.06),
                self.at(width, 0.15, 0.06),
                self.at(width * 0.8, hem - 0.01, 0.06),
                self.at(-width * 0.8, hem - 0.01, 0.06),
            ],
            shirt,
            rim=False,
        )

    def arm(self, side):
        who, pose = self.who, self.pose
        swing = -pose.stride * side * 0.9
        bend = 1.9 if pose.phone and side > 0 else pose.elbow
        shoulder = (side * 0.108 * who.build, 0.19, 0.0)
        out = side * 0.155 * math.sin(pose.spread)
        elbow = (shoulder[0] + out, 0.19 + 0.155 * math.cos(swing), 0.155 * math.sin(swing))
        hand = (
            elbow[0] + 0.5 * out,
            elbow[1] + 0.15 * math.cos(swing + bend),
            elbow[2] + 0.15 * math.sin(swing + bend),
        )
        a, b, c = self.at(*shoulder), self.at(*elbow), self.at(*hand)
        far = side * self.sin > 0.25
        dim = 0.8 if far else 0.94
        skin = shade(who.skin, dim)
        cloth = self.top_cloth
        if far or not isinstance(cloth, Cloth) or who.pattern in ("logo", "sash"):
            cloth = shade(who.upper_color, dim)
        short = who.upper in ("tshirt", "tank")
        r = 0.9 + 0.5 * (who.build - 1)
        self.brush.limb(c, c, 0.021, 0.021, skin, rim=False)
        self.brush.limb(b, c, 0.027 * r, 0.021 * r, skin if short else cloth)
        self.brush.limb(a, b, 0.038 * r, 0.03 * r, skin if short else cloth)
        if who.upper == "tshirt":
            middle = (0.35 * a[0] + 0.65 * b[0], 0.35 * a[1] + 0.65 * b[1])
            self.brush.limb(a, middle, 0.043 * r, 0.04 * r, cloth)
        if side < 0:
            self.carried(c, hand)

    def carried(self, c, hand):
        """What hangs from the right hand or the right shoulder."""
        who, brush = self.who, self.brush
        if who.bag == "hand":
            w = 0.035 + 0.035 * abs(self.sin)
            brush.limb((c[0] - w * 0.5, c[1] + 0.05), (c[0], c[1]), 0.005, 0.005, who.bag_color, rim=False)
            brush.limb((c[0] + w * 0.5, c[1] + 0.05), (c[0], c[1]), 0.005, 0.005, who.bag_color, rim=False)
            brush.polygon(
                (
                    (c[0] - w, c[1] + 0.05),
                    (c[0] + w, c[1] + 0.05),
                    (c[0] + w * 1.1, c[1] + 0.15),
                    (c[0] - w * 1.1, c[1] + 0.15),
                ),
                who.bag_color,
            )
        elif who.bag == "suitcase":
            x, y = self.at(-0.15, 0.8, -0.04)
            w = 0.05 + 0.03 * abs(self.sin)
            brush.limb(c, (x, y - 0.08), 0.005, 0.005, (60, 60, 64), rim=False)
            brush.polygon(_box(x - w, y - 0.09, x + w, y + 0.14), who.bag_color)
        elif who.bag == "shoulder":
            x, y = self.at(-0.125 * who.build, 0.5, 0.02)
            w = 0.045 + 0.03 * abs(self.sin)
            brush.limb(self.at(0.07, 0.165, 0.05 * self.cos), (x, y - 0.04), 0.008, 0.008, who.bag_color, rim=False)
            brush.polygon(_box(x - w, y - 0.05, x + w, y + 0.07), who.bag_color)

    def backpack(self):
        if self.who.bag != "backpack":
            return
        x, _ = self.at(0, 0.3, -0.095)
        w = math.hypot(0.092 * self.cos, 0.055 * self.sin)
        color = self.who.bag_color
        self.brush.polygon(
            (
                (x - 0.7 * w, 0.165),
                (x + 0.7 * w, 0.165),
                (x + w, 0.2),
                (x + w, 0.42),
                (x + 0.85 * w, 0.445),
                (x - 0.85 * w, 0.445),
                (x - w, 0.42),
                (x - w, 0.2),
            ),
            color,
        )
        self.brush.polygon(_box(x - 0.6 * w, 0.32, x + 0.6 * w, 0.41), shade(color, 0.62), rim=False)

    def straps(self):
        if self.who.bag != "backpack":
            return
        for lateral in (-0.066, 0.066):
            self.brush.limb(
                self.at(lateral, 0.165, 0.04),
                self.at(lateral * 1.15, 0.33, 0.05),
                0.012,
                0.01,
                self.who.bag_color,
                rim=False,
            )

    def hair_behind(self):
        who, style = self.who, self.who.hair_style
        dark = shade(who.hair, 0.85)
        if style == "long":
            x, _ = self.at(0, 0.1, -0.03)
            w = 0.056 * who.head
            hem = 1.15 * w
            self.brush.polygon(((x - w, 0.06), (x + w, 0.06), (x + hem, 0.22), (x - hem, 0.22)), dark)
        elif style == "ponytail":
            self.brush.limb(self.at(0, 0.06, -0.055), self.at(0, 0.2, -0.075), 0.02, 0.014, dark, rim=False)

    def head(self):
        who, brush, k = self.who, self.brush, self.who.head
        brush.limb(self.at(0, 0.12), self.at(0, 0.16), 0.026, 0.03, shade(who.skin, 0.82), rim=False)
        middle = self.at(0, 0.072, -0.008)
        scalp = who.skin if who.hair_style == "bald" else who.hair
        puff = 1.4 if who.hair_style == "afro" else 1.0
        tall = 0.067 * k * (0.5 + 0.5 * puff)
        brush.ellipse((middle[0], 0.068 - 0.008 * (puff > 1)), 0.052 * k * puff, tall, scalp)
        if who.hair_style == "bun":
            brush.ellipse(self.at(0, 0.008, -0.03), 0.026, 0.024, scalp)
        if self.cos > -0.45:
            center = self.at(0, 0.083, 0.022)[0]
            width = 0.042 * k * (1.0 if self.cos > 0.3 else 0.82)
            brush.ellipse((center, 0.084), width, 0.053 * k, who.skin)
        if self.cos > 0.25:
            for lateral in (-0.017, 0.017):
                brush.ellipse((self.at(lateral, 0, 0.035)[0], 0.08), 0.006, 0.005, (40, 30, 30))
            brush.ellipse((self.at(0, 0, 0.038)[0], 0.112), 0.012, 0.004, shade(who.skin, 0.65))
        self.hat(middle[0])

    def hat(self, x):
        who, brush, k = self.who, self.brush, self.who.head
        if who.hat == "none":
            return
        if who.hat == "brim":
            brush.ellipse((x, 0.052), 0.088 * k, 0.018, shade(who.hat_color, 0.75))
        brush.ellipse((x, 0.056), 0.057 * k, 0.068 * k, who.hat_color, 180, 360)
        if who.hat == "cap":
            brush.limb(
                self.at(0, 0.053, 0.02), self.at(0, 0.055, 0.085), 0.011, 0.009, shade(who.hat_color, 0.75), rim=False
            )
        elif who.hat == "beanie":
            band = _box(x - 0.058 * k, 0.038, x + 0.058 * k, 0.062)
            brush.polygon(band, shade(who.hat_color, 0.7), rim=False)
