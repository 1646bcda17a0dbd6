"""Who is who: the items an identity wears, and the groups of look-alikes."""

import dataclasses
import functools
import random

SKIN = ((246, 212, 186), (232, 190, 160), (205, 155, 120), (160, 110, 78), (110, 74, 52), (72, 50, 38))
HAIR = ((22, 18, 18), (52, 34, 24), (98, 64, 38), (206, 168, 98), (150, 150, 152), (146, 66, 34))
CLOTH = (
    (26, 26, 30),
    (66, 68, 74),
    (146, 148, 152),
    (236, 236, 232),
    (32, 44, 92),
    (44, 92, 172),
    (140, 184, 222),
    (186, 36, 42),
    (102, 24, 38),
    (38, 118, 62),
    (94, 100, 54),
    (204, 182, 140),
    (116, 78, 50),
    (232, 196, 52),
    (226, 120, 36),
    (228, 150, 176),
    (108, 60, 140),
    (44, 138, 140),
)
# Real wardrobes are mostly dark and grey, trousers more so.
UPPER_WEIGHT = (3, 2, 2, 3, 2, 2, 2, 2, 1.5, 1.5, 1.5, 1.5, 1.5, 1.2, 1.2, 1.2, 1.2, 1.2)
LOWER_WEIGHT = (4, 3, 2.5, 2, 4, 3, 1.5, 1, 1, 1, 1.5, 2, 1.5, 0.6, 0.6, 0.6, 0.6, 0.6)
SHOES = ((24, 24, 26), (240, 240, 238), (120, 74, 44), (196, 40, 44), (52, 84, 168), (226, 196, 60))

UPPERS = ("tshirt", "sweater", "jacket", "hoodie", "coat", "tank")
PATTERNS = ("plain", "stripes", "pinstripes", "checks", "dots", "halves", "band", "sash", "logo")
LOWERS = ("trousers", "wide", "shorts", "skirt", "long_skirt")
HAIR_STYLES = ("short", "bald", "long", "bun", "ponytail", "afro")
HATS = ("none", "cap", "beanie", "brim")
BAGS = ("none", "backpack", "shoulder", "hand", "suitcase")


@dataclasses.dataclass(frozen=True)
class Identity:
    """What stays with a person from camera to camera; colours are RGB from 0 to 255."""

    build: float
    head: float
    skin: tuple
    hair: tuple
    hair_style: str
    hat: str
    hat_color: tuple
    upper: str
    upper_color: tuple
    pattern: str
    accent: tuple
    lower: str
    lower_color: tuple
    lower_stripe: bool
    shoes: tuple
    boots: bool
    bag: str
    bag_color: tuple
    scarf: bool
    scarf_color: tuple


def stream(*keys):
    """An independent random stream for the integers ``keys``.

    Python's own generator: its numbers are the same on every machine, and it is ready 30 times sooner than
    numpy's, which matters with three streams an image.
    """
    return random.Random("/".join(map(str, keys)))


def shuffled(rng, count):
    """The numbers below ``count`` in random order."""
    return rng.sample(range(count), count)


def pick(rng, values, weights=None):
    """One of ``values``, by its weight."""
    return rng.choices(values, weights)[0]


def _distance(a, b):
    return sum(abs(x - y) for x, y in zip(a, b))


def _color(rng, palette, weights=None, away_from=()):
    """A palette colour, slightly shifted, that stands out from the colours ``away_from``."""
    for _ in range(50):
        color = pick(rng, palette, weights)
        if all(_distance(color, other) > 130 for other in away_from):
            break
    return tuple(int(min(max(c + rng.randrange(-10, 11), 0), 255)) for c in color)


