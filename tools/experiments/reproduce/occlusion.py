"""Accuracy against the hidden share of the query, by kind of occluder; exact, as the queries are drawn."""

import io
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from dpm_plugin.config.arguments import synthetic_spec
from dpm_plugin.data.synthetic.occluders import KINDS
from dpm_plugin.data.synthetic.render import Occluder
from dpm_plugin.data.synthetic.spec import SyntheticSpec
from dpm_plugin.evaluation.extract import Features
from dpm_plugin.evaluation.protocol import Result, evaluate
from dpm_plugin.inference.open_run import open_run
from dpm_plugin.inference.run_extractor import Extractor
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.progress import Progress
from experiments.reproduce.occlusion_report import write_report
from experiments.reproduce.redrawn import Redrawn, query_rows, redrawn_queries

DATASET = "synthetic_occluded"
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # beside 0, nothing in the way
ANY = "any"  # the benchmark's own mixture of kinds
DRAWN_KINDS = (ANY, *KINDS)  # the first has the large plots and the main table
HALF_WIDTH = 0.05  # of the bounds around a share: narrower, some kinds cannot be placed
# Series of the curve -> (group of runs, mask of the evaluation's row).
SERIES = {
    "DPM, mask on": ("DPM", "on"),
    "DPM, mask off": ("DPM", "off"),
    "DPM, shuffled masks": ("DPM", "shuffled"),
    "parts, mask on": ("parts", "on"),
    "parts, mask off": ("parts", "off"),
    "parts, shuffled masks": ("parts", "shuffled"),
    "baseline": ("baseline", "off"),
}
Key = tuple[str, float]  # kind of occluder, hidden share


def occlusion_curve(
    dpm_folders: Sequence[Path],
    baseline_folders: Sequence[Path],
    parts_folders: Sequence[Path],
    out_dir: Path,
    *,
    root: str | Path | None,
    device: str = "cpu",
) -> dict:
    """Rank-1 and mAP of trained runs against how much of the query is hidden.

    The benchmark's queries are drawn again for every share (within 0.05) and kind; person, place and light stay the
    same, and so does the gallery. Where a kind cannot hide that share of a person, the query is left out of that
    point. Features are of the run's own headline space (``test.feature``).

    Writes ``occlusion.png``, ``occlusion.csv`` (every point) and ``occlusion.md``.

    Args:
        dpm_folders, baseline_folders, parts_folders: folders of finished runs (``data.save_dir``), one a seed; each may
            be empty.
        out_dir: folder to write to, made where missing.
        root: data root; None keeps the runs'.
        device: torch device. Default: "cpu".

    Returns:
        {"queries": count, "runs": {"DPM": n, "baseline": n, "parts": n}, "feature": spaces used,
        "points": [...]}; a point has ``series``, ``kind`` ("none" at share 0), ``share``, ``hidden`` (measured mean
        share), ``queries``, ``rank1`` and ``mAP`` (mean over the runs, 0 to 1), ``rank1_std`` and
        ``mAP_std`` (sample standard deviation, 0 for one run), ``rank1_runs`` and ``mAP_runs`` (one value a run).

    Raises:
        DPMError: no runs, a run of another data set or drawing, a DPM run without a mask, a baseline with one.
    """
    groups = dict(zip(("DPM", "baseline", "parts"), map(list, (dpm_folders, baseline_folders, parts_folders))))
    spec, data_root = _check_runs(groups, root)
    rows = query_rows(spec)
    sets = _draw(spec, data_root, rows)
    features, values = set(), defaultdict(list)
    for group, folder in ((group, folder) for group, folders in groups.items() for folder in folders):
        print(f"   occlusion: embedding {sum(len(one.redrawn.jpegs) for one in sets.values()):,} queries by '{folder}'")
        run = Extractor(folder, root=root, device=device, dataset=DATASET)
        features.add(run.feature)
        for key, result in _evaluate(run, sets):
            for series, (member, mask) in SERIES.items():
                row = result.rows.get(f"{run.feature}/{mask}")
                if member == group and row is not None:
                    values[series, key].append((row.rank1, row.mAP))
    points = [_point(series, key, sets[key], values[series, key]) for series, key in product(SERIES, sets)]
    numbers = {
        "queries": len(rows),
        "runs": {group: len(members) for group, members in groups.items()},
        "feature": sorted(features),
        "points": [point for point in points if point],
    }
    write_report(numbers, out_dir)
    return numbers


class _Set(NamedTuple):
    """The queries of one (kind, share); ``keep`` (n,) are the positions whose occluder is of that kind."""

    redrawn: Redrawn
    keep: np.ndarray


