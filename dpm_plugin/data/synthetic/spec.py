"""Every size and share of the synthetic benchmark, with its range checked."""

import dataclasses
import hashlib
import json
import numbers

from dpm_plugin.utils.errors import DPMError

# Part of the digest: raise it when a change of the drawing code changes the pictures, so that no
# old data set is taken for a new one.
DRAWING_VERSION = 7


@dataclasses.dataclass(frozen=True)
class SyntheticSpec:
    """What :func:`~dpm_plugin.data.synthetic.generate.generate` draws; the same spec gives the same bytes.

    Args:
        seed: of everything drawn. Default 0.
        height, width: of an image in pixels. Default 128 x 64.
        cameras: how many, 2 to 8. Default 6.
        train_ids: training identities. Default 400.
        train_images: images of each training identity. Default 10.
        train_occluded: share of the training images that are occluded, 0 to 1. Default 0.5.
        test_ids: identities in the query and the gallery set. Default 200.
        gallery_images: holistic gallery images of each test identity, from as many cameras as
            there are. Default 4.
        query_images: occluded queries of each test identity. Default 2.
        distractor_ids: identities that are in the gallery only, with two images each. Default 50.
        hidden_min, hidden_max: bounds of the share of the person that an occluder hides, over the
            person's drawn pixels; between 0.05 and 0.9 and at least 0.05 apart. Default 0.2 to 0.6.
        lookalike_share: share of the identities of each set that come in groups which look alike
            but for one or two items. Default 0.3.
        lookalike_group: identities in such a group, 2 to 6. Default 3.

    Raises:
        DPMError: a value is out of its range; the message names the field.
    """

    seed: int = 0
    height: int = 128
    width: int = 64
    cameras: int = 6
    train_ids: int = 400
    train_images: int = 10
    train_occluded: float = 0.5
    test_ids: int = 200
    gallery_images: int = 4
    query_images: int = 2
    distractor_ids: int = 50
    hidden_min: float = 0.2
    hidden_max: float = 0.6
    lookalike_share: float = 0.3
    lookalike_group: int = 3

    def __post_init__(self):
        for name, low, high in INTEGERS:
            self._check(name, numbers.Integral, low, high)
        for name, low, high in SHARES:
            self._check(name, numbers.Real, low, high)
        if self.hidden_max - self.hidden_min < 0.05 - 1e-9:
            raise DPMError(
                f"synthetic.hidden_min and hidden_max are {self.hidden_min} and {self.hidden_max}; "
                "hidden_max must be at least 0.05 above hidden_min"
            )
        if self.train_ids + self.test_ids + self.distractor_ids > 9999:
            raise DPMError(
                "synthetic.train_ids + test_ids + distractor_ids is more than 9999, "
                "the most that four digits in a file name can tell apart; lower one of them"
            )

    def _check(self, name, kind, low, high):
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
            word = "an integer" if kind is numbers.Integral else "a number"
            raise DPMError(f"synthetic.{name} is {value!r}; give {word} from {low} to {high}")
        # A plain int or float, so that numpy's scalars and "1" for "1.0" give the same digest.
        object.__setattr__(self, name, int(value) if kind is numbers.Integral else float(value))

    def as_dict(self):
        """The fields and the version of the drawing code, as written to ``spec.json``."""
        return {**dataclasses.asdict(self), "drawing_version": DRAWING_VERSION}

    def digest(self):
        """Twelve hexadecimal digits that name the data set's folder."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


# Field, smallest and largest value.
INTEGERS = (
    ("seed", 0, 2**32 - 1),
    ("height", 32, 1024),
    ("width", 16, 1024),
    ("cameras", 2, 8),
    ("train_ids", 1, 9999),
    ("train_images", 1, 999),
    ("test_ids", 1, 9999),
    ("gallery_images", 1, 999),
    ("query_images", 1, 999),
    ("distractor_ids", 0, 9999),
    ("lookalike_group", 2, 6),
)
SHARES = (
    ("train_occluded", 0.0, 1.0),
    ("hidden_min", 0.05, 0.85),
    ("hidden_max", 0.1, 0.9),
    ("lookalike_share", 0.0, 1.0),
)
