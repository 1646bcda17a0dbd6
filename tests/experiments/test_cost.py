"""What a model costs: FLOPs, speed and memory, measured in processes of their own and kept."""

import io
import json
import math
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from dpm_plugin import DPMError, build
from dpm_plugin.apps.compare import cost, measuring
from dpm_plugin.apps.compare.budget import stock_overrides
from dpm_plugin.apps.compare.run import Run
from dpm_plugin.config import load_config
from dpm_plugin.utils import timing as phases
from experiments.reproduce.tables import STOCK_MODELS
from helpers.compare import write_recipe
from helpers.model import tiny_model

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:occluded_duke")]  # drawn smaller than published


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return write_recipe(tmp_path_factory.mktemp("cost"))


def config_of(place, model):
    file = str(place / "recipe.yaml")
    named = {"model.name": model, "data.root": str(place / "data")}
    return load_config(file, overrides=stock_overrides(model, load_config(file)) | named)


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
    assert measuring.count_flops(model, 64, 32) == expected + attention  # retrieval needs no head logits


def test_counting_flops_leaves_the_models_mode_alone():
    model = tiny_model().train()
    measuring.count_flops(model, 64, 32)
    assert model.training


# ---- measuring ----


def test_speed_is_the_median_batch_after_the_first_two_and_counts_the_waiting_for_images(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(phases.time, "perf_counter", lambda: now[0])
    loading, working = iter([9, 9, 1, 1, 50, 1, 1]), iter([9, 9, 3, 3, 3, 3, 90])

    def loader():
        for _ in range(7):
            now[0] += next(loading)
            yield {"img": torch.zeros(8, 1)}

    def step(batch):
        now[0] += next(working)

    speed = measuring.speed(loader(), step, torch.device("cpu"), seconds=150)
    times = {name: value for name, value in speed.items() if not name.startswith("peak_")}
    assert times == {"images_per_second": 2.0, "loading_share": 0.25}  # 8 images in 4 s, 1 of them waiting


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
    config = config_of(place, "dpm_vit_tiny")
    found = measuring.measure_training(config, seconds=0)
    assert len(steps) == measuring.WARM_UP + measuring.FEWEST
    assert all({"loss", "masked_2"} <= set(summary) for summary in steps)  # both steps
    model = build.build_model(config, build.build_datamanager(config))
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert (found["iterations"], found["batch_size"]) == (4, 4)
    assert found["images_per_second"] > 0 and 0 <= found["loading_share"] <= 1 and found["peak_memory_mb"] > 0


@pytest.mark.parametrize("model", STOCK_MODELS)
def test_every_stock_model_of_table_1_trains_and_extracts_small_images_under_a_dpm_recipe(place, model):
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


def test_a_model_that_cannot_take_the_image_size_is_an_error_that_says_so(place):
    with pytest.raises(DPMError, match="'hacnn' does not run on images of 96x48.*160"):
        measuring.measure_training(config_of(place, "hacnn"), seconds=0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux hands the size of the parent on in ru_maxrss")
def test_the_peak_is_this_process_s_own_not_that_of_the_one_that_started_it():
    code = (
        "import importlib.util, sys, types; sys.modules['torch'] = types.SimpleNamespace(device=object); "
        "spec = importlib.util.spec_from_file_location('phases', sys.argv[1]); "
        "phases = importlib.util.module_from_spec(spec); spec.loader.exec_module(phases); "
        "print(phases._peak_resident())"
    )
    ballast = np.ones(300_000_000, np.uint8)  # so that this process is large for certain
    child = subprocess.run([sys.executable, "-c", code, phases.__file__], capture_output=True, text=True, check=True)
    assert 1e6 < int(child.stdout) < len(ballast)


def test_a_request_is_answered_on_stdout_and_a_mistake_is_one_line(place, monkeypatch, capsys):
    overrides = {"data.root": str(place / "data"), "data.height": 32, "data.width": 16}
    request = {"what": "extraction", "config_file": str(place / "recipe.yaml"), "seconds": 0, "overrides": overrides}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(request)))
    assert measuring.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["flops"] > 0 and found["batch_size"] == 2 and found["idle_memory_mb"] > 0
    overrides["model.name"] = "osnet_x1_1"
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
def interpreter(tmp_path, monkeypatch):
    """A program in Python's place: it notes questions in ``asked`` and answers, or does what ``behave`` says."""
    path = tmp_path / "python"
    monkeypatch.setattr(sys, "executable", str(path))

    def behave(behaviour):
        path.write_text(
            f"#!/bin/sh\ncat >> {tmp_path}/asked\necho >> {tmp_path}/asked\n"
            f"echo $OMP_NUM_THREADS > {tmp_path}/threads\n{behaviour}\n"
        )
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    behave.asked = lambda: [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]
    behave(f"echo '{json.dumps(ANSWER)}'")
    return behave


def run_of(**overrides):
    return Run("a", "", "mlfn", tuple((key.replace("__", "."), value) for key, value in overrides.items()), 1)


def test_training_and_extraction_are_measured_in_processes_of_their_own(interpreter, tmp_path):
    found = cost.measure_cost(run_of(train__lr=1.0), root="data", threads=3)
    first, second = interpreter.asked()
    assert (first["what"], second["what"]) == ("training", "extraction")
    assert first["overrides"] == {"train.lr": 1.0, "model.name": "mlfn", "data.root": "data"}
    assert (tmp_path / "threads").read_text().strip() == "3"
    assert found.epoch_seconds == 10 * 4 / 20 and (found.parameters, found.flops) == (5, 7)


def test_a_kept_measurement_is_not_repeated_unless_something_changes_or_it_is_damaged(interpreter, tmp_path):
    asked = dict(cache=tmp_path / "costs", threads=1)
    for _ in range(2):
        assert cost.training_speed(run_of(train__lr=1.0), **asked) == 2.0
    (kept,) = (tmp_path / "costs").iterdir()
    assert len(interpreter.asked()) == 1
    cost.training_speed(run_of(train__lr=2.0), **asked)
    cost.training_speed(run_of(train__lr=2.0), **{**asked, "threads": 2})
    assert len(interpreter.asked()) == 3
    kept.write_text("{")
    assert cost.training_speed(run_of(train__lr=1.0), **asked) == 2.0
    assert json.loads(kept.read_text()) == ANSWER


@pytest.mark.parametrize(
    "behaviour, expected",
    [
        ("echo one >&2; echo 'error: no such data' >&2; exit 2", "training of 'mlfn': no such data$"),
        ("kill -9 $$", "signal 9.*memory"),
    ],
)
def test_a_failed_measurement_says_which_and_why(interpreter, behaviour, expected):
    interpreter(behaviour)
    with pytest.raises(DPMError, match=expected):
        cost.training_speed(run_of())
