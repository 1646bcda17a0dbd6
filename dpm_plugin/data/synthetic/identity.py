"""Who is who: the items an identity wears, and the groups of look-alikes."""

import dataclasses
import functools
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from .brush import Color
from .spec import SyntheticSpec

T = TypeVar("T")


def _palette(colors: str) -> tuple[Color, ...]:
    return tuple(tuple(bytes.fromhex(color)) for color in colors.split())


SKIN = _palette("f6d4ba e8bea0 cd9b78 a06e4e 6e4a34 483226")
HAIR = _palette("161212 342218 624026 cea862 969698 924222")
SHOES = _palette("18181a f0f0ee 784a2c c4282c 3454a8 e2c43c")
CLOTH = _palette(
    "1a1a1e 42444a 929498 ecece8 202c5c 2c5cac 8cb8de ba242a 661826 "
    "26763e 5e6436 ccb68c 744e32 e8c434 e27824 e496b0 6c3c8c 2c8a8c"
)
# Real wardrobes are mostly dark and grey, trousers more so.
UPPER_WEIGHT = (3, 2, 2, 3, 2, 2, 2, 2, 1.5, 1.5, 1.5, 1.5, 1.5, 1.2, 1.2, 1.2, 1.2, 1.2)
LOWER_WEIGHT = (4, 3, 2.5, 2, 4, 3, 1.5, 1, 1, 1, 1.5, 2, 1.5, 0.6, 0.6, 0.6, 0.6, 0.6)

# Item -> its weight among all.
UPPERS = {"tshirt": 4, "sweater": 3, "jacket": 3, "hoodie": 2.5, "coat": 2, "tank": 1}
PATTERNS = dict(plain=6, stripes=2, pinstripes=1, checks=1.5, dots=1, halves=1.5, band=1.5, sash=1, logo=2)
LOWERS = {"trousers": 7, "wide": 1.5, "shorts": 2.5, "skirt": 1.5, "long_skirt": 1}
HAIR_STYLES = {"short": 6, "bald": 1, "long": 4, "bun": 1, "ponytail": 2, "afro": 1}
HATS = {"none": 10, "cap": 2, "beanie": 1.5, "brim": 1}
BAGS = {"none": 6, "backpack": 4, "shoulder": 2.5, "hand": 2, "suitcase": 1}


def stream(*keys: int | str) -> random.Random:
    """An independent random stream for the numbers and words ``keys``, the same on every machine."""
    # Python's own generator is ready 30 times sooner than numpy's, which matters with three streams an image.
    return random.Random("/".join(map(str, keys)))


def pick(rng: random.Random, values: Mapping[T, float] | Sequence[T], weights: Sequence[float] | None = None) -> T:
    """One of ``values``, by its weight; a mapping holds the weights."""
    if isinstance(values, Mapping):
        weights = list(values.values())
    return rng.choices(list(values), weights)[0]


def _color(rng, palette, weights=None, away_from=()):
    """A palette colour, slightly shifted, that stands out from the colours ``away_from``."""
    for _ in range(50):
        color = pick(rng, palette, weights)
        if all(sum(abs(x - y) for x, y in zip(color, other)) > 130 for other in away_from):
            break
    return tuple(min(max(c + rng.randrange(-10, 11), 0), 255) for c in color)


def _drawn(draw: Callable[[random.Random, Color], Any]) -> Any:
    return dataclasses.field(metadata={"draw": draw})


