"""Pedestrians and what hides them, drawn by code from a seed: the images of the benchmark ``synthetic_occluded``."""

from .generate import generate
from .render import Occluder, render
from .spec import SyntheticSpec

__all__ = ["Occluder", "SyntheticSpec", "generate", "render"]