def _draw_identity(rng):
    upper_color = _color(rng, CLOTH, UPPER_WEIGHT)
    lower_color = _color(rng, CLOTH, LOWER_WEIGHT)
    return Identity(
        build=rng.uniform(0.86, 1.22),
        head=rng.uniform(0.94, 1.08),
        skin=_color(rng, SKIN),
        hair=_color(rng, HAIR, (5, 4, 3, 2, 1.5, 1)),
        hair_style=pick(rng, HAIR_STYLES, (6, 1, 4, 1, 2, 1)),
        hat=pick(rng, HATS, (10, 2, 1.5, 1)),
        hat_color=_color(rng, CLOTH),
        upper=pick(rng, UPPERS, (4, 3, 3, 2.5, 2, 1)),
        upper_color=upper_color,
        pattern=pick(rng, PATTERNS, (6, 2, 1, 1.5, 1, 1.5, 1.5, 1, 2)),
        accent=_color(rng, CLOTH, away_from=(upper_color,)),
        lower=pick(rng, LOWERS, (7, 1.5, 2.5, 1.5, 1)),
        lower_color=lower_color,
        lower_stripe=rng.random() < 0.15,
        shoes=_color(rng, SHOES, (5, 4, 2, 1, 1, 0.7)),
        boots=rng.random() < 0.15,
        bag=pick(rng, BAGS, (6, 4, 2.5, 2, 1)),
        bag_color=_color(rng, CLOTH, away_from=(upper_color,)),
        scarf=rng.random() < 0.12,
        scarf_color=_color(rng, CLOTH, away_from=(upper_color,)),
    )


def _other(rng, values, old):
    return pick(rng, [value for value in values if value != old])


_SHORT_SLEEVES, _LONG_SLEEVES = ("tshirt", "tank"), ("sweater", "jacket", "coat")
# How one member of a group of look-alikes differs from the group: one item, on one part of the body.
_CHANGES = {
    "hair": lambda rng, p: {
        "hair": _color(rng, HAIR, away_from=(p.hair,)),
        "hair_style": _other(rng, HAIR_STYLES, p.hair_style),
    },
    "hat": lambda rng, p: {
        "hat": _other(rng, HATS, p.hat),
        "hat_color": _color(rng, CLOTH, away_from=(p.hair, p.hat_color)),
    },
    "pattern": lambda rng, p: {
        "pattern": _other(rng, PATTERNS, p.pattern),
        "accent": _color(rng, CLOTH, away_from=(p.upper_color,)),
    },
    "upper": lambda rng, p: {"upper": pick(rng, _LONG_SLEEVES if p.upper in _SHORT_SLEEVES else _SHORT_SLEEVES)},
    "lower": lambda rng, p: {
        "lower": pick(rng, ("trousers",) if p.lower in ("shorts", "skirt") else ("shorts", "skirt"))
    },
    "lower_color": lambda rng, p: {"lower_color": _color(rng, CLOTH, LOWER_WEIGHT, away_from=(p.lower_color,))},
    "shoes": lambda rng, p: {"shoes": _color(rng, SHOES, away_from=(p.shoes,)), "boots": not p.boots},
    "bag": lambda rng, p: {
        "bag": _other(rng, BAGS, p.bag),
        "bag_color": _color(rng, CLOTH, away_from=(p.upper_color, p.bag_color)),
    },
}


def id_ranges(spec):
    """First identity number (from 1) and count of the sets ``train``, ``test`` and ``distractor``."""
    first = 1
    ranges = {}
    counts = {"train": spec.train_ids, "test": spec.test_ids, "distractor": spec.distractor_ids}
    for name, count in counts.items():
        ranges[name] = (first, count)
        first += count
    return ranges


def lookalikes(spec, pid):
    """The identity numbers of the group of look-alikes that ``pid`` belongs to; ``(pid,)`` for a loner."""
    for first, count in id_ranges(spec).values():
        if first <= pid < first + count:
            size = spec.lookalike_group
            grouped = int(round(spec.lookalike_share * count)) // size * size
            position = pid - first
            if position >= grouped:
                return (pid,)
            start = first + position // size * size
            return tuple(range(start, start + size))
    last = spec.train_ids + spec.test_ids + spec.distractor_ids
    raise ValueError(f"there is no identity {pid}; the spec has 1 to {last}")


@functools.lru_cache(maxsize=4096)
def identity(spec, pid):
    """What identity number ``pid`` looks like: an :class:`Identity`.

    The first of a group of look-alikes is drawn freely, each other one changes one item of the first, all
    in different places: two of a group differ in one or two items.
    """
    group = lookalikes(spec, pid)
    base = _draw_identity(stream(spec.seed, 1, group[0]))
    if pid == group[0]:
        return base
    names = list(_CHANGES)
    order = shuffled(stream(spec.seed, 2, group[0]), len(names))
    change = _CHANGES[names[order[pid - group[0] - 1]]]
    return dataclasses.replace(base, **change(stream(spec.seed, 3, pid), base))
