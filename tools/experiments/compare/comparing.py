"""Measure, train and evaluate every model of a list under one budget."""

from pathlib import Path
from typing import NamedTuple

from dpm_plugin import build
from dpm_plugin.config import load_config
from dpm_plugin.utils.errors import DPMError
from experiments.compare.budget import epochs_that_fit, schedule_overrides, stock_overrides
from experiments.compare.cost import Cost, measure_cost
from experiments.reproduce import sweep as sweeping


class Budget(NamedTuple):
    """What each model may train: ``amount`` epochs or minutes, as ``unit`` says."""

    unit: str
    amount: float

    def __str__(self):
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
    accuracy: dict
    train_seconds: tuple[float, ...]


class Comparison(NamedTuple):
    """All rows, and the settings that they share."""

    rows: tuple[Row, ...]
    targets: tuple[str, ...]
    seeds: tuple[int, ...]
    budget: Budget
    config: object
    config_file: str
    threads: int


def compare(
    models,
    config_file,
    *,
    out,
    budget: Budget | None = None,
    targets=None,
    sources=None,
    seeds=(1,),
    jobs=1,
    root=None,
    overrides=(),
    measure=measure_cost,
    sweep=sweeping,
    echo=print,
):
    """Cost and accuracy of ``models``, trained alike.

    One after the other is measured first, while nothing else of this command runs; then all of them are
    trained, ``jobs`` at a time. Measurements stay in ``out/costs`` and runs in ``out/runs``: a second call
    repeats neither.

    Args:
        models: names of torchreid's or the plugin's models.
        config_file: yaml for all of them; torchreid's also get
            :func:`~experiments.compare.budget.stock_overrides`.
        out: folder for measurements and runs.
        budget: None for the config's own number of epochs.
        targets, sources: data sets; None keeps the config's.
        seeds: one run of each model for each.
        jobs: runs at a time; each has cores // jobs threads, and so has each measurement.
        root: folder of the data sets; None keeps ``data.root``.
        overrides: further (key, value) pairs for every run, after the stock ones.
        measure, sweep: replace :func:`~experiments.compare.cost.measure_cost` and the module
            ``experiments.reproduce.sweep``.
        echo: takes the lines of progress.

    Returns:
        Comparison.

    Raises:
        DPMError: an unknown model or setting, before anything is started; a model that cannot be measured; a
            run that failed, after the others are done.
    """
    data = (("data.sources", sources), ("data.targets", targets))
    shared = (*((key, tuple(names)) for key, names in data if names), *overrides)
    base = _config(config_file, shared, root)
    settings = {name: stock_overrides(name, base) + shared for name in models}
    configs = {name: _config(config_file, (*chosen, ("model.name", name)), root) for name, chosen in settings.items()}
    for config in configs.values():
        build.check_names(config)
    threads = max(1, sweeping.cores() // jobs)
    costs, epochs, runs = {}, {}, {}
    for name, chosen in settings.items():
        echo(f"=> Measuring {name}")
        costs[name] = measure(name, config_file, chosen, root=root, threads=threads, cache=Path(out) / "costs")
        epochs[name] = _epochs(budget, configs[name], costs[name])
        schedule = () if budget is None else schedule_overrides(configs[name], epochs[name])
        final = tuple({**dict(chosen), **dict(schedule)}.items())
        runs[name] = [sweep.Run(name, str(config_file), name, final, seed) for seed in seeds]
    results = sweep.run_all(
        [run for of_model in runs.values() for run in of_model],
        Path(out) / "runs",
        root=root or base.data.root,
        jobs=jobs,
        threads=threads,
        echo=echo,
    )
    targets = tuple(base.data.targets)
    rows = tuple(
        _row(name, epochs[name], costs[name], [results[run] for run in runs[name]], targets) for name in settings
    )
    return Comparison(
        rows, targets, tuple(seeds), budget or Budget("epochs", base.train.max_epoch), base, str(config_file), threads
    )


def _config(config_file, overrides, root):
    place = {} if root is None else {"data.root": str(root)}
    return load_config(str(config_file), overrides={**dict(overrides), **place})


def _epochs(budget, config, cost):
    if budget is None:
        return config.train.max_epoch
    if budget.unit == "epochs":
        return int(budget.amount)
    if budget.unit == "minutes":
        return epochs_that_fit(60 * budget.amount, cost.epoch_seconds)
    raise DPMError(f"budget unit '{budget.unit}' is unknown; choose epochs or minutes")


def _row(model, epochs, cost, results, targets):
    accuracy = {}
    for target in targets:
        lines = [result["datasets"][target]["headline"] for result in results]
        accuracy[target] = Accuracy(
            lines[0]["row"], tuple(line["rank1"] for line in lines), tuple(line["mAP"] for line in lines)
        )
    phases = [result["datasets"][targets[0]]["phases"] for result in results]
    seconds = tuple(phase["train"]["seconds"] for phase in phases if "train" in phase)
    return Row(model, epochs, cost, accuracy, seconds)
