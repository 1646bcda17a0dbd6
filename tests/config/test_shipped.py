"""The configuration files of the repository: published settings, and where released ones differ."""

from pathlib import Path

import pytest

from dpm_plugin.config import SCHEMA, flat, load_config

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(path.name for path in CONFIGS.glob("*.yaml"))
RELEASED = sorted(path.name for path in (CONFIGS / "released").glob("*.yaml"))


def released_difference(name):
    ours, theirs = (dict(flat(load_config(str(CONFIGS / folder / name)))) for folder in ("", "released"))
    return {key: (ours[key], theirs[key]) for key in SCHEMA if ours[key] != theirs[key]}


def test_the_shipped_files_are_the_documented_ones():
    sets = ["dpm_dukemtmc.yaml", "dpm_market1501.yaml", "dpm_occduke.yaml", "dpm_occreid.yaml"]
    assert sets == RELEASED
    assert sorted([*sets, "dpm_synthetic.yaml", "dpm_parts_synthetic.yaml", "dpm_parts_occduke.yaml"]) == NAMES


@pytest.mark.parametrize("base, model", [("synthetic", "dpm_vit_parts_tiny"), ("occduke", "dpm_vit_parts")])
def test_the_files_of_parts_differ_from_dpms_in_the_model_only(base, model):
    plain, parts = (dict(flat(load_config(str(CONFIGS / f"dpm_{name}.yaml")))) for name in (base, f"parts_{base}"))
    different = {key for key in SCHEMA if plain[key] != parts[key]}
    assert different == {"model.name", "data.save_dir"} and parts["model.name"] == model


@pytest.mark.parametrize("folder", ["", "released"])
@pytest.mark.parametrize(
    "name, source, target, stride, margin, beta, epochs, jitter",
    [
        ("dpm_occduke.yaml", "occluded_duke", "occluded_duke", 11, 0.5, 0.1, 150, False),
        ("dpm_occreid.yaml", "market1501", "occluded_reid", 12, 0.3, 0.01, 50, True),
        ("dpm_market1501.yaml", "market1501", "market1501", 12, 0.3, 0.1, 150, False),
        ("dpm_dukemtmc.yaml", "dukemtmcreid", "dukemtmcreid", 12, 0.3, 0.1, 150, False),
    ],
)
def test_each_data_set_has_its_published_settings(folder, name, source, target, stride, margin, beta, epochs, jitter):
    config = load_config(str(CONFIGS / folder / name))
    assert (config.data.sources, config.data.targets) == ([source], [target])
    assert (config.vit.stride, config.loss.dpm.margin, config.loss.dpm.beta) == (stride, margin, beta)
    assert config.train.max_epoch == epochs
    assert ("jitter" in config.data.transforms) == jitter
    assert {"random_flip", "pad_crop", "erase_pixel"} <= set(config.data.transforms)
    assert (config.data.height, config.data.width, config.data.interpolation) == (256, 128, "bicubic")
    assert config.data.norm_mean == config.data.norm_std == [0.5, 0.5, 0.5]
    assert (config.model.name, config.model.pretrained, config.loss.name) == ("dpm_vit", True, "dpm")
    assert (config.train.optim, config.train.lr, config.train.weight_decay) == ("sgd", 0.008, 1e-4)
    assert (config.train.batch_size, config.sampler.num_instances, config.train.seed) == (64, 4, 1234)
    assert config.sampler.train_sampler == "RandomIdentitySampler"
    assert (config.train.bias_lr_mult, config.sgd.momentum) == (2.0, 0.9)
    assert (config.train.lr_scheduler, config.train.warmup_epochs) == ("warmup_cosine", 5)
    assert (config.train.warmup_factor, config.train.final_factor) == (0.01, 0.002)
    assert (config.loss.dpm.alpha, config.loss.dpm.scale, config.vit.camera_weight) == (0.5, 30.0, 3.0)
    assert (config.loss.dpm.label_smooth, config.loss.dpm.triplet_margin) == (0.0, None)
    assert config.vit.drop_path == 0.1


@pytest.mark.parametrize("name", RELEASED)
def test_released_differs_from_ours_in_the_documented_keys_and_no_other(name):
    expected = {
        "loss.dpm.head_input": ("attention", "logits"),
        "loss.dpm.head_reduction": ("mean", "released"),
        "vit.mask_pool": ("avg", "max"),
        "vit.prototype_init": ("normal", "xavier"),
        "train.mask_schedule": ("cosine", "constant"),
        "test.feature": ("after", "before"),
    }
    if name == "dpm_occreid.yaml":
        expected["test.cameras"] = ("auto", [0, 2])
    found = released_difference(name)
    assert found.pop("data.save_dir")[1].startswith("log/released/")
    assert found == expected


@pytest.mark.parametrize("name", RELEASED)
def test_every_line_that_differs_in_a_released_file_is_marked(name):
    def lines(folder):
        text = (CONFIGS / folder / name).read_text(encoding="utf-8").splitlines()
        return [line for line in text if line.strip() and not line.startswith("#")]

    ours, theirs = lines(""), lines("released")
    marked = {line for line in theirs if "# released:" in line}
    assert set(theirs) - set(ours) == marked


def test_the_quick_start_needs_no_weights_and_no_data():
    config = load_config(str(CONFIGS / "dpm_synthetic.yaml"))
    assert config.model.pretrained is False
    assert config.data.sources == config.data.targets == ["synthetic_occluded"]
