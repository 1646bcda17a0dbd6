"""The benchmark ``synthetic_occluded``: pedestrians and what hides them, drawn by code from a seed."""

from .dataset import SyntheticOccluded
from .generate import generate
from .render import Occluder, render
from .spec import SyntheticSpec

__all__ = ["Occluder", "SyntheticOccluded", "SyntheticSpec", "generate", "render"]
