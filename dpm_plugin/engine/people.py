"""Whose people a classifier knows: its rows mean nothing to others, even where there are as many."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dpm_plugin.data.sharing import digest_of
from dpm_plugin.engine.run_record import recorded_settings
from dpm_plugin.weights.load import CLASSIFIER


def digest(datamanager: Any) -> str:
    """Of the training images, sorted by path below data.root: file systems list in any order."""
    # People of the user's own may lie anywhere: the number of their source comes first.
    by_source = (lambda entry: (entry[3], entry[0])) if getattr(datamanager, "own", None) else None
    return digest_of(sorted(datamanager.train_loader.dataset.train, key=by_source))


def recorded_people(checkpoint: Any) -> str | None:
    """Whom a classifier was trained to tell apart, as a text to compare; None where the checkpoint does not say.

    Digest of the training images, names of their data sets, and how drawn people were drawn.
    """
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("images"), str):
        return None
    settings = recorded_settings(checkpoint)
    sources = settings.get("data.sources")
    drawn = isinstance(sources, list) and "synthetic_occluded" in sources
    keys = ["data.sources", *(key for key in settings if drawn and key.startswith("synthetic."))]
    return repr((checkpoint["images"], [(key, settings.get(key)) for key in keys]))


def tell_of_classifier(path: str | Path, people: str | None, is_same: bool, loaded: Sequence[str]) -> None:
    """Say what became of the classifier of weights that training starts from.

    Args:
        path: names the weights.
        people: what they record of their people.
        is_same: whether these are, or may be, those of this training.
        loaded: names of the tensors taken from them.
    """
    if not is_same:
        print(f"=> '{path}' was trained on other people: the classifier is new")
    elif people is None and any(name.startswith(CLASSIFIER) for name in loaded):
        print(f"=> '{path}' does not say whom its classifier was trained on; it is taken for the same people")
