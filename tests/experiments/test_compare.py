"""tools/compare.py: everything is measured, then trained alike; its table and its command line."""

import csv
import importlib
import io
import math
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from dpm_plugin import DPMError
from dpm_plugin.apps.compare import comparing, cost, table
from dpm_plugin.apps.compare.comparing import Budget
from dpm_plugin.apps.compare.sweep import cores
from dpm_plugin.commands import compare
from dpm_plugin.config import load_config
from helpers.compare import write_recipe
from helpers.forks import run_forked
from helpers.reproduce import read_csv

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:occluded_duke")]  # drawn smaller than published
QUICK_START = str(Path(__file__).resolve().parents[2] / "configs" / "dpm_synthetic.yaml")
TARGETS = ("synthetic_occluded", "occluded_duke", "market1501")


# ---- the comparison ----


@pytest.fixture
def bench(monkeypatch):
    """Calls compare() with made-up costs and results; ``bench.told`` is what it asked for."""
    told = []

    def measure(run, **options):
        told.append(("measure", run.model, options))
        return cost.Cost(
            2_000_000, 3_000_000_000, 12.0, 0.1, 34.0, 0.2, 1234.0, None, 200.0, epoch_seconds=50.0 + len(run.model)
        )

    def results(run):
        headline = {"row": "after/on", "rank1": 0.1 * run.seed + 0.01 * len(run.model), "mAP": 0.5}
        phases = {"train": {"seconds": 60.0 * run.seed}} if "vit" in run.model else {}
        return {"datasets": {name: {"headline": headline, "phases": phases} for name in TARGETS}}

    def run_all(runs, base, *, root, jobs, threads):
        told.append(("train", runs, base, root, jobs, threads))
        return {run: results(run) for run in runs}

    monkeypatch.setattr(comparing, "measure_cost", measure)
    monkeypatch.setattr(comparing, "run_all", run_all)

    def bench(models=("dpm_vit_tiny", "osnet_x1_0"), **options):
        return comparing.compare(models, QUICK_START, out="out", **options)

    bench.told = told
    return bench


