"""tools/compare.py and what it is made of: costs, budgets, tables, the command line."""

import csv
import importlib
import io
import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from dpm_plugin import DPMError, build
from dpm_plugin.config import load_config
from dpm_plugin.utils import timing as phases
from experiments.compare import budget, cli, cost, measuring, table
from experiments.compare.comparing import Budget, compare
from experiments.reproduce.sweep import cores
from helpers.data import write_occluded_duke
from helpers.forks import run_forked
from helpers.model import tiny_model

pytestmark = pytest.mark.filterwarnings("ignore:occluded_duke")  # drawn smaller than published
ROOT = Path(__file__).resolve().parents[2]
QUICK_START = str(ROOT / "configs" / "dpm_synthetic.yaml")
STOCK = ("osnet_x1_0", "resnet50", "pcb_p6", "mlfn")
RECIPE = """
model: {name: dpm_vit_tiny, pretrained: False}
vit: {embed_dim: 16, depth: 2, num_heads: 2, patch_size: 8, stride: 8}
loss: {name: dpm}
data: {sources: [occluded_duke], targets: [occluded_duke], height: 96, width: 48, workers: 0}
sampler: {train_sampler: RandomIdentitySampler, num_instances: 2}
train: {optim: adamw, lr: 0.001, lr_scheduler: warmup_cosine, warmup_epochs: 1, batch_size: 4, max_epoch: 4}
test: {ranks: [1], batch_size: 2}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with recipe.yaml and, in data/, four training identities with four images each."""
    folder = tmp_path_factory.mktemp("compare")
    write_occluded_duke(folder / "data", pids=(3, 10, 7, 8))
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder


def config_of(place, model, *extra):
    base = load_config(str(place / "recipe.yaml"))
    pairs = dict(budget.stock_overrides(model, base))
    return load_config(
        str(place / "recipe.yaml"), extra, {**pairs, "model.name": model, "data.root": str(place / "data")}
    )


# ---- FLOPs ----


def naive_flops(model, run):
    """Two for each multiply-add of every Linear and Conv2d that runs, counted from their shapes."""
    total, hooks = 0, []

    def count(module, inputs, output):
        nonlocal total
        per_value = (
            module.in_features
            if isinstance(module, nn.Linear)
            else module.in_channels // module.groups * math.prod(module.kernel_size)
        )
        total += 2 * output.numel() * per_value

    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            hooks.append(module.register_forward_hook(count))
    with torch.no_grad():
        run()
    for hook in hooks:
        hook.remove()
    return total


def test_flops_of_a_stock_model_are_two_for_each_multiply_add():
    from dpm_plugin.torchreid_host import models

    model = models.build_model("osnet_x0_25", num_classes=3, pretrained=False, use_gpu=False).eval()
    expected = naive_flops(model, lambda: model(torch.zeros(1, 3, 64, 32)))
    assert measuring.count_flops(model, 64, 32) == expected


def test_flops_of_dpm_are_those_of_features_and_mask_with_the_attention_products():
    model = tiny_model().eval()
    tokens, dim, depth = 1 + 8 * 4, 24, 4
    expected = naive_flops(model, lambda: model.embed(torch.zeros(1, 3, 64, 32)))
    attention = depth * 2 * (2 * tokens * tokens * dim)  # queries x keys, weights x values
    assert measuring.count_flops(model, 64, 32) == expected + attention  # and nothing for the head logits of Eq. 5


def test_counting_flops_leaves_the_models_mode_alone():
    model = tiny_model().train()
    measuring.count_flops(model, 64, 32)
    assert model.training


# ---- measuring ----