@dataclasses.dataclass(frozen=True)
class Identity:
    """What stays with a person from camera to camera.

    Each field stands with how it is drawn, in this order, from a random stream and the upper garment's colour.
    """

    upper_color: Color = _drawn(lambda rng, _: _color(rng, CLOTH, UPPER_WEIGHT))
    lower_color: Color = _drawn(lambda rng, _: _color(rng, CLOTH, LOWER_WEIGHT))
    build: float = _drawn(lambda rng, _: rng.uniform(0.86, 1.22))
    head: float = _drawn(lambda rng, _: rng.uniform(0.94, 1.08))
    skin: Color = _drawn(lambda rng, _: _color(rng, SKIN))
    hair: Color = _drawn(lambda rng, _: _color(rng, HAIR, (5, 4, 3, 2, 1.5, 1)))
    hair_style: str = _drawn(lambda rng, _: pick(rng, HAIR_STYLES))
    hat: str = _drawn(lambda rng, _: pick(rng, HATS))
    hat_color: Color = _drawn(lambda rng, _: _color(rng, CLOTH))
    upper: str = _drawn(lambda rng, _: pick(rng, UPPERS))
    pattern: str = _drawn(lambda rng, _: pick(rng, PATTERNS))
    accent: Color = _drawn(lambda rng, upper: _color(rng, CLOTH, away_from=(upper,)))
    lower: str = _drawn(lambda rng, _: pick(rng, LOWERS))
    lower_stripe: bool = _drawn(lambda rng, _: rng.random() < 0.15)
    shoes: Color = _drawn(lambda rng, _: _color(rng, SHOES, (5, 4, 2, 1, 1, 0.7)))
    boots: bool = _drawn(lambda rng, _: rng.random() < 0.15)
    bag: str = _drawn(lambda rng, _: pick(rng, BAGS))
    bag_color: Color = _drawn(lambda rng, upper: _color(rng, CLOTH, away_from=(upper,)))
    scarf: bool = _drawn(lambda rng, _: rng.random() < 0.12)
    scarf_color: Color = _drawn(lambda rng, upper: _color(rng, CLOTH, away_from=(upper,)))


_ITEMS = ("hair", "hat", "pattern", "upper", "lower", "lower_color", "shoes", "bag")


def _change(rng, item, who):
    """Fields that set one member of a group of look-alikes apart from ``who``: one item, on one part of the body."""
    other = lambda values, old: pick(rng, [value for value in values if value != old])
    color = lambda palette, *away_from, weights=None: _color(rng, palette, weights, away_from)
    match item:
        case "hair":
            return {"hair": color(HAIR, who.hair), "hair_style": other(HAIR_STYLES, who.hair_style)}
        case "hat":
            return {"hat": other(HATS, who.hat), "hat_color": color(CLOTH, who.hair, who.hat_color)}
        case "pattern":
            return {"pattern": other(PATTERNS, who.pattern), "accent": color(CLOTH, who.upper_color)}
        case "upper":
            short = who.upper in ("tshirt", "tank")
            return {"upper": pick(rng, ("sweater", "jacket", "coat") if short else ("tshirt", "tank"))}
        case "lower":
            return {"lower": pick(rng, ("trousers",) if who.lower in ("shorts", "skirt") else ("shorts", "skirt"))}
        case "lower_color":
            return {"lower_color": color(CLOTH, who.lower_color, weights=LOWER_WEIGHT)}
        case "shoes":
            return {"shoes": color(SHOES, who.shoes), "boots": not who.boots}
        case "bag":
            return {"bag": other(BAGS, who.bag), "bag_color": color(CLOTH, who.upper_color, who.bag_color)}


def id_ranges(spec: SyntheticSpec) -> dict[str, range]:
    """The identity numbers, from 1, of the sets ``train``, ``test`` and ``distractor``."""
    test, distractor = spec.train_ids + 1, spec.train_ids + spec.test_ids + 1
    return {
        "train": range(1, test),
        "test": range(test, distractor),
        "distractor": range(distractor, distractor + spec.distractor_ids),
    }


def lookalikes(spec: SyntheticSpec, pid: int) -> tuple[int, ...]:
    """The identity numbers of the group of look-alikes that ``pid`` belongs to; ``(pid,)`` where it has none."""
    size = spec.lookalike_group
    for pids in id_ranges(spec).values():
        if pid in pids:
            grouped, position = round(spec.lookalike_share * len(pids)) // size * size, pids.index(pid)
            start = position // size * size
            return tuple(pids[start : start + size]) if position < grouped else (pid,)
    raise ValueError(f"there is no identity {pid}; the spec has 1 to {pids.stop - 1}")


@functools.lru_cache(maxsize=4096)
def identity(spec: SyntheticSpec, pid: int) -> Identity:
    """What identity number ``pid`` looks like."""
    # The first of a group of look-alikes is drawn freely, each other one changes one item of the first, all in
    # different places: two of a group differ in one or two items.
    first = lookalikes(spec, pid)[0]
    rng = stream(spec.seed, 1, first)
    drawn: dict[str, Any] = {}
    for field in dataclasses.fields(Identity):
        drawn[field.name] = field.metadata["draw"](rng, drawn.get("upper_color"))
    base = Identity(**drawn)
    if pid == first:
        return base
    items = stream(spec.seed, 2, first).sample(_ITEMS, len(_ITEMS))
    return dataclasses.replace(base, **_change(stream(spec.seed, 3, pid), items[pid - first - 1], base))
