"""Accuracy against the hidden share of the query, by kind of occluder; exact, as the queries are drawn."""

import io
import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader, Dataset

from dpm_plugin.config.arguments import synthetic_spec
from dpm_plugin.data.synthetic.occluders import KINDS
from dpm_plugin.data.synthetic.render import Occluder
from dpm_plugin.data.synthetic.spec import SyntheticSpec
from dpm_plugin.evaluation.protocol import Features, Result, evaluate
from dpm_plugin.inference.open_run import open_run
from dpm_plugin.inference.run_extractor import Extractor, evenly_spaced
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.progress import Progress
from experiments.reproduce.occlusion_report import write_report
from experiments.reproduce.redrawn import Redrawn, query_rows, redrawn_queries

DATASET = "synthetic_occluded"
SHARES = (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
ANY = "any"  # the benchmark's own mixture of kinds
HALF_WIDTH = 0.05  # of the bounds around a share: narrower, some kinds cannot be placed
# Series of the curve -> (group of runs, mask of the evaluation's row).
SERIES = {
    "DPM, mask on": ("DPM", "on"),
    "DPM, mask off": ("DPM", "off"),
    "DPM, shuffled masks": ("DPM", "shuffled"),
    "baseline": ("baseline", "off"),
}


def occlusion_curve(
    dpm_folders: Sequence[str | Path],
    baseline_folders: Sequence[str | Path],
    out_dir: str | Path,
    *,
    root: str | Path | None,
    device: str = "cpu",
    shares: Sequence[float] = SHARES,
    kinds: Sequence[str] = (ANY, *KINDS),
    queries: int | None = None,
) -> dict:
    """Rank-1 and mAP of trained runs against how much of the query is hidden.

    The benchmark's queries are drawn again for every share and kind; person, place and light stay the same,
    and so does the gallery. Where a kind cannot hide that share of a person, the query is left out of that
    point. Features are of the run's own headline space (``test.feature``).

    Writes ``occlusion.png``, ``occlusion.csv`` (every point) and ``occlusion.md``.

    Args:
        dpm_folders, baseline_folders: folders of finished runs (``data.save_dir``), one a seed; either may be
            empty.
        out_dir: folder to write to, made where missing.
        root: data root; None keeps the runs'.
        device: torch device. Default: "cpu".
        shares: hidden shares from 0 (nothing in the way) to 0.9; a query is within 0.05 of its share.
            Default: 0 to 0.7 in steps of 0.1.
        kinds: of ``dpm_plugin.data.synthetic.occluders.KINDS``, and "any" for the benchmark's own mixture; the
            first has the large plots and the main table. Default: "any" and all kinds.
        queries: how many of the benchmark's queries, evenly spaced. Default: all.

    Returns:
        {"queries": count, "runs": {"DPM": n, "baseline": n}, "feature": spaces used, "points": [...]}; a point
        has ``series``, ``kind`` ("none" at share 0), ``share``, ``hidden`` (measured mean share), ``queries``,
        ``rank1`` and ``mAP`` (mean over the runs, 0 to 1), ``rank1_std`` and ``mAP_std`` (sample standard
        deviation, 0 for one run), ``rank1_runs`` and ``mAP_runs`` (one value a run).

    Raises:
        DPMError: no runs, a run of another data set or drawing, a DPM run without a mask, a baseline with one,
            or a share, kind or number of queries out of range.
    """
    _check_kinds(kinds)
    shares = _check_shares(shares)
    groups = {"DPM": list(dpm_folders), "baseline": list(baseline_folders)}
    spec, data_root = _check_runs(groups, root)
    rows = query_rows(spec)
    rows = [rows[position] for position in evenly_spaced(len(rows), len(rows) if queries is None else queries)]
    sets = _draw(spec, data_root, rows, shares, kinds)
    features, values = set(), defaultdict(list)
    folders = [(group, folder) for group, members in groups.items() for folder in members]
    embedded = _Counted(len(folders) * sum(len(one.redrawn.jpegs) for one in sets.values()), "queries embedded")
    for group, folder in folders:
        run = Extractor(folder, root=root, device=device, dataset=DATASET)
        features.add(run.feature)
        for key, result in _evaluate(run, sets, embedded):
            for series, (member, mask) in SERIES.items():
                row = result.rows.get(f"{run.feature}/{mask}")
                if member == group and row is not None:
                    values[series, key].append((row.rank1, row.mAP))
    numbers = {
        "queries": len(rows),
        "runs": {group: len(members) for group, members in groups.items()},
        "feature": sorted(features),
        "points": [
            _point(series, key, one, values[series, key])
            for series in SERIES
            for key, one in sets.items()
            if values[series, key]
        ],
    }
    write_report(numbers, out_dir)
    return numbers


class _Counted:
    """Progress that counts for itself."""

    def __init__(self, total: int, things: str):
        self.progress = Progress(total, things, lambda text: print(f"   occlusion: {text}", flush=True))
        self.done = 0

    def add(self, count: int = 1) -> None:
        self.done += count
        self.progress.at(self.done)


class _Set(NamedTuple):
    """The queries of one (kind, share); ``keep`` (n,) are the positions whose occluder is of that kind."""

    redrawn: Redrawn
    keep: np.ndarray


def _draw(
    spec: SyntheticSpec, root: str, rows: list[tuple[int, int]], shares: Sequence[float], kinds: Sequence[str]
) -> dict[tuple[str, float], _Set]:
    """{(kind, share): _Set}; sets with fewer than two queries are left out."""
    occluders = {("none", 0.0): None} if 0 in shares else {}
    for kind, share in itertools.product(kinds, shares):
        if share > 0:
            bounds = max(share - HALF_WIDTH, 0.01), share + HALF_WIDTH
            occluders[kind, share] = Occluder(None if kind == ANY else kind, *bounds)
    drawn = _Counted(len(occluders) * len(rows), "queries drawn")
    sets = {}
    for (kind, share), occluder in occluders.items():
        redrawn = redrawn_queries(spec, root, rows, occluder, drawn.add)
        keep = np.arange(len(rows)) if kind in (ANY, "none") else np.flatnonzero(redrawn.kinds == kind)
        if len(keep) > 1:
            sets[kind, share] = _Set(redrawn, keep)
    return sets


def _evaluate(
    run: Extractor, sets: dict[tuple[str, float], _Set], embedded: _Counted
) -> Iterator[tuple[tuple[str, float], Result]]:
    """((kind, share), Result) of every set, with one pass over gallery and queries."""
    gallery = run.features(run.loader("gallery"), "gallery")
    images = ConcatDataset([_Images(one.redrawn, run.datamanager.transform_te) for one in sets.values()])
    loader = _Watched(DataLoader(images, batch_size=run.config.test.batch_size), embedded)
    everything = run.features(loader, "query")
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


class _Watched:
    """A loader that reports its progress."""

    def __init__(self, loader: DataLoader, embedded: _Counted):
        self.loader, self.embedded = loader, embedded

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[dict]:
        for batch in self.loader:
            yield batch
            self.embedded.add(len(batch["pid"]))


def _point(series: str, key: tuple[str, float], one: _Set, values: list[tuple[float, float]]) -> dict:
    point = {"series": series, "kind": key[0], "share": key[1]}
    point |= {"hidden": float(one.redrawn.hidden[one.keep].mean()), "queries": len(one.keep)}
    for metric, runs in zip(("rank1", "mAP"), np.array(values, dtype=float).T):
        spread = float(runs.std(ddof=1)) if len(runs) > 1 else 0.0  # of the runs as a sample of all seeds
        point |= {metric: float(runs.mean()), f"{metric}_std": spread, f"{metric}_runs": runs.tolist()}
    return point


def _check_kinds(kinds: Sequence[str]) -> None:
    known = (ANY, *KINDS)
    for kind in kinds:
        if kind not in known:
            raise DPMError(f"kind of occluder '{kind}' is unknown; choose from {', '.join(known)}")
    if not kinds:
        raise DPMError(f"no kind of occluder was given; choose from {', '.join(known)}")


def _check_shares(shares: Sequence[float]) -> list[float]:
    shares = sorted({float(share) for share in shares})
    if not shares or not 0 <= shares[0] <= shares[-1] <= 0.9:
        raise DPMError(f"hidden shares are numbers from 0 to 0.9 and at least one, got {shares}")
    return shares


def _check_runs(groups: dict[str, list], root: str | Path | None) -> tuple[SyntheticSpec, str]:
    """The one drawing that all runs were tested on, and its data root; before anything takes time.

    Raises:
        DPMError: see :func:`occlusion_curve`.
    """
    if not any(groups.values()):
        raise DPMError("the occlusion curve needs the folder of at least one finished run")
    first = spec = data_root = None
    for group, folder in ((group, folder) for group, folders in groups.items() for folder in folders):
        model, config, _ = open_run(folder, root=root)
        targets = list(config.data.targets) or list(config.data.sources)
        if DATASET not in targets:
            raise DPMError(
                f"the occlusion curve can be drawn for {DATASET} only, whose queries can be drawn again; "
                f"'{folder}' was tested on {', '.join(targets)}"
            )
        if model.has_mask != (group == "DPM"):
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
