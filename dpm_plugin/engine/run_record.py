"""What a checkpoint records of its run beside its state, and which of it may change where the run is resumed.

``config``: every setting as nested dicts; ``images``: a digest of the training images; ``cameras``: see
:func:`~dpm_plugin.evaluation.extract.trained_cameras`, {data set: {camera id: row}}, or {data set: what is added to
camera ids} where they were not numbered without gaps. Checkpoints of 0.1.0 have none of these.
"""

from collections.abc import Mapping
from typing import Any

from dpm_plugin.config import SCHEMA, flat
from dpm_plugin.data.manager import CameraRows
from dpm_plugin.torchreid_host import image_dataset_classes, video_dataset_classes
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import short

#: Where files lie; no word is lost about these.
PLACES = frozenset(
    "data.root data.save_dir model.load_weights model.resume train.overwrite train.resume train.start_epoch".split()
)
#: What may change too, and all of ``test``: the length, what is kept and printed, ways to compute much the same thing.
MAY_CHANGE = frozenset(
    "cuhk03.use_metric_cuhk03 data.corrupt data.persistent_workers data.targets data.workers dist.timeout "
    "market1501.use_500k_distractors model.pretrained train.accumulate train.amp train.checkpoint_every "
    "train.compile train.conv_layout train.grad_checkpointing train.keep_checkpoints train.keep_epochs "
    "train.max_epoch train.non_finite train.non_finite_limit train.optim_form train.patience train.print_freq use_gpu "
    "vit.pretrained_file".split()
)
ADVICE = "set them back, or start a new run from its weights: model.load_weights and another data.save_dir"


def recorded_settings(checkpoint: Any) -> dict[str, Any]:
    """{key: value} of the configuration in the content of a checkpoint; empty where there is none, or a damaged one."""
    config = checkpoint.get("config") if isinstance(checkpoint, dict) else None
    try:
        return {key: value for key, value in flat(config) if key in SCHEMA} if isinstance(config, dict) else {}
    except (TypeError, RecursionError):  # other keys than texts; a dict that holds itself
        return {}


def recorded_cameras(checkpoint: Any) -> dict[str, CameraRows] | None:
    """The ``cameras`` in the content of a checkpoint; None where it does not say."""
    cameras = checkpoint.get("cameras") if isinstance(checkpoint, dict) else None
    return cameras if isinstance(cameras, dict) and all(map(_are_rows, cameras.values())) else None


def _are_rows(found: Any) -> bool:
    numbers = [*found.keys(), *found.values()] if isinstance(found, dict) else [found]
    return all(isinstance(number, int) and -(2**31) <= number < 2**31 for number in numbers)


def has_dense_cameras(checkpoint: Any) -> bool:
    """Whether training numbered its cameras without gaps, by the content of a checkpoint."""
    cameras = recorded_cameras(checkpoint)
    return cameras is not None and not any(isinstance(rows, int) for rows in cameras.values())


def resumed_cameras(checkpoint: Any, own: Mapping[str, CameraRows], model: Any, data: Any) -> Mapping[str, CameraRows]:
    """The recorded cameras, or ``own`` where there is no record.

    DPMError where ``data``, the data manager that training goes on with (None: no training), numbers the cameras that
    ``model`` embeds in another way.
    """
    matters = data is not None and model.num_cameras > 0 and not getattr(data, "same_without_dense", True)
    if matters and has_dense_cameras(checkpoint) != data.dense_cameras:
        advice = f"build the data manager with dense_cameras={not data.dense_cameras}"
        raise DPMError(f"the checkpoint was trained with other numbers of the cameras; {advice}")
    recorded = recorded_cameras(checkpoint)
    return own if recorded is None else recorded


def _told(key: str, value: Any) -> str:
    """What tells settings apart. Of a path among the data sets only that it is one: its images are compared as well."""
    if key != "data.sources" or not isinstance(value, (list, tuple)):
        return repr(value)
    names = {**image_dataset_classes(), **video_dataset_classes()}
    return repr([name if name in names else "your own people" for name in value])


def check_same_run(checkpoint: Mapping[str, Any], own: Mapping[str, Any], source: str) -> None:
    """Refuse to resume with settings or training images that give another result; print what else has changed.

    Args:
        checkpoint: content of a checkpoint; what it does not record is not compared.
        own: ``config`` and ``images`` of the run that resumes.
        source: names the checkpoint in messages.

    Raises:
        DPMError: names what has changed.
    """
    before, now = recorded_settings(checkpoint), dict(flat(own.get("config", {})))
    changed = {
        key: f"{key} {short(before[key])}, now {short(now[key])}"
        for key in now
        if key in before and _told(key, before[key]) != _told(key, now[key]) and key not in PLACES
    }
    refused = [text for key, text in changed.items() if key not in MAY_CHANGE and not key.startswith("test.")]
    if refused:
        more = f" and {len(refused) - 5} more" if len(refused) > 5 else ""
        raise DPMError(f"{source} is of a run with other settings: {'; '.join(refused[:5])}{more}; {ADVICE}")
    if own.get("images") and str(checkpoint.get("images", own["images"])) != own["images"]:
        raise DPMError(f"{source} was trained on other images or identities than data.root holds now; {ADVICE}")
    if changed:
        print(f"=> Changed since the checkpoint: {'; '.join(changed.values())}")