def test_everything_is_measured_before_anything_is_trained_and_every_seed_of_every_model_is_run(bench):
    bench(seeds=(1, 2), jobs=2, root="data")
    assert [entry[0] for entry in bench.told] == ["measure", "measure", "train"]
    pairs = [(model, seed) for model in ("dpm_vit_tiny", "osnet_x1_0") for seed in (1, 2)]
    assert [(run.model, run.seed) for run in bench.told[-1][1]] == pairs
    threads = max(1, cores() // 2)
    assert bench.told[-1][2:] == (Path("out/runs"), "data", 2, threads)
    assert bench.told[0][2] == dict(root="data", threads=threads, cache=Path("out/costs"))


def test_minutes_give_each_model_as_many_epochs_as_its_own_speed_allows(bench):
    rows = bench(budget=Budget("minutes", 5)).rows
    assert [row.epochs for row in rows] == [300 // 62, 300 // 60]
    trained = {run.model: dict(run.overrides)["train.max_epoch"] for run in bench.told[-1][1]}
    assert trained == {"dpm_vit_tiny": 4, "osnet_x1_0": 5}


def test_epochs_are_the_same_for_all_and_without_a_budget_the_configs(bench):
    assert {row.epochs for row in bench(budget=Budget("epochs", 3)).rows} == {3}
    assert {row.epochs for row in bench().rows} == {load_config(QUICK_START).train.max_epoch}


def test_what_the_user_sets_reaches_every_run_and_wins_over_the_stock_settings(bench):
    bench(overrides=(("train.lr", "0.5"),), targets=["occluded_duke", "market1501"])
    for config in (run.config() for run in bench.told[-1][1]):
        assert config.train.lr == 0.5 and config.data.targets == ["occluded_duke", "market1501"]
        assert config.loss.name == ("dpm" if config.model.name == "dpm_vit_tiny" else "softmax")


@pytest.mark.parametrize(
    "models, overrides, expected",
    [(["dpm_vit_tiny", "osnet_x1_1"], (), "osnet_x1_0"), (["dpm_vit_tiny"], (("train.lrr", "1"),), "train.lr")],
)
def test_a_mistake_ends_it_before_anything_is_measured(bench, models, overrides, expected):
    with pytest.raises(DPMError, match=expected):
        bench(models, overrides=overrides)
    assert bench.told == []


def test_the_markdown_table_has_mean_and_deviation_over_the_seeds_and_the_costs(bench):
    text = table.markdown(bench(targets=["occluded_duke", "market1501"], seeds=(1, 2, 3)), "the command")
    header, _, dpm, osnet = [line for line in text.splitlines() if line.startswith("|")]
    assert header.count("rank-1") == 2 and header.count("|") == dpm.count("|") == osnet.count("|")
    accuracy, rest = ["32.0 ± 10.0", "50.0 ± 0.0"], ["18", "2.0 ± 1.0", "2.00", "3.000", "12", "34", "1,234", "—"]
    assert [cell.strip() for cell in dpm.strip("|").split("|")] == ["dpm_vit_tiny", *accuracy, *accuracy, *rest]
    assert " — " in osnet  # torchreid's engine says no training seconds
    assert "multiply-add counted as 2" in text and "seeds 1, 2, 3" in text and "```\nthe command\n```" in text


def test_one_seed_has_no_deviation(bench):
    text = table.markdown(bench(), "the command")
    assert "±" not in next(line for line in text.splitlines() if line.startswith("| dpm"))


def test_the_csv_has_a_line_for_each_model_and_target_with_unrounded_numbers(bench):
    text = table.csv_table(bench(targets=["occluded_duke", "market1501"], seeds=(1, 2)))
    lines = list(csv.DictReader(io.StringIO(text)))
    pairs = [(model, target) for model in ("dpm_vit_tiny", "osnet_x1_0") for target in ("occluded_duke", "market1501")]
    assert [(line["model"], line["target"]) for line in lines] == pairs
    assert tuple(lines[0])[-len(cost.Cost._fields) :] == cost.Cost._fields
    assert float(lines[2]["rank1_mean"]) == pytest.approx(0.25) and lines[2]["extract_memory_mb"] == ""
    assert float(lines[0]["rank1_std"]) == pytest.approx(math.sqrt(0.005)) and lines[0]["seeds"] == "2"


# ---- the command line ----


def test_key_value_pairs_end_the_lists_before_them():
    args = compare.parse("mlfn pcb_p6 mlfn --seeds 1 2 train.lr 0.1 data.height 64".split())
    assert (args.models, args.seeds) == (["mlfn", "pcb_p6"], [1, 2])
    assert args.overrides == (("train.lr", "0.1"), ("data.height", "64"))
    args = compare.parse("mlfn --out data.old --budget minutes 0.5 -t market1501 test.ranks [1]".split())
    assert (args.out, args.budget, args.targets) == ("data.old", Budget("minutes", 0.5), ["market1501"])


@pytest.mark.parametrize(
    "line, expected",
    [
        ("", "MODEL"),
        ("mlfn --budget epochs 1.5", "epochs N"),
        ("mlfn --budget minutes 0", "above 0"),
        ("mlfn --budget minutes nan", "above 0"),
        ("mlfn --budget hours 1", "hours"),
        ("mlfn --jobs 0", "--jobs"),
        ("mlfn --seeds one", "--seeds"),
        ("mlfn train.lr", "train.lr"),
        ("mlfn train.max_epoch 3", "--budget"),
        ("mlfn train.lr 1 --jobs 2", "--jobs"),
    ],
)
def test_a_wrong_option_is_one_line_with_exit_code_2(capsys, line, expected):
    with pytest.raises(SystemExit) as caught:
        compare.main(line.split())
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert expected in error


def test_an_unknown_model_is_one_line_with_exit_code_2_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert compare.main(["resnet51"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "'resnet50'" in error
    assert not any(tmp_path.iterdir())


def test_ctrl_c_ends_with_130_and_no_traceback(capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "compare", interrupted)
    assert compare.main(["mlfn"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def run_module(command, *, input, env, **options):
    """``subprocess.run`` of ``python -m MODULE``, forked: importing everything anew takes most of the time."""

    def call():
        os.environ.update(env)
        sys.stdin = io.StringIO(input)
        return importlib.import_module(command[2]).main()

    assert command[1] == "-m" and options == {"text": True, "capture_output": True}
    return run_forked(Path.cwd(), call)


@pytest.mark.fuzz  # measures for seconds; CI runs it
def test_a_model_is_compared_from_the_command_line_and_a_second_call_repeats_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(write_recipe(tmp_path))
    monkeypatch.setattr(cost, "subprocess", SimpleNamespace(run=run_module))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    line = "osnet_x0_25 --config-file recipe.yaml --root data --budget epochs 1 --jobs 99"  # 99 jobs: one thread each
    argv = f"{line} --out out data.height 32 data.width 16".split()
    assert compare.main(argv) == 0, capsys.readouterr().err
    text = Path("out/compare.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out and "dpm compare osnet_x0_25" in text
    (line,) = read_csv(Path("out/compare.csv"))
    assert (line["model"], line["row"], line["epochs"]) == ("osnet_x0_25", "embedding", "1")
    made = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.json")}
    assert compare.main(argv) == 0
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.json")} == made
