"""Every size and share of the synthetic benchmark, with its range checked."""

import dataclasses
import hashlib
import json
import numbers
from typing import Any

from dpm_plugin.utils.errors import DPMError

# Part of the digest: raise it when a change of the drawing code changes the images, so that no old set passes for new.
DRAWING_VERSION = 7


def _setting(default: float, low: float, high: float, meaning: str) -> Any:
    return dataclasses.field(default=default, metadata={"low": low, "high": high, "meaning": meaning})


@dataclasses.dataclass(frozen=True)
class SyntheticSpec:
    """What :func:`~dpm_plugin.data.synthetic.generate.generate` draws; the same spec gives the same bytes.

    Each field stands with its default, its smallest and largest value and its meaning. One out of its range is a
    DPMError that names it.
    """

    seed: int = _setting(0, 0, 2**32 - 1, "seed of everything drawn")
    height: int = _setting(128, 32, 1024, "height of an image in pixels")
    width: int = _setting(64, 16, 1024, "width of an image in pixels")
    cameras: int = _setting(6, 2, 8, "how many cameras")
    train_ids: int = _setting(400, 1, 9999, "training identities")
    train_images: int = _setting(10, 1, 999, "images of each training identity")
    train_occluded: float = _setting(0.5, 0.0, 1.0, "share of the training images that are occluded")
    test_ids: int = _setting(200, 1, 9999, "identities in the query and the gallery set")
    gallery_images: int = _setting(4, 1, 999, "holistic gallery images of each test identity, over the cameras in turn")
    query_images: int = _setting(2, 1, 999, "occluded queries of each test identity")
    distractor_ids: int = _setting(50, 0, 9999, "identities that are in the gallery only, with two images each")
    hidden_min: float = _setting(0.2, 0.05, 0.85, "least share of the person's drawn pixels that an occluder hides")
    hidden_max: float = _setting(0.6, 0.1, 0.9, "largest such share, at least 0.05 above hidden_min")
    lookalike_share: float = _setting(0.3, 0.0, 1.0, "share of each set's identities that are in groups of look-alikes")
    lookalike_group: int = _setting(3, 2, 6, "identities in such a group, alike but for one or two items")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, low, high = getattr(self, field.name), field.metadata["low"], field.metadata["high"]
            number, word = (numbers.Integral, "an integer") if field.type is int else (numbers.Real, "a number")
            if isinstance(value, bool) or not isinstance(value, number) or not low <= value <= high:
                raise DPMError(f"synthetic.{field.name} is {value!r}; give {word} from {low} to {high}")
            # A plain int or float, so that numpy's scalars and "1" for "1.0" give the same digest.
            convert: Any = field.type
            object.__setattr__(self, field.name, convert(value))
        if self.hidden_max - self.hidden_min < 0.05 - 1e-9:
            bounds = f"synthetic.hidden_min and hidden_max are {self.hidden_min} and {self.hidden_max}"
            raise DPMError(f"{bounds}; hidden_max must be at least 0.05 above hidden_min")
        if self.train_ids + self.test_ids + self.distractor_ids > 9999:
            many = "synthetic.train_ids + test_ids + distractor_ids is more than 9999"
            raise DPMError(f"{many}, the most that four digits in a file name can tell apart; lower one of them")

    def as_dict(self) -> dict[str, float]:
        """The fields and the version of the drawing code, as written to ``spec.json``."""
        return {**dataclasses.asdict(self), "drawing_version": DRAWING_VERSION}

    def digest(self) -> str:
        """Twelve hexadecimal digits that name the data set's folder."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:12]
