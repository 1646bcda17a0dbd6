"""Measure, train and evaluate every model of a list under one budget."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from yacs.config import CfgNode

from dpm_plugin import build
from dpm_plugin.apps.compare.budget import epochs_that_fit, schedule_overrides, stock_overrides
from dpm_plugin.apps.compare.cost import Cost, measure_cost
from dpm_plugin.apps.compare.run import Run
from dpm_plugin.apps.compare.sweep import cores, run_all
from dpm_plugin.config import config_path, load_config
from dpm_plugin.utils.errors import DPMError


class Budget(NamedTuple):
    """What each model may train: ``amount`` epochs or minutes, as ``unit`` says."""

    unit: str
    amount: float

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit.removesuffix('s') if self.amount == 1 else self.unit}"


class Accuracy(NamedTuple):
    """The headline row of one model on one target: shares in [0, 1], one for each seed."""

    row: str
    rank1: tuple[float, ...]
    mAP: tuple[float, ...]


class Row(NamedTuple):
    """One model: epochs trained, cost, target -> Accuracy, and each seed's training seconds where known."""

    model: str
    epochs: int
    cost: Cost
    accuracy: dict[str, Accuracy]
    train_seconds: tuple[float, ...]


class Comparison(NamedTuple):
    """All rows, and the settings that they share."""

    rows: tuple[Row, ...]
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    budget: Budget
    config: CfgNode
    config_file: str
    threads: int


def compare(
    models: Sequence[str],
    config_file: str,
    *,
    out: str | Path,
    budget: Budget | None = None,
    targets: Sequence[str] | None = None,
    sources: Sequence[str] | None = None,
    seeds: Sequence[int] = (1,),
    jobs: int = 1,
    root: str | Path | None = None,
    overrides: Iterable[tuple[str, object]] = (),
) -> Comparison:
    """Cost and accuracy of ``models``, trained alike.

    One after the other is measured first, while nothing else of this command runs; then all of them are
    trained, ``jobs`` at a time. Measurements stay in ``out/costs`` and runs in ``out/runs``: a second call
    repeats neither.

    Args:
        models: names of torchreid's or the plugin's models.
        config_file: yaml for all of them; torchreid's also get :func:`~dpm_plugin.apps.compare.budget.stock_overrides`.
        out: folder for measurements and runs.
        budget: None for the config's own number of epochs.
        targets, sources: data sets; None keeps the config's.
        seeds: one run of each model for each.
        jobs: runs at a time; each has cores // jobs threads, and so has each measurement.
        root: folder of the data sets; None keeps ``data.root``.
        overrides: further (key, value) pairs for every run, after the stock ones.

    Raises:
        DPMError: an unknown model or setting, before anything is started; a model that cannot be measured; a
            run that failed, after the others are done.
    """
    data = {"data.sources": sources, "data.targets": targets}
    shared = {key: tuple(names) for key, names in data.items() if names} | dict(overrides)
    place = {} if root is None else {"data.root": str(root)}
    base = load_config(config_file, overrides=shared | place)
    first = {name: Run(name, config_file, name, _items(stock_overrides(name, base) | shared), 1) for name in models}
    for run in first.values():
        build.check_names(run.config(root))
    threads = max(1, cores() // jobs)
    costs, epochs, runs = {}, {}, {}
    for name, run in first.items():
        print(f"=> Measuring {name}")
        costs[name] = measure_cost(run, root=root, threads=threads, cache=Path(out) / "costs")
        epochs[name] = _epochs(budget, run.config(), costs[name])
        schedule = {} if budget is None else schedule_overrides(run.config(), epochs[name])
        final = _items(dict(run.overrides) | schedule)
        runs[name] = [Run(name, config_file, name, final, seed) for seed in seeds]
    everything = [run for of_model in runs.values() for run in of_model]
    results = run_all(everything, Path(out) / "runs", root=root or base.data.root, jobs=jobs, threads=threads)
    targets = tuple(base.data.targets)
    rows = tuple(_row(name, epochs[name], costs[name], [results[run] for run in runs[name]], targets) for name in first)
    spent = budget or Budget("epochs", base.train.max_epoch)
    return Comparison(rows, targets, tuple(seeds), spent, base, str(config_file and config_path(config_file)), threads)


def _items(overrides: dict[str, object]) -> tuple[tuple[str, object], ...]:
    return tuple(overrides.items())


def _epochs(budget: Budget | None, config: CfgNode, cost: Cost) -> int:
    if budget is None:
        return config.train.max_epoch
    if budget.unit == "epochs":
        return int(budget.amount)
    if budget.unit == "minutes":
        return epochs_that_fit(60 * budget.amount, cost.epoch_seconds)
    raise DPMError(f"budget unit '{budget.unit}' is unknown; choose epochs or minutes")


def _row(model: str, epochs: int, cost: Cost, results: list[dict], targets: tuple[str, ...]) -> Row:
    accuracy = {}
    for target in targets:
        lines = [result["datasets"][target]["headline"] for result in results]
        rank1, mAP = (tuple(line[metric] for line in lines) for metric in ("rank1", "mAP"))
        accuracy[target] = Accuracy(lines[0]["row"], rank1, mAP)
    phases = [result["datasets"][targets[0]]["phases"] for result in results]
    seconds = tuple(phase["train"]["seconds"] for phase in phases if "train" in phase)
    return Row(model, epochs, cost, accuracy, seconds)
