"""One image of the benchmark, as a pure function of the spec and the image's place in it."""

import dataclasses
import math
from typing import NamedTuple

import numpy as np

from . import occluders
from .identity import id_ranges, identity, pick, stream
from .person import draw_person, draw_pose
from .scene import background, camera, expose
from .spec import SyntheticSpec

SPLITS = ("train", "query", "gallery")
SUPERSAMPLING = 2
BANDS = 24  # of an image's height, for which the hidden part of the person is counted; any few stripes are sums of them


class Drawn(NamedTuple):
    """One image and what it hides.

    Attributes:
        pixels: uint8 (H, W, 3).
        hidden: hidden share of the person from 0 to 1.
        occluder: its kind, or "none".
        person_bands: share of the person's pixels that lie in each of BANDS equal bands of the image, from the top.
        hidden_bands: share of the person's pixels that lie there and are hidden; they add up to ``hidden``.
    """

    pixels: np.ndarray
    hidden: float
    occluder: str
    person_bands: list[float]
    hidden_bands: list[float]


@dataclasses.dataclass(frozen=True)
class Occluder:
    """An occluder on demand; where it cannot hide the asked share of the person, a wall does."""

    kind: str | None = None  # one of ``occluders.KINDS``; None: any
    low: float = 0.2  # bounds of the hidden share
    high: float = 0.6


def camera_of(spec: SyntheticSpec, split: str, pid: int, index: int) -> int:
    """0-based camera of an image."""
    # The gallery takes an identity's shuffled cameras from the front and the queries from the back, never the
    # first: every query has a match in another camera.
    order = stream(spec.seed, 20, pid).sample(range(spec.cameras), spec.cameras)
    if split == "gallery":
        return order[index % spec.cameras]
    if split == "query":
        return order[spec.cameras - 1 - index % (spec.cameras - 1)]
    seen = spec.cameras - pid % (spec.cameras // 2 + 1)  # not everyone passes every camera
    return order[index % max(seen, 2)]


def render(
    spec: SyntheticSpec, split: str, pid: int, index: int, *, occluder: Occluder | str | None = "as planned"
) -> Drawn:
    """Draw image ``index`` (from 0) of identity ``pid`` (see ``id_ranges``) in split "train", "query" or "gallery".

    The person, the place and the light depend on (spec, split, pid, index) alone, so that the same call with
    another ``occluder`` gives the same image but for what stands in the way.

    Args:
        occluder: "as planned" (what the data set holds), None (nothing in the way) or an :class:`Occluder`.
    """
    keys = (spec.seed, 30, SPLITS.index(split), pid, index)
    if isinstance(occluder, str):
        # Every query, no gallery image and, evenly spread, the stated share of the training images.
        place, share = (pid - 1) * spec.train_images + index, spec.train_occluded
        turn = math.ceil((place + 1) * share - 1e-9) > math.ceil(place * share - 1e-9)
        planned = split == "query" or (split == "train" and turn)
        occluder = Occluder(None, spec.hidden_min, spec.hidden_max) if planned else None
    number = camera_of(spec, split, pid, index)
    view = camera(spec.seed, spec.cameras, number)
    size = (SUPERSAMPLING * spec.width, SUPERSAMPLING * spec.height)
    rng = stream(*keys, 0)
    canvas = background(spec.seed, spec.cameras, number, size, rng)
    if rng.random() < 0.15:  # somebody farther away, behind the person
        who = _somebody(spec, split, pid, rng)
        unit = canvas.height * rng.uniform(0.4, 0.65)
        x, top = canvas.width * rng.uniform(0.0, 1.0), canvas.height * rng.uniform(0.12, 0.25)
        _paste(canvas, draw_person(size, who, draw_pose(rng, view.views), x, top, unit, view.light))
    # As an imperfect detector frames a person: scale and place vary, the whole body is in the box.
    pose = draw_pose(rng, view.views)
    unit = size[1] * rng.uniform(0.84, 0.93) * min(size[0] / (0.5 * size[1]), 1.0)
    top = 0.02 * unit + (size[1] - 1.06 * unit) * rng.uniform(0.1, 0.9)
    x = size[0] * (0.5 + rng.uniform(-0.07, 0.07))
    person = draw_person(size, identity(spec, pid), pose, x, top, unit, view.light)
    _paste(canvas, person)
    body, kind = np.asarray(person.getchannel("A")), "none"
    solid = body > 127
    hidden = np.zeros_like(solid)
    if occluder is not None:
        hidden, kind = _occlude(canvas, body, occluder, spec, split, pid, view, stream(*keys, 1))
    count = max(int(np.count_nonzero(solid)), 1)
    bands = (list(_band_counts(pixels) / count) for pixels in (solid, hidden))
    image = expose(canvas, (spec.width, spec.height), view, stream(*keys, 2))
    return Drawn(image, float(np.count_nonzero(hidden)) / count, kind, *bands)


def _band_counts(pixels):
    """Set pixels of (H, W) bool in each band, (BANDS,)."""
    band = np.arange(len(pixels)) * BANDS // len(pixels)
    return np.bincount(band, weights=pixels.sum(axis=1), minlength=BANDS)


def _paste(canvas, layer, dx=0, dy=0):
    """Put an RGBA layer over the canvas; only its painted part is touched, for speed."""
    box = layer.getbbox()
    if box:
        piece = layer.crop(box)
        canvas.paste(piece, (box[0] + dx, box[1] + dy), piece)


def _somebody(spec, split, pid, rng):
    """Another identity of the same set, training or test with the distractors, if there is another."""
    ranges = id_ranges(spec)
    pids = ranges["train"] if split == "train" else range(ranges["test"].start, ranges["distractor"].stop)
    step = rng.randrange(1, len(pids)) if len(pids) > 1 else 0
    return identity(spec, pids[(pids.index(pid) + step) % len(pids)])


def _occlude(canvas, body, occluder, spec, split, pid, view, rng):
    """Paste an occluder over ``canvas``; returns (the person's hidden pixels (H, W) bool, kind)."""
    solid = body > 127
    low, high, margin = occluder.low, occluder.high, 0.1 * (occluder.high - occluder.low)
    target = rng.uniform(low + margin, high - margin)
    for _ in range(4):
        kind = occluder.kind or pick(rng, occluders.WEIGHTS)
        who = _somebody(spec, split, pid, rng)
        layer = occluders.paint(kind, canvas.size, who, view, rng)
        found = occluders.place(layer, kind, body, low, high, target, rng.random() < 0.5)
        if found:
            _paste(canvas, layer, *found)
            return occluders.hidden_pixels(solid, np.asarray(layer.getchannel("A")) > 127, *found), kind
    # What always fits: a wall as high as needed, by the person's pixels counted from below.
    rows = np.cumsum(solid.sum(1)[::-1]) / max(int(solid.sum()), 1)
    dy = body.shape[0] - 1 - int(np.argmin(np.abs(rows - target)))
    _paste(canvas, occluders.paint("wall", canvas.size, who, view, rng), 0, dy)
    return occluders.hidden_pixels(solid, np.ones_like(solid), 0, dy), "wall"
