"""Makes one table or figure: its runs, then its Markdown page, CSV and PNG."""

import json
from pathlib import Path

from dpm_plugin.utils.files import write_file
from dpm_plugin.utils.runtime import pick_device
from experiments.reproduce import tables
from experiments.reproduce.budgets import same_epochs, same_time
from experiments.reproduce.plots import sweep_png, table_png
from experiments.reproduce.report import add_command, csv_text, markdown
from experiments.reproduce.setting import make_setting
from experiments.reproduce.sweep import cores

_COMPARISONS = ("table1", "table2")


class Maker:
    """Everything that one command line makes.

    Args:
        args: namespace of :func:`experiments.reproduce.cli.parse`.
        tools: :class:`experiments.reproduce.cli.Tools`.
        command: function of a table's name: the command line that makes it, printed under it.
    """

    def __init__(self, args, tools, command):
        self.args, self.tools, self.command = args, tools, command
        self.out, self.base = Path(args.out), Path(args.out) / "runs"
        self.setting = make_setting(
            args.dataset, args.config_file, args.opts, args.seeds, args.root, args.epochs, tools.schedule_overrides
        )
        (self.dataset,) = self.setting.config.data.targets
        self.threads = args.threads or max(1, cores() // args.jobs)

    def plan(self, names):
        """Make each of ``names``, yielding it when it is written; their runs are trained together first."""
        self.train([run for name in names for run in self._runs(name)])
        for name in names:
            self.make(name)
            yield name

    def make(self, name):
        """Train what ``name`` still needs and write its files."""
        if name in ("figure3", "figure4", "occlusion"):
            self._figure(name)
            return
        table = self._table(name)
        results = self.train(table.runs())
        text = markdown(
            table,
            results,
            self.dataset,
            command=self.command(name),
            setting_lines=self._setting_lines(name, table, results),
        )
        draw = sweep_png if table.axes else table_png
        for suffix, content in (
            ("png", draw(table, results, self.dataset)),
            ("csv", csv_text(table, results, self.dataset)),
            ("md", text),
        ):
            write_file(self.out / f"{name}.{suffix}", content)

    def train(self, runs):
        """dict of Run to its results."""
        return self.tools.run_all(runs, self.base, root=self.args.root, jobs=self.args.jobs, threads=self.threads)

    def _runs(self, name):
        if name in ("figure3", "figure4", "occlusion"):
            return [run for runs in self._runs_of_figure(name) for run in runs]
        return self._table(name).runs()

    def _table(self, name):
        if name == "figure5":
            return tables.figure5(self.setting, self.args.alphas, self.args.betas)
        if name in _COMPARISONS:
            setting = self._data_of(name)
            return tables.comparison(name, setting, self.args.models or tables.STOCK_MODELS, self._budget(setting))
        return {"table3": tables.table3, "table4": tables.table4, "table5": tables.table5}[name](self.setting)

    def _data_of(self, name):
        return tables.holistic(self.setting) if name == "table2" else self.setting

    def _budget(self, setting):
        if self.args.budget == "epochs":
            return same_epochs(setting, self.tools)
        return same_time(setting, self.tools, cache=self.base / "speed", threads=self.threads)

    def _runs_of_figure(self, name):
        """Groups of runs, the first seed's for a figure of one model."""
        without, full = tables.without_hem(self.setting), tables.full(self.setting)
        return {
            "figure3": (without[:1],),
            "figure4": (without[:1], full[:1]),
            "occlusion": (full, self.setting.runs(self.setting.baseline)),
        }[name]

    def _figure(self, name):
        groups = self._runs_of_figure(name)
        self.train([run for runs in groups for run in runs])
        folders = [[run.folder(self.base) for run in runs] for runs in groups]
        if name == "occlusion":
            self.tools.occlusion_curve(*folders, self.out, root=self._root(), device=pick_device().type)
        else:
            draw = getattr(self.tools, name)
            draw(
                *(folder for group in folders for folder in group),
                self.out,
                root=self._root(),
                images=self.args.images,
                device=pick_device().type,
            )
        add_command(self.out / f"{name}.md", self.command(name))

    def _root(self):
        return self.args.root or self.setting.config.data.root

    def _setting_lines(self, name, table, results):
        config, setting = self._data_of(name).config, self._data_of(name)
        lines = [
            f"`{setting.model}` by `{setting.config_name}`, {config.data.height}x{config.data.width} "
            f"pictures, "
            f"trained on {', '.join(config.data.sources)}, tested on {self.dataset}; "
            f"seeds {', '.join(map(str, setting.seeds))}; CPU threads a run: "
            f"{self._threads_of(table.runs())}; "
            f"torch {_versions(results)}."
        ]
        if setting.overrides:
            lines.append(
                "Settings beyond that file, for every run: "
                + ", ".join(f"`{key} {value}`" for key, value in setting.overrides)
                + "."
            )
        if name in _COMPARISONS:
            lines.append(
                {
                    "time": "Budget: the others train as many epochs as fit into the time of DPM's (at least "
                    "one), their schedules fitted to that; each model's speed was measured alone.",
                    "epochs": "Budget: every model trains the same number of epochs.",
                }[self.args.budget]
            )
        return lines

    def _threads_of(self, runs):
        found = set()
        for run in runs:
            try:
                found.add(json.loads((run.folder(self.base) / "sweep.json").read_text(encoding="utf-8"))["threads"])
            except (OSError, ValueError, KeyError):
                continue
        return ", ".join(map(str, sorted(found))) or "unknown"


def _versions(results):
    found = {entry["run"].get("versions", {}).get("torch") for entry in results.values()}
    return ", ".join(sorted(filter(None, found))) or "unknown"
