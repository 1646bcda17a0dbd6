"""Makes one table or figure: its runs, then its Markdown page, CSV and PNG."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dpm_plugin.apps.compare.budget import epochs_that_fit, schedule_overrides, stock_overrides
from dpm_plugin.apps.compare.cost import training_speed
from dpm_plugin.apps.compare.page import add_command, write_page
from dpm_plugin.apps.compare.run import Run
from dpm_plugin.apps.compare.sweep import run_all
from dpm_plugin.utils.runtime import pick_device
from experiments.reproduce import tables
from experiments.reproduce.attention_report import figure3, figure4
from experiments.reproduce.measured import Results
from experiments.reproduce.occlusion import occlusion_curve
from experiments.reproduce.plots import sweep_png, table_png
from experiments.reproduce.report import csv_table, markdown
from experiments.reproduce.setting import Setting

WHAT = ("table1", "table2", "table3", "table4", "table5", "figure3", "figure4", "figure5", "parts", "occlusion")
FIGURES = ("figure3", "figure4", "occlusion")
BUDGETS = {
    "time": "Budget: the others train as many epochs as fit into the time of DPM's (at least "
    "one), their schedules fitted to that; each model's speed was measured alone.",
    "epochs": "Budget: every model trains the same number of epochs.",
}


@dataclass(frozen=True)
class Maker:
    """Everything that one command line makes.

    Args:
        setting: what all runs share.
        out: folder for the pages; the runs lie in ``out/runs``.
        command: function of a table's name: the command line that makes it, printed under it.
        root: data root; None keeps the config's.
        jobs: runs at a time.
        threads: CPU threads of a run.
        budget: "time" or "epochs", of the other models in tables 1 and 2.
        models: torchreid's models in tables 1 and 2.
        alphas, betas: values of Figure 5; empty for a grid around the config's.
        images: number of images that Figures 3 and 4 average over.
    """

    setting: Setting
    out: Path
    command: Callable[[str], str]
    root: str | None = None
    jobs: int = 1
    threads: int = 1
    budget: str = "time"
    models: Sequence[str] = tables.STOCK_MODELS
    alphas: Sequence[float] = ()
    betas: Sequence[float] = ()
    images: int = 200

    @property
    def base(self) -> Path:
        return self.out / "runs"

    def plan(self, names: Iterable[str]) -> Iterator[str]:
        """Make each of ``names``, yielding it when it is written; their runs are trained together first."""
        names = list(names)
        self._train(run for name in names for run in self._runs(name))
        for name in names:
            if name in FIGURES:
                self._make_figure(name)
            else:
                self._make_table(name)
            yield name

    def _train(self, runs: Iterable[Run]) -> Results:
        return run_all(runs, self.base, root=self.root, jobs=self.jobs, threads=self.threads)

    def _runs(self, name: str) -> list[Run]:
        if name in FIGURES:
            return [run for runs in self._groups(name) for run in runs]
        return self._table(name).runs()

    def _make_table(self, name: str) -> None:
        table, (dataset,) = self._table(name), self.setting.config.data.targets
        results = self._train(table.runs())
        lines = self._setting_lines(name, table, results)
        write_page(
            self.out,
            name,
            png=(sweep_png if table.axes else table_png)(table, results, dataset),
            csv=csv_table(table, results, dataset),
            md=markdown(table, results, dataset, self.command(name), lines),
        )

    def _table(self, name: str) -> tables.Table:
        if name == "figure5":
            return tables.figure5(self.setting, self.alphas, self.betas)
        if name in ("table1", "table2"):
            setting = self._setting_of(name)
            return tables.comparison(name, setting, self.models, self._budgeted(setting))
        if name == "parts":
            return tables.parts(self.setting, self._budgeted(self.setting, tables.with_parts(self.setting)[0]))
        return {"table3": tables.table3, "table4": tables.table4, "table5": tables.table5}[name](self.setting)

    def _setting_of(self, name: str) -> Setting:
        return tables.holistic(self.setting) if name == "table2" else self.setting

    def _budgeted(self, setting: Setting, model: Run | None = None) -> tables.Budgeted:
        """Function (label, model, changes) -> one run a seed under the table's budget, the time of ``model`` (DPM's).

        In equal time both speeds are measured, one process after the other, before anything is trained: what a
        training run took by the clock depends on what ran beside it. The measured speeds are kept, as a second call
        must find the same epochs, hence the same runs.
        """
        first, same_time = setting.seeds[0], self.budget == "time"  # no speed depends on the seed

        def epoch_seconds(run: Run) -> float:
            return training_speed(run, root=self.root, threads=self.threads, cache=self.base / "speed")

        seconds = setting.config.train.max_epoch * epoch_seconds(model or setting.run(first)) if same_time else None

        def runs(label: str, model: str, changes: dict[str, object]) -> tuple[Run, ...]:
            changes = changes | stock_overrides(model, setting.config)
            if same_time:
                run = setting.run(first, model, changes, label)
                epochs = epochs_that_fit(seconds, epoch_seconds(run))
                changes, label = changes | schedule_overrides(run.config(), epochs), f"{label}-epochs{epochs}"
            return setting.runs(model, changes, label)

        return runs

    def _groups(self, name: str) -> tuple[tuple[Run, ...], ...]:
        """The runs of a figure: the first seed's for one that shows single models."""
        without, full = tables.without_hem(self.setting), tables.full(self.setting)
        return {
            "figure3": (without[:1],),
            "figure4": (without[:1], full[:1]),
            "occlusion": (full, self.setting.runs(self.setting.baseline), tables.with_parts(self.setting)),
        }[name]

    def _make_figure(self, name: str) -> None:
        groups = self._groups(name)
        self._train(run for runs in groups for run in runs)
        folders = [[run.folder(self.base) for run in runs] for runs in groups]
        options = {"root": self.root or self.setting.config.data.root, "device": pick_device().type}
        if name == "occlusion":
            occlusion_curve(*folders, self.out, **options)
        else:
            draw = {"figure3": figure3, "figure4": figure4}[name]
            draw(*(folder for (folder,) in folders), self.out, images=self.images, **options)
        add_command(self.out / f"{name}.md", self.command(name))

    def _setting_lines(self, name: str, table: tables.Table, results: Results) -> list[str]:
        setting = self._setting_of(name)
        data = setting.config.data
        versions = {entry["run"].get("versions", {}).get("torch") for entry in results.values()}
        lines = [
            f"`{setting.model}` by `{setting.config_name}`, {data.height}x{data.width} images, "
            f"trained on {', '.join(data.sources)}, tested on {data.targets[0]}; "
            f"seeds {', '.join(map(str, setting.seeds))}; CPU threads a run: {self._threads_of(table.runs())}; "
            f"torch {', '.join(sorted(filter(None, versions))) or 'unknown'}."
        ]
        if setting.overrides:
            settings = ", ".join(f"`{key} {value}`" for key, value in setting.overrides)
            lines.append(f"Settings beyond that file, for every run: {settings}.")
        return lines + ([BUDGETS[self.budget]] if name in ("table1", "table2", "parts") else [])

    def _threads_of(self, runs: Iterable[Run]) -> str:
        found = set()
        for run in runs:
            try:
                found.add(json.loads((run.folder(self.base) / "sweep.json").read_text(encoding="utf-8"))["threads"])
            except (OSError, ValueError, KeyError):
                continue
        return ", ".join(map(str, sorted(found))) or "unknown"