def test_speed_is_the_median_batch_after_the_first_two_and_counts_the_waiting_for_pictures(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(measuring.time, "perf_counter", lambda: now[0])
    loading, working = iter([9, 9, 1, 1, 50, 1, 1]), iter([9, 9, 3, 3, 3, 3, 90])

    def loader():
        for _ in range(7):
            now[0] += next(loading)
            yield {"img": torch.zeros(8, 1)}

    def step(batch):
        now[0] += next(working)

    speed = measuring._speed(loader(), step, torch.device("cpu"), seconds=150)
    assert speed == {"images_per_second": 2.0, "loading_share": 0.25}  # 8 images in 4 s, 1 of them waiting


def test_a_training_measurement_runs_the_engines_own_iterations(place, monkeypatch):
    steps, built = [], build.build_engine

    def counting(*parts):
        engine = built(*parts)
        iteration = engine.forward_backward

        def forward_backward(batch):
            steps.append(iteration(batch))
            return steps[-1]

        engine.forward_backward = forward_backward
        return engine

    monkeypatch.setattr(build, "build_engine", counting)
    found = measuring.measure_training(config_of(place, "dpm_vit_tiny"), seconds=0)
    assert len(steps) == measuring.WARM_UP + measuring.FEWEST
    assert all({"loss", "masked_2"} <= set(summary) for summary in steps)  # both steps
    config = config_of(place, "dpm_vit_tiny")
    model = build.build_model(config, build.build_datamanager(config))
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert (found["iterations"], found["batch_size"]) == (4, 4)
    assert found["images_per_second"] > 0 and 0 <= found["loading_share"] <= 1 and found["peak_memory_mb"] > 0


@pytest.mark.parametrize("model", STOCK)
def test_every_stock_model_of_table_1_trains_and_extracts_small_pictures_under_a_dpm_recipe(place, model):
    config = config_of(place, model)
    datamanager = build.build_datamanager(config)
    network = build.build_model(config, datamanager)
    optimizer = build.build_optimizer(config, network)
    scheduler = build.build_scheduler(config, optimizer)
    engine = build.build_engine(config, datamanager, network, optimizer, scheduler)
    engine.set_model_mode("train")
    before = [p.detach().clone() for p in network.parameters()]
    summary = engine.forward_backward(next(iter(engine.train_loader)))
    assert all(math.isfinite(value) for value in summary.values())
    # Everything takes part in the loss, a list of PCB's parts included.
    assert all(not torch.equal(old, new) for old, new in zip(before, network.parameters()))
    engine.set_model_mode("eval")
    with torch.no_grad():
        assert network(torch.randn(2, 3, 96, 48)).shape[0] == 2


def test_a_model_that_cannot_take_the_picture_size_is_an_error_that_says_so(place):
    with pytest.raises(DPMError, match="'hacnn' does not run on pictures of 96x48.*160"):
        measuring.measure_training(config_of(place, "hacnn"), seconds=0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands the size of the parent on in ru_maxrss")
def test_the_peak_is_this_process_s_own_not_that_of_the_one_that_started_it():
    code = (
        "import importlib.util, sys, types; sys.modules['torch'] = types.ModuleType('torch'); "
        "spec = importlib.util.spec_from_file_location('phases', sys.argv[1]); "
        "phases = importlib.util.module_from_spec(spec); spec.loader.exec_module(phases); "
        "print(phases._peak_resident())"
    )
    ballast = np.ones(300_000_000, np.uint8)  # so that this process is large for certain
    child = subprocess.run([sys.executable, "-c", code, phases.__file__], capture_output=True, text=True, check=True)
    assert 1e6 < int(child.stdout) < len(ballast)


def test_a_request_is_answered_on_stdout_and_a_mistake_is_one_line(place, monkeypatch, capsys):
    request = {
        "what": "extraction",
        "config_file": str(place / "recipe.yaml"),
        "seconds": 0,
        "overrides": {"data.root": str(place / "data"), "data.height": 32, "data.width": 16},
    }
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
    assert measuring.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["flops"] > 0 and found["batch_size"] == 2 and found["idle_memory_mb"] > 0
    request["overrides"]["model.name"] = "osnet_x1_1"
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
    assert measuring.main() == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "'osnet_x1_0'" in error


# ---- asking for measurements ----

ANSWER = {
    "parameters": 5,
    "flops": 7,
    "iterations": 10,
    "batch_size": 4,
    "images_per_second": 20.0,
    "loading_share": 0.5,
    "peak_memory_mb": 300.0,
    "idle_memory_mb": 200.0,
}


@pytest.fixture
def interpreter(tmp_path):
    """Makes a program that stands for Python: it notes the question and behaves as told."""

    def make(behaviour=f"echo '{json.dumps(ANSWER)}'"):
        path = tmp_path / "python"
        path.write_text(
            f"#!/bin/sh\ncat >> {tmp_path}/asked\necho >> {tmp_path}/asked\n"
            f"echo $OMP_NUM_THREADS > {tmp_path}/threads\n{behaviour}\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    make.asked = lambda: [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]
    make.threads = lambda: (tmp_path / "threads").read_text().strip()
    return make


def test_training_and_extraction_are_measured_in_processes_of_their_own(interpreter):
    found = cost.measure_cost("mlfn", "", (("train.lr", 1.0),), root="data", threads=3, python=interpreter())
    first, second = interpreter.asked()
    assert (first["what"], second["what"]) == ("training", "extraction")
    assert first["overrides"] == {"train.lr": 1.0, "model.name": "mlfn", "data.root": "data"}
    assert interpreter.threads() == "3"
    assert found.epoch_seconds == 10 * 4 / 20 and (found.parameters, found.flops) == (5, 7)


def test_a_kept_measurement_is_not_repeated_unless_something_changes(interpreter, tmp_path):
    asked = dict(python=interpreter(), cache=tmp_path / "costs", threads=1)
    for _ in range(2):
        assert cost.training_speed("mlfn", "", (("train.lr", 1.0),), **asked) == 2.0
    assert len(interpreter.asked()) == 1
    cost.training_speed("mlfn", "", (("train.lr", 2.0),), **asked)
    cost.training_speed("mlfn", "", (("train.lr", 2.0),), **{**asked, "threads": 2})
    assert len(interpreter.asked()) == 3


def test_a_damaged_measurement_is_repeated(interpreter, tmp_path):
    asked = dict(python=interpreter(), cache=tmp_path / "costs")
    cost.training_speed("mlfn", "", **asked)
    (kept,) = (tmp_path / "costs").iterdir()
    kept.write_text("{")
    assert cost.training_speed("mlfn", "", **asked) == 2.0
    assert json.loads(kept.read_text()) == ANSWER


@pytest.mark.parametrize(
    "behaviour, expected",
    [
        ("echo one >&2; echo 'error: no such data' >&2; exit 2", "training of 'mlfn': no such data$"),
        ("kill -9 $$", "signal 9.*memory"),
    ],
)
def test_a_failed_measurement_says_which_and_why(interpreter, behaviour, expected):
    with pytest.raises(DPMError, match=expected):
        cost.training_speed("mlfn", "", python=interpreter(behaviour))


# ---- budgets ----


def test_the_plugins_models_and_torchreids_own_recipes_need_nothing(tmp_path):
    dpm = load_config(QUICK_START)
    assert budget.stock_overrides("dpm_vit_tiny", dpm) == budget.stock_overrides("vit_baseline", dpm) == ()
    assert budget.stock_overrides("osnet_x1_0", load_config()) == ()  # loss.name softmax already


@pytest.mark.parametrize(
    "name", [path.relative_to(ROOT / "configs").as_posix() for path in sorted((ROOT / "configs").rglob("dpm_*.yaml"))]
)
def test_stock_overrides_fit_every_recipe_and_keep_its_pretraining(name):
    file = str(ROOT / "configs" / name)
    base = load_config(file)
    mean = [0.485, 0.456, 0.406] if base.model.pretrained else base.data.norm_mean
    for model in STOCK:
        overrides = {**dict(budget.stock_overrides(model, base)), "model.name": model}
        config = load_config(file, overrides=overrides)
        build.check_names(config)
        assert config.model.pretrained == base.model.pretrained and config.data.norm_mean == mean
        assert config.data.transforms == base.data.transforms


def learning_rates(config):
    """Of each epoch, as the config's own scheduler sets them, relative to the full rate."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=config.train.lr)
    scheduler = build.build_scheduler(config, optimizer)
    rates = []
    for _ in range(config.train.max_epoch):
        rates.append(optimizer.param_groups[0]["lr"] / config.train.lr)
        optimizer.step()
        scheduler.step()
    return rates


@settings(max_examples=40, deadline=None)
@given(epochs=st.integers(1, 200), model=st.sampled_from(["dpm_vit_tiny", "osnet_x1_0"]))
def test_any_number_of_epochs_has_a_schedule_that_trains(epochs, model):
    base = load_config(QUICK_START)
    settings_of = {**dict(budget.stock_overrides(model, base)), "model.name": model}
    config = load_config(QUICK_START, overrides=settings_of)
    schedule = dict(budget.schedule_overrides(config, epochs))
    fitted = load_config(QUICK_START, overrides={**settings_of, **schedule})
    assert fitted.train.max_epoch == epochs
    assert max(learning_rates(fitted)) > 0.7


def test_a_schedule_fitted_to_its_own_number_of_epochs_is_unchanged():
    config = load_config(QUICK_START)
    schedule = budget.schedule_overrides(config, config.train.max_epoch)
    assert load_config(QUICK_START, overrides=dict(schedule)) == config


def test_decay_steps_keep_their_place():
    config = load_config(overrides={"train.lr_scheduler": "multi_step", "train.stepsize": [20, 40]})
    assert dict(budget.schedule_overrides(config, 30)) == {"train.max_epoch": 30, "train.stepsize": (10, 20)}


@given(seconds=st.floats(1e-3, 1e6), each=st.floats(1e-3, 1e5))
def test_the_epochs_that_fit_are_as_many_as_possible_and_at_least_one(seconds, each):
    epochs = budget.epochs_that_fit(seconds, each)
    assert epochs == 1 or epochs * each <= seconds * (1 + 1e-9)
    assert (epochs + 1) * each > seconds * (1 - 1e-9)


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, math.inf])
def test_no_time_at_all_is_an_error(seconds):
    with pytest.raises(DPMError, match="trains nothing"):
        budget.epochs_that_fit(seconds, 2.0)


# ---- the comparison ----


class FakeRun(NamedTuple):
    label: str
    config_file: str
    model: str
    overrides: tuple
    seed: int


def fake_sweep(told, rank1=None):
    """Stands for experiments.reproduce.sweep; results are made up from model and seed."""

    def run_all(runs, base, *, root, jobs, threads, echo):
        told.append(("train", runs, base, root, jobs, threads))
        return {
            run: {
                "datasets": {
                    name: {
                        "headline": {"row": "after/on", "rank1": 0.1 * run.seed + 0.01 * len(run.model), "mAP": 0.5},
                        "phases": {"train": {"seconds": 60.0 * run.seed}} if "vit" in run.model else {},
                    }
                    for name in ("synthetic_occluded", "occluded_duke", "market1501")
                }
            }
            for run in runs
        }

    return SimpleNamespace(Run=FakeRun, run_all=run_all)


def fake_measure(told):
    def measure(model, config_file, overrides, **options):
        told.append(("measure", model, dict(overrides), options))
        return cost.Cost(
            2_000_000, 3_000_000_000, 12.0, 0.1, 34.0, 0.2, 1234.0, None, 200.0, epoch_seconds=50.0 + len(model)
        )

    return measure


def compared(told, models=("dpm_vit_tiny", "osnet_x1_0"), file=QUICK_START, **options):
    return compare(
        models, file, out="out", measure=fake_measure(told), sweep=fake_sweep(told), echo=lambda line: None, **options
    )


def test_everything_is_measured_before_anything_is_trained_and_every_seed_of_every_model_is_run():
    told = []
    compared(told, seeds=(1, 2), jobs=2, root="data")
    assert [entry[0] for entry in told] == ["measure", "measure", "train"]
    assert [(run.model, run.seed) for run in told[-1][1]] == [
        ("dpm_vit_tiny", 1),
        ("dpm_vit_tiny", 2),
        ("osnet_x1_0", 1),
        ("osnet_x1_0", 2),
    ]
    threads = max(1, cores() // 2)
    assert told[-1][2:] == (Path("out/runs"), "data", 2, threads)
    assert told[0][3] == dict(root="data", threads=threads, cache=Path("out/costs"))


def test_minutes_give_each_model_as_many_epochs_as_its_own_speed_allows():
    told = []
    rows = compared(told, budget=Budget("minutes", 5)).rows
    assert [row.epochs for row in rows] == [300 // 62, 300 // 60]
    trained = {run.model: dict(run.overrides)["train.max_epoch"] for run in told[-1][1]}
    assert trained == {"dpm_vit_tiny": 4, "osnet_x1_0": 5}


def test_epochs_are_the_same_for_all_and_without_a_budget_the_configs():
    assert {row.epochs for row in compared([], budget=Budget("epochs", 3)).rows} == {3}
    assert {row.epochs for row in compared([]).rows} == {load_config(QUICK_START).train.max_epoch}


def test_what_the_user_sets_reaches_every_run_and_wins_over_the_stock_settings():
    told = []
    compared(told, overrides=(("train.lr", "0.5"),), targets=["occluded_duke", "market1501"])
    for run in told[-1][1]:
        config = load_config(run.config_file, overrides={**dict(run.overrides), "model.name": run.model})
        assert config.train.lr == 0.5 and config.data.targets == ["occluded_duke", "market1501"]
        assert config.loss.name == ("dpm" if run.model == "dpm_vit_tiny" else "softmax")


@pytest.mark.parametrize(
    "models, overrides, expected",
    [(["dpm_vit_tiny", "osnet_x1_1"], (), "osnet_x1_0"), (["dpm_vit_tiny"], (("train.lrr", "1"),), "train.lr")],
)
def test_a_mistake_ends_it_before_anything_is_measured(models, overrides, expected):
    told = []
    with pytest.raises(DPMError, match=expected):
        compared(told, models, overrides=overrides)
    assert told == []


def test_the_markdown_table_has_mean_and_deviation_over_the_seeds_and_the_costs():
    comparison = compared([], targets=["occluded_duke", "market1501"], seeds=(1, 2, 3))
    text = table.markdown(comparison, "the command")
    header, _, dpm, osnet = [line for line in text.splitlines() if line.startswith("|")]
    assert header.count("rank-1") == 2 and header.count("|") == dpm.count("|") == osnet.count("|")
    cells = [cell.strip() for cell in dpm.strip("|").split("|")]
    assert cells == [
        "dpm_vit_tiny",
        "32.0 ± 10.0",
        "50.0 ± 0.0",
        "32.0 ± 10.0",
        "50.0 ± 0.0",
        "18",
        "2.0 ± 1.0",
        "2.00",
        "3.000",
        "12",
        "34",
        "1,234",
        "—",
    ]
    assert " — " in osnet  # torchreid's engine says no training seconds
    assert "multiply-add counted as 2" in text and "seeds 1, 2, 3" in text and "```\nthe command\n```" in text


def test_one_seed_has_no_deviation():
    text = table.markdown(compared([]))
    assert "±" not in next(line for line in text.splitlines() if line.startswith("| dpm"))


def test_the_csv_has_a_line_for_each_model_and_target_with_unrounded_numbers():
    text = table.csv_text(compared([], targets=["occluded_duke", "market1501"], seeds=(1, 2)))
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [(line["model"], line["target"]) for line in lines] == [
        ("dpm_vit_tiny", "occluded_duke"),
        ("dpm_vit_tiny", "market1501"),
        ("osnet_x1_0", "occluded_duke"),
        ("osnet_x1_0", "market1501"),
    ]
    assert float(lines[2]["rank1_mean"]) == pytest.approx(0.25) and lines[2]["extract_memory_mb"] == ""
    assert float(lines[0]["rank1_std"]) == pytest.approx(math.sqrt(0.005)) and lines[0]["seeds"] == "2"


# ---- the command line ----


def test_key_value_pairs_end_the_lists_before_them():
    args = cli.parse(["mlfn", "pcb_p6", "mlfn", "--seeds", "1", "2", "train.lr", "0.1", "data.height", "64"])
    assert (args.models, args.seeds) == (["mlfn", "pcb_p6"], [1, 2])
    assert args.overrides == (("train.lr", "0.1"), ("data.height", "64"))
    args = cli.parse(
        ["mlfn", "--out", "data.old", "--budget", "minutes", "0.5", "-t", "market1501", "test.ranks", "[1]"]
    )
    assert (args.out, args.budget, args.targets) == ("data.old", Budget("minutes", 0.5), ["market1501"])


@pytest.mark.parametrize(
    "argv, expected",
    [
        ([], "MODEL"),
        (["mlfn", "--budget", "epochs", "1.5"], "epochs N"),
        (["mlfn", "--budget", "minutes", "0"], "above 0"),
        (["mlfn", "--budget", "minutes", "nan"], "above 0"),
        (["mlfn", "--budget", "hours", "1"], "hours"),
        (["mlfn", "--jobs", "0"], "--jobs"),
        (["mlfn", "--seeds", "one"], "--seeds"),
        (["mlfn", "train.lr"], "train.lr"),
        (["mlfn", "train.max_epoch", "3"], "--budget"),
        (["mlfn", "train.lr", "1", "--jobs", "2"], "--jobs"),
    ],
)
def test_a_wrong_option_is_one_line_with_exit_code_2(capsys, argv, expected):
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    error = capsys.readouterr().err
    assert caught.value.code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert expected in error


def test_an_unknown_model_is_one_line_with_exit_code_2_and_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["resnet51"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "'resnet50'" in error
    assert not any(tmp_path.iterdir())


def test_ctrl_c_ends_with_130_and_no_traceback(capsys, monkeypatch):
    def interrupted(*args, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "compare", interrupted)
    assert cli.main(["mlfn"]) == 130
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
def test_a_model_is_compared_from_the_command_line_and_a_second_call_repeats_nothing(place, monkeypatch, capsys):
    monkeypatch.chdir(place)
    monkeypatch.setattr(cost, "subprocess", SimpleNamespace(run=run_module))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    argv = [
        "osnet_x0_25",
        "--config-file",
        "recipe.yaml",
        "--root",
        "data",
        "--budget",
        "epochs",
        "1",
        "--jobs",
        "99",
        "--out",
        "out",
        "data.height",
        "32",
        "data.width",
        "16",
    ]  # 99 jobs: one thread each
    assert cli.main(argv) == 0, capsys.readouterr().err
    text = (place / "out" / "compare.md").read_text(encoding="utf-8")
    assert text in capsys.readouterr().out and "tools/compare.py osnet_x0_25" in text
    (line,) = csv.DictReader(io.StringIO((place / "out" / "compare.csv").read_text(encoding="utf-8")))
    assert (line["model"], line["row"], line["epochs"]) == ("osnet_x0_25", "embedding", "1")
    made = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.json")}
    assert cli.main(argv) == 0
    assert {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*.json")} == made
