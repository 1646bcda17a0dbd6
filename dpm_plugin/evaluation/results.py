"""results.json: what an evaluation found, for programs. Strict JSON, replaced as a whole or not at all."""

import json
import os
import warnings
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from dpm_plugin import torchreid_host
from dpm_plugin.evaluation.protocol import Result
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import read_json, write_file


def write_results(
    path: str | Path, dataset: str, result: Result, *, epoch: int | None = None, run: dict[str, Any] | None = None
) -> None:
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
            "masks": {"directions": 5.2, "parts": [0.51, ...], "mean": 0.52, "overall": 0.6},
            "phases": {"distance": {"seconds": ..., "peak_memory_mb": ...}, ...},
            "history": [{"epoch": 10, "row": "after/on", "rank1": ..., "mAP": ...}, ...]}}}

    Shares are in [0, 1]; ``cmc[k - 1]`` is rank k. ``history`` lists the headline of each evaluated epoch, ascending;
    evaluating epoch n again drops the entries from n on (a run resumed or started afresh). The same seed on the
    same machine gives the same ``datasets`` but for ``phases`` (seconds and memory). ``unmatched`` names the first few
    queries without an image to find; ``masks`` is a :class:`~dpm_plugin.evaluation.mask_report.MaskReport` or null. NaN
    and infinity are written as null, unknown types as their text.

    Args:
        path: missing folders are made; DPMError where it cannot be written.
        epoch: epochs trained so far. Default: None, an evaluation without training.
        run: about the run (model, config, seeds, versions); replaces what is in the file. Default: None keeps that.
    """
    path = Path(path)
    content = _read(path)
    if run is not None:
        content["run"] = run
    rows = {name: {"rank1": row.rank1, "mAP": row.mAP, "cmc": row.cmc} for name, row in result.rows.items()}
    history = content["datasets"].get(dataset, {}).get("history", [])
    if epoch is not None:
        summary = {"epoch": epoch, "row": result.headline, "rank1": result.rank1, "mAP": result.mAP}
        history = [entry for entry in history if entry["epoch"] < epoch] + [summary]
    content["datasets"][dataset] = {
        "epoch": epoch,
        "headline": {"row": result.headline, **rows[result.headline]},
        "rows": rows,
        "ranks": result.ranks,
        "counts": result.counts._asdict(),
        "unmatched": result.unmatched,
        "masks": None if result.masks is None else {**result.masks._asdict(), "mean": result.masks.mean},
        "phases": result.phases,
        "history": history,
    }
    # In the types that strict JSON has: NaN and infinities become null.
    text = json.dumps(content, default=lambda other: other.tolist() if hasattr(other, "tolist") else str(other))
    plain = json.loads(text, parse_constant=lambda name: None)
    write_file(path, json.dumps(plain, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def library_versions() -> dict[str, str | None]:
    """Versions of the libraries that numbers depend on, for the ``run`` section; None where one is absent."""
    versions = dict.fromkeys(("dpm-torchreid", "torchreid", "torch", "torchvision", "timm", "numpy"))
    for name in versions:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return versions | {"torchreid": torchreid_host.version()}


def _read(path: Path) -> dict[str, dict]:
    """The file's content; one that is missing starts empty, one that is not ours is kept aside."""
    try:
        content = read_json(path)
        entries = content["datasets"].values()
        epochs = [past["epoch"] for entry in entries for past in entry.get("history", [])]
        if isinstance(content["run"], dict) and all(isinstance(epoch, int) for epoch in epochs):
            return content
    except FileNotFoundError:
        return {"run": {}, "datasets": {}}
    except OSError as error:
        raise DPMError(f"'{path}' cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    aside = path.with_name(path.name + ".unreadable")
    warnings.warn(f"'{path}' does not hold results; it is kept as '{aside}' and a new one is started", stacklevel=2)
    os.replace(path, aside)
    return {"run": {}, "datasets": {}}
