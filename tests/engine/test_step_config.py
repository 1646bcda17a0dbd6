"""The step's options from the configuration to a run, and back from its checkpoint."""

import json
from contextlib import nullcontext

import pytest
import torch

from dpm_plugin import build
from dpm_plugin.config import load_config
from dpm_plugin.config.arguments import datamanager_kwargs, engine_kwargs, engine_run_kwargs
from dpm_plugin.utils.errors import DPMError
from helpers.runs import SETTINGS, finished_run

OPTIONS = {
    "train.steps": "simultaneous",
    "train.accumulate": 2,
    "train.conv_layout": "channels_last",
    "train.grad_checkpointing": True,
    "train.optim": "sgd",
    "train.optim_form": "fused",
    "train.amp": "bfloat16",
}


def keywords(options):
    return {name.replace(".", "__"): value for name, value in options.items()}


def test_defaults_are_the_papers_two_steps_with_nothing_switched_on():
    kwargs = engine_kwargs(load_config(overrides=SETTINGS))
    kwargs.pop("use_gpu")
    assert kwargs == dict(
        amp="off", steps="alternating", accumulate=1, compile_backend=None, conv_layout="auto", grad_checkpointing=False
    )
    assert not datamanager_kwargs(load_config())["persistent_workers"]


def test_compile_means_inductor():
    assert engine_kwargs(load_config(overrides={**SETTINGS, "train.compile": True}))["compile_backend"] == "inductor"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def test_a_run_with_every_option_is_resumed_without_them_and_the_other_way_round(root, tmp_path):
    kept = {key: OPTIONS[key] for key in ("train.optim", "train.steps")}  # these give another result
    for name, (first, then) in {"away": (OPTIONS, kept), "towards": (kept, OPTIONS)}.items():
        folder, _, _ = finished_run(tmp_path / name, root, **keywords(first))
        places = {"data.root": str(root), "data.save_dir": str(tmp_path / f"{name}2")}
        config = load_config(overrides={**SETTINGS, **places, **then, "train.max_epoch": 2})
        engine = build.build_run(config)
        optimizer = engine.optimizer
        assert (engine.two_steps.order, engine.accumulate) == (config.train.steps, config.train.accumulate)
        assert bool(optimizer.param_groups[0]["fused"]) == (config.train.optim_form == "fused")
        start = engine.resume(folder / "model" / "last.pth.tar")
        assert bool(optimizer.param_groups[0]["fused"]) == (config.train.optim_form == "fused")
        engine.run(**engine_run_kwargs(config, start))
        results = json.loads((tmp_path / f"{name}2" / "results.json").read_text())
        assert results["run"]["config"]["train"]["steps"] == config.train.steps
        states = [
            torch.load(path / "model" / "last.pth.tar", weights_only=True) for path in (folder, tmp_path / f"{name}2")
        ]
        assert [state["epoch"] for state in states] == [1, 2]
        assert list(states[0]["state_dict"]) == list(states[1]["state_dict"])


def test_a_baseline_trains_with_every_option(root, tmp_path):
    folder, model, _ = finished_run(tmp_path, root, model__name="vit_baseline_tiny", **keywords(OPTIONS))
    assert not model.has_mask and (folder / "results.json").is_file()


def test_the_optimizers_form_is_for_the_plugins_models():
    config = load_config(overrides={"model.name": "osnet_x0_25", "train.optim_form": "fused"})
    with pytest.raises(DPMError, match="train.optim_form"):
        build.check_names(config)


CONSTANT, WARMUP = {"train.mask_schedule": "constant"}, {"train.lr_scheduler": "warmup_cosine"}
SHORT = {"loss.dpm.mask_renormalise": False}


@pytest.mark.parametrize(
    "model, loss, changes, said",
    [
        ("osnet_x0_25", "softmax", {"train.mask_lr_mult": 2}, "is for a mask generator, but 'osnet_x0_25'"),
        ("osnet_x0_25", "softmax", CONSTANT | WARMUP, "set it to cosine"),
        ("vit_baseline", "dpm", {"train.mask_lr_mult": 2}, "set it to 1.0"),
        ("vit_baseline", "dpm", CONSTANT | WARMUP, "'vit_baseline' with loss.name dpm trains none"),
        ("dpm_vit", "triplet", CONSTANT | WARMUP, "'dpm_vit' with loss.name triplet trains none"),
        ("dpm_vit", "dpm", CONSTANT, "warmup_cosine only"),
        ("dpm_vit", "dpm", CONSTANT | WARMUP | {"train.mask_lr_mult": 2}, None),
        ("dpm_vit", "dpm", SHORT | {"loss.dpm.mask_variant": "P"}, "mask_renormalise False would be ignored"),
        ("dpm_vit", "dpm", SHORT | {"loss.dpm.mask_variant": "P+F"}, "mask_variant P\\+F normalises"),
        ("dpm_vit", "dpm", SHORT | {"loss.dpm.mask_variant": "Pn+Fn"}, None),
    ],
)
def test_a_setting_of_the_mask_that_would_be_ignored_is_refused(model, loss, changes, said):
    config = load_config(overrides={"model.name": model, "loss.name": loss, **changes})
    with pytest.raises(DPMError, match=said) if said else nullcontext():
        build.check_names(config)
