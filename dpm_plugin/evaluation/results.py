"""results.json: what an evaluation found, for programs. Strict JSON, replaced as a whole or not at all."""

import json
import math
import os
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import replacing


def write_results(path, dataset, result, *, epoch=None, run=None):
    """Put the result for one target data set into the file at ``path``, beside those of other data sets.

    The file::

        {"run": {...},
         "datasets": {"occluded_duke": {
            "epoch": 120,
            "headline": {"row": "after/on", "rank1": 0.71, "mAP": 0.62, "cmc": [0.71, ...]},
            "rows": {"before/off": {"rank1": ..., "mAP": ..., "cmc": [...]}, ...},
            "ranks": [1, 5, 10, 20],
            "counts": {"query": 2210, "gallery": 17661, "query_ids": 519, "gallery_ids": 1110,
                       "unmatched_queries": 0},
            "unmatched": ["query/0001_c2_f0046182.jpg", ...],
            "phases": {"distance": {"seconds": ..., "peak_memory_mb": ...}, ...},
            "history": [{"epoch": 10, "row": "after/on", "rank1": ..., "mAP": ...}, ...]}}}

    Shares are in [0, 1]; ``cmc[k - 1]`` is rank k. The latest evaluation is at the top of its data set;
    ``history`` lists the headline of each evaluated epoch, ascending; evaluating epoch n again drops the
    entries from n on (a run resumed or started afresh). Evaluations without epoch (test only) are not listed.
    The same seed on the same machine gives the same ``datasets`` but for ``phases`` (seconds and memory).
    ``unmatched`` names the first few queries without an image to find.
    Values that JSON does not have (NaN, infinity) are written as null, unknown types as their text.

    Args:
        path: of the file; missing folders are made.
        dataset: name of the target data set.
        result: :class:`dpm_plugin.evaluation.protocol.Result`.
        epoch: epochs trained so far, or None.
        run: dict about the run (model, config, seeds, versions); replaces the one in the file, None keeps it.

    Raises:
        DPMError: the file cannot be written.
    """
    path = Path(path)
    content = _read(path)
    if run is not None:
        content["run"] = run
    old = content["datasets"].get(dataset, {})
    content["datasets"][dataset] = _entry(result, epoch, old.get("history", []))
    _replace(path, json.dumps(_plain(content), indent=1, allow_nan=False, ensure_ascii=False))


def library_versions():
    """Versions of the libraries that numbers depend on, for the ``run`` section; None where one is absent."""
    versions = {}
    for name in ("dpm-torchreid", "torchreid", "torch", "torchvision", "timm", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _entry(result, epoch, history):
    headline = _row(result.rows[result.headline])
    if epoch is not None:
        summary = {"epoch": epoch, "row": result.headline, "rank1": headline["rank1"], "mAP": headline["mAP"]}
        history = [entry for entry in history if entry["epoch"] < epoch] + [summary]
    return {
        "epoch": epoch,
        "headline": {"row": result.headline, **headline},
        "rows": {name: _row(row) for name, row in result.rows.items()},
        "ranks": result.ranks,
        "counts": result.counts._asdict(),
        "unmatched": list(result.unmatched),
        "phases": result.phases,
        "history": history,
    }


def _row(row):
    return {"rank1": row.rank1, "mAP": row.mAP, "cmc": row.cmc}


def _read(path):
    """The file's content; one that is missing starts empty, one that is not ours is kept aside."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content["run"], dict) and isinstance(content["datasets"], dict):
            return content
    except FileNotFoundError:
        return {"run": {}, "datasets": {}}
    except OSError as error:
        raise DPMError(f"'{path}' cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError):
        pass
    aside = path.with_name(path.name + ".unreadable")
    warnings.warn(f"'{path}' does not hold results; it is kept as '{aside}' and a new one is started", stacklevel=2)
    os.replace(path, aside)
    return {"run": {}, "datasets": {}}


def _replace(path, text):
    try:
        with replacing(path, lambda written: json.loads(written.read_text(encoding="utf-8"))) as file:
            file.write((text + "\n").encode())
    except OSError as error:
        raise DPMError(f"'{path}' cannot be written: {error}; is the folder writable and the disk not full?") from error


def _plain(value):
    """``value`` in the types that strict JSON has."""
    if isinstance(value, (np.ndarray, np.generic, torch.Tensor)):
        value = value.tolist()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
