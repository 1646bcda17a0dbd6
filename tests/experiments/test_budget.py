"""One budget for different models: torchreid's own recipes under DPM's configs, and the epochs that fit into a time."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpm_plugin import DPMError, build
from dpm_plugin.apps.compare.budget import epochs_that_fit, schedule_overrides, stock_overrides
from dpm_plugin.config import load_config
from experiments.reproduce.tables import STOCK_MODELS

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QUICK_START = str(CONFIGS / "dpm_synthetic.yaml")


def test_the_plugins_models_and_torchreids_own_recipes_need_nothing():
    dpm = load_config(QUICK_START)
    assert stock_overrides("dpm_vit_tiny", dpm) == stock_overrides("vit_baseline", dpm) == {}
    assert stock_overrides("osnet_x1_0", load_config()) == {}  # loss.name softmax already


@pytest.mark.parametrize("name", [path.relative_to(CONFIGS).as_posix() for path in sorted(CONFIGS.rglob("dpm_*.yaml"))])
def test_stock_overrides_fit_every_recipe_and_keep_its_pretraining(name):
    file = str(CONFIGS / name)
    base = load_config(file)
    mean = [0.485, 0.456, 0.406] if base.model.pretrained else base.data.norm_mean
    for model in STOCK_MODELS:
        config = load_config(file, overrides=stock_overrides(model, base) | {"model.name": model})
        build.check_names(config)
        assert config.model.pretrained == base.model.pretrained and config.data.norm_mean == mean
        assert config.data.transforms == base.data.transforms


@pytest.mark.parametrize("model", ["vit_baseline_tiny", "dpm_vit_tiny"])
def test_a_released_recipe_fits_the_baseline_and_every_number_of_epochs(model):
    file = str(CONFIGS / "released" / "dpm_occduke.yaml")
    own = stock_overrides(model, load_config(file)) | {"model.name": model}
    for epochs in (1, 2, 5):
        short = schedule_overrides(load_config(file, overrides=own), epochs)
        build.check_names(load_config(file, overrides=own | short))


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
    stock = stock_overrides(model, load_config(QUICK_START)) | {"model.name": model}
    config = load_config(QUICK_START, overrides=stock)
    fitted = load_config(QUICK_START, overrides=stock | schedule_overrides(config, epochs))
    assert fitted.train.max_epoch == epochs
    assert max(learning_rates(fitted)) > 0.7


def test_a_schedule_fitted_to_its_own_number_of_epochs_is_unchanged():
    config = load_config(QUICK_START)
    assert load_config(QUICK_START, overrides=schedule_overrides(config, config.train.max_epoch)) == config


def test_decay_steps_keep_their_place():
    config = load_config(overrides={"train.lr_scheduler": "multi_step", "train.stepsize": [20, 40]})
    assert schedule_overrides(config, 30) == {"train.max_epoch": 30, "train.stepsize": (10, 20)}


@given(seconds=st.floats(1e-3, 1e6), each=st.floats(1e-3, 1e5))
def test_the_epochs_that_fit_are_as_many_as_possible_and_at_least_one(seconds, each):
    epochs = epochs_that_fit(seconds, each)
    assert epochs == 1 or epochs * each <= seconds * (1 + 1e-9)
    assert (epochs + 1) * each > seconds * (1 - 1e-9)


@pytest.mark.parametrize("seconds", [0, -1.0, math.nan, math.inf])
def test_no_time_at_all_is_an_error(seconds):
    with pytest.raises(DPMError, match="trains nothing"):
        epochs_that_fit(seconds, 2.0)