def _draw(spec: SyntheticSpec, root: str, rows: list[tuple[int, int]]) -> dict[Key, _Set]:
    """Every set but those with fewer than two queries."""
    occluders = {("none", 0.0): None}
    for kind, share in product(DRAWN_KINDS, SHARES):
        bounds = max(share - HALF_WIDTH, 0.01), share + HALF_WIDTH
        occluders[kind, share] = Occluder(None if kind == ANY else kind, *bounds)
    total = len(occluders) * len(rows)
    progress = Progress(total, "queries drawn", lambda text: print(f"   occlusion: {text}", flush=True))
    sets = {}
    for number, ((kind, share), occluder) in enumerate(occluders.items(), start=1):
        redrawn = redrawn_queries(spec, root, rows, occluder)
        progress.at(number * len(rows))
        keep = np.arange(len(rows)) if kind in (ANY, "none") else np.flatnonzero(redrawn.kinds == kind)
        if len(keep) > 1:
            sets[kind, share] = _Set(redrawn, keep)
    return sets


def _evaluate(run: Extractor, sets: dict[Key, _Set]) -> Iterator[tuple[Key, Result]]:
    """The result of every set, with one pass over gallery and queries."""
    gallery = run.features(run.loader("gallery"), "gallery")
    images = ConcatDataset([_Images(one.redrawn, run.datamanager.transform_te) for one in sets.values()])
    everything = run.features(DataLoader(images, batch_size=run.config.test.batch_size), "query")
    start = 0
    for key, one in sets.items():
        yield key, evaluate(_part(everything, start + one.keep), gallery, ranks=(1,), feature=run.feature)
        start += len(one.redrawn.jpegs)


def _part(features: Features, positions: np.ndarray) -> Features:
    tensors = {name: rows[positions] for name, rows in features.tensors().items()}
    return Features(pids=features.pids[positions], camids=features.camids[positions], **tensors)


class _Images(Dataset):
    """Redrawn queries as torchreid's data sets give images."""

    def __init__(self, redrawn: Redrawn, transform):
        self.redrawn, self.transform = redrawn, transform

    def __len__(self) -> int:
        return len(self.redrawn.jpegs)

    def __getitem__(self, index: int) -> dict:
        redrawn = self.redrawn
        with Image.open(io.BytesIO(redrawn.jpegs[index])) as image:
            pixels = self.transform(image.convert("RGB"))
        pid, camid = int(redrawn.pids[index]), int(redrawn.camids[index])
        return {"img": pixels, "pid": pid, "camid": camid, "impath": f"query of identity {pid}, redrawn"}


def _point(series: str, key: Key, one: _Set, values: list[tuple[float, float]]) -> dict | None:
    if not values:
        return None
    point = {"series": series, "kind": key[0], "share": key[1]}
    point |= {"hidden": float(one.redrawn.hidden[one.keep].mean()), "queries": len(one.keep)}
    for metric, runs in zip(("rank1", "mAP"), np.array(values, dtype=float).T):
        spread = float(runs.std(ddof=1)) if len(runs) > 1 else 0.0  # of the runs as a sample of all seeds
        point |= {metric: float(runs.mean()), f"{metric}_std": spread, f"{metric}_runs": runs.tolist()}
    return point


def _check_runs(groups: dict[str, list[Path]], root: str | Path | None) -> tuple[SyntheticSpec, str]:
    """The one drawing that all runs were tested on, and its data root; before anything takes time."""
    if not any(groups.values()):
        raise DPMError("the occlusion curve needs the folder of at least one finished run")
    first = spec = data_root = None
    for group, folder in ((group, folder) for group, folders in groups.items() for folder in folders):
        model, config, *_ = open_run(folder, root=root)
        targets = list(config.data.targets) or list(config.data.sources)
        if DATASET not in targets:
            raise DPMError(
                f"the occlusion curve can be drawn for {DATASET} only, whose queries can be drawn again; "
                f"'{folder}' was tested on {', '.join(targets)}"
            )
        if model.has_mask != (group != "baseline"):
            has = "has a mask" if model.has_mask else "has no mask"
            raise DPMError(f"'{folder}' ({config.model.name}) {has}; it cannot stand for {group}")
        if spec is None:
            first, spec, data_root = folder, synthetic_spec(config), config.data.root
        elif synthetic_spec(config) != spec:
            raise DPMError(
                f"'{folder}' and '{first}' were tested on different drawings of {DATASET}; give runs with "
                "the same synthetic.* settings"
            )
    return spec, data_root
