"""Configuration: a superset of torchreid's keys whose every mistake is one readable line."""

import dataclasses
import difflib
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpm_plugin import config as cfg
from dpm_plugin.config import SCHEMA, default_config, flat, load_config
from dpm_plugin.config.types import KINDS, kind_of
from dpm_plugin.data.synthetic.spec import SyntheticSpec
from dpm_plugin.torchreid_host import optim
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import nearest

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
NAMES = sorted(path.name for path in CONFIGS.glob("*.yaml"))
RELEASED = sorted(path.name for path in (CONFIGS / "released").glob("*.yaml"))

# Keys, nesting and values in the manner of torchreid's own config files.
STOCK_SOFTMAX = """
model:
  name: 'osnet_x1_0'
  pretrained: True

data:
  type: 'image'
  sources: ['market1501']
  targets: ['market1501']
  height: 256
  width: 128
  combineall: False
  transforms: ['random_flip']
  save_dir: 'log/osnet_x1_0_market1501_softmax_cosinelr'

loss:
  name: 'softmax'
  softmax:
    label_smooth: True

train:
  optim: 'amsgrad'
  lr: 0.0015
  max_epoch: 150
  batch_size: 64
  fixbase_epoch: 10
  open_layers: ['classifier']
  lr_scheduler: 'cosine'

test:
  batch_size: 300
  dist_metric: 'euclidean'
  normalize_feature: False
  evaluate: False
  eval_freq: -1
  rerank: False
"""
STOCK_TRIPLET = """
model:
  name: 'resnet50_fc512'
data:
  sources: ['market1501', 'dukemtmcreid']
  targets: ['cuhk03']
  transforms: ['random_flip', 'random_crop', 'random_patch']
  norm_mean: [0.485, 0.456, 0.406]
sampler:
  train_sampler: 'RandomIdentitySampler'
  num_instances: 4
cuhk03:
  labeled_images: True
loss:
  name: 'triplet'
  triplet:
    margin: 0.3
    weight_t: 1
    weight_x: 1e-1
train:
  optim: 'sgd'
  lr: 0.05
  staged_lr: True
  stepsize: [20, 40]
  lr_scheduler: 'multi_step'
sgd:
  nesterov: True
video:
  seq_len: 8
use_gpu: False
"""


def write(folder, text, name="run.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def error_of(*args, **kwargs):
    with pytest.raises(DPMError) as caught:
        load_config(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- torchreid's keys ----


def test_defaults_of_torchreids_keys_are_torchreids():
    config = default_config()
    assert (config.model.name, config.model.pretrained) == ("resnet50", True)
    assert config.data.sources == config.data.targets == ["market1501"]
    assert (config.train.optim, config.train.lr, config.train.weight_decay) == ("adam", 3e-4, 5e-4)
    assert (config.train.max_epoch, config.train.batch_size, config.train.stepsize) == (60, 32, [20])
    assert (config.loss.name, config.loss.softmax.label_smooth) == ("softmax", True)
    assert (config.loss.triplet.margin, config.loss.triplet.weight_x) == (0.3, 0)
    assert (config.test.batch_size, config.test.ranks, config.test.visrank_topk) == (100, [1, 5, 10, 20], 10)


@pytest.mark.parametrize("text", [STOCK_SOFTMAX, STOCK_TRIPLET])
def test_a_stock_config_file_runs_unmodified_and_sets_exactly_its_keys(tmp_path, text):
    config = load_config(write(tmp_path, text))
    given_values = dict(flat(yaml.safe_load(text)))
    expected = dict(flat(default_config()), **given_values)
    expected["use_gpu"] = config.use_gpu
    if "loss.triplet.weight_x" in given_values:
        expected["loss.triplet.weight_x"] = 0.1  # YAML 1.1 reads 1e-1 as a text
    assert dict(flat(config)) == expected


def test_stock_arguments_are_those_torchreids_builders_take(tmp_path):
    import torch

    config = load_config(write(tmp_path, STOCK_SOFTMAX))
    model = torch.nn.Linear(2, 2)
    optimizer = optim.build_optimizer(model, **cfg.stock_optimizer_kwargs(config))
    assert optimizer.defaults["amsgrad"] and optimizer.defaults["lr"] == 0.0015
    scheduler = optim.build_lr_scheduler(optimizer, **cfg.stock_scheduler_kwargs(config))
    assert scheduler.T_max == 150
    run = cfg.engine_run_kwargs(config)
    assert (run["max_epoch"], run["fixbase_epoch"], run["open_layers"]) == (150, 10, ["classifier"])
    assert cfg.engine_run_kwargs(config, start_epoch=7)["start_epoch"] == 7


# ---- precedence ----


def test_file_then_options_then_pairs_later_wins(tmp_path):
    path = write(tmp_path, "train: {lr: 0.1, batch_size: 8}\ndata: {root: a}\n")
    config = load_config(path, ["train.lr", "0.3", "data.root", "c"], {"data.root": "b", "train.lr": 0.2})
    assert (config.train.lr, config.train.batch_size, config.data.root) == (0.3, 8, "c")


def test_a_loaded_config_cannot_be_changed():
    with pytest.raises(AttributeError):
        load_config().train.lr = 1.0


def test_two_configs_share_no_list():
    first = default_config()
    first.data.sources.append("other")
    assert default_config().data.sources == ["market1501"]


# ---- unknown keys ----


@st.composite
def misspelt(draw):
    name = draw(st.sampled_from(sorted(SCHEMA)))
    at = draw(st.integers(0, len(name) - 1))
    edit = draw(st.sampled_from(["drop", "double", "swap", "replace"]))
    letter = draw(st.sampled_from("abexyz_0"))
    typo = {
        "drop": name[:at] + name[at + 1 :],
        "double": name[:at] + name[at] + name[at:],
        "swap": name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
        "replace": name[:at] + letter + name[at + 1 :],
    }[edit]
    return name, typo


@given(misspelt())
@example(("train.lr", "trian.lr"))
@example(("vit.stride", "vit.strid"))
@settings(max_examples=150, deadline=None)
def test_a_misspelt_key_is_refused_with_a_known_key_at_least_as_close(pair):
    name, typo = pair
    if typo in SCHEMA or typo.startswith("--"):
        return
    message = error_of(opts=[typo, "1"])
    assert f"'{typo}'" in message
    if "is a section" in message:
        return
    suggested = message.rsplit("'", 2)[1]
    assert suggested in SCHEMA

    def likeness(other):
        return difflib.SequenceMatcher(None, other, typo).ratio()

    assert likeness(suggested) >= likeness(name)


@pytest.mark.parametrize(
    "typo, expected",
    [
        ("train.lrr", "train.lr"),
        ("trian.lr", "train.lr"),
        ("lr", "train.lr"),
        ("loss.dpm.apha", "loss.dpm.alpha"),
        ("dpm.head_input", "loss.dpm.head_input"),
        ("max_epoch", "train.max_epoch"),
        ("test.visrank_top", "test.visrank_topk"),
        ("synthetic.trian_ids", "synthetic.train_ids"),
    ],
)
def test_the_nearest_key_is_the_one_a_person_meant(typo, expected):
    assert nearest(typo, SCHEMA) == expected


def test_an_unknown_key_in_a_file_names_key_file_and_line(tmp_path):
    path = write(tmp_path, "train:\n  lr: 0.1\n  batchsize: 3\n")
    assert error_of(path) == (
        f"unknown key 'train.batchsize' in {path}, line 3; the nearest known key is 'train.batch_size'"
    )


# ---- wrong values ----


def test_every_default_has_the_type_choices_and_range_its_key_declares():
    from dpm_plugin.config.types import convert

    for name, key in SCHEMA.items():
        assert kind_of(key) in KINDS, name
        assert key.help, name
        value = convert(key, key.default)
        assert value == (list(key.default) if isinstance(key.default, tuple) else key.default), name


@given(st.sampled_from(sorted(SCHEMA)), st.dictionaries(st.text(max_size=2), st.integers(), max_size=1))
@settings(max_examples=100, deadline=None)
def test_no_key_takes_a_mapping(name, value):
    with pytest.raises(DPMError, match=name):
        load_config(overrides={name: value})


@pytest.mark.parametrize(
    "key, text, expected",
    [
        ("train.lr", "fast", "a number"),
        ("train.lr", "True", "a number"),
        ("train.lr", "-1", "at least 0"),
        ("train.lr", "None", "a number"),
        ("train.max_epoch", "1.5", "a whole number"),
        ("train.batch_size", "0", "at least 1"),
        ("data.sources", "market1501", "a list of texts"),
        ("model.pretrained", "1", "True or False"),
        ("loss.name", "arcface", "softmax, triplet, dpm"),
        ("train.amp", "fp16", "off, float16, bfloat16"),
        ("vit.mask_pool", "mean", "avg, max"),
        ("loss.dpm.mask_variant", "F", "Pn, Pn+Fn, P, P+F"),
        ("vit.stride", "[1, 2, 3]", "a list of two"),
        ("data.transforms", "[random_flop]", "random_flip, random_crop"),
        ("test.ranks", "[1, 0]", "at least 1"),
        ("test.cameras", "[0]", "text or a list of two"),
        ("test.cameras", "all", "auto, ids, none"),
        ("vit.drop_path", "1.0", "at most 0.99"),
        ("adam.beta1", "nan", "a number"),
        ("train.optim", "lion", "adam, amsgrad, sgd, rmsprop, radam, adamw"),
    ],
)
def test_a_wrong_value_names_key_and_what_was_expected(key, text, expected):
    message = error_of(opts=[key, text])
    assert f"'{key}'" in message and expected in message


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("train.lr", "1e-3", 1e-3),
        ("train.lr", "1", 1.0),
        ("use_gpu", "false", False),
        ("data.sources", "['a', 'b']", ["a", "b"]),
        ("data.sources", "[a, b]", ["a", "b"]),
        ("data.sources", "('a',)", ["a"]),
        ("data.save_dir", "2024", "2024"),
        ("data.root", "None", "None"),
        ("loss.dpm.triplet_margin", "None", None),
        ("loss.dpm.triplet_margin", "0.3", 0.3),
        ("vit.stride", "[12, 8]", [12, 8]),
        ("test.cameras", "[0, 2]", [0, 2]),
        ("train.amp", "off", "off"),
        ("data.norm_mean", "[0, 0.5, 1]", [0.0, 0.5, 1.0]),
    ],
)
def test_a_value_on_the_command_line_is_read_as_its_keys_type(key, text, value):
    got = dict(flat(load_config(opts=[key, text])))[key]
    assert got == value and type(got) is type(value)


@given(st.floats(0, 10), st.integers(1, 10**6), st.booleans(), st.lists(st.integers(1, 99), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_values_survive_yaml_and_the_command_line(tmp_path_factory, lr, size, flag, ranks):
    values = {"train.lr": lr, "train.batch_size": size, "model.pretrained": flag, "test.ranks": ranks}
    by_opts = load_config(opts=[text for key, value in values.items() for text in (key, repr(value))])
    by_file = load_config(write(tmp_path_factory.getbasetemp(), yaml.safe_dump(values)))
    assert dict(flat(by_opts)) == dict(flat(by_file))
    assert by_opts.train.lr == lr and by_opts.test.ranks == ranks


def test_unquoted_off_and_none_in_yaml_are_words(tmp_path):
    config = load_config(write(tmp_path, "train: {amp: off}\ntest: {cameras: none}\n"))
    assert (config.train.amp, config.test.cameras) == ("off", "none")


@pytest.mark.parametrize("opts", [["train.lr"], ["train.lr", "1", "data.root"]])
def test_an_odd_number_of_words_names_the_one_without_partner(opts):
    assert f"'{opts[-1]}' has no partner" in error_of(opts=opts)


def test_an_option_after_the_pairs_says_where_it_belongs():
    assert "'--root' comes after" in error_of(opts=["train.lr", "1", "--root", "x"])


# ---- unreadable files ----


@pytest.mark.parametrize(
    "text, expected",
    [
        ("train:\n  lr: [1\n", "no valid YAML"),
        ("train:\n\tlr: 1\n", "line 2"),
        ("- 1\n", "must hold 'key: v"),
        ("train: 3\n", "'train' in"),
        ("train:\n", "'train' in"),
        ("train: {lr: 1, lr: 2}\n", "twice"),
        ("train: {lr: !!python/name:os.system }\n", "no valid YAML"),
        ("a: \x00\n", "no valid YAML"),
    ],
)
def test_a_malformed_file_is_one_line_that_names_it(tmp_path, text, expected):
    path = write(tmp_path, text)
    message = error_of(path)
    assert expected in message and path in message


def test_an_empty_file_changes_nothing(tmp_path):
    assert dict(flat(load_config(write(tmp_path, "# nothing\n")))) == dict(flat(load_config()))


def test_a_python_file_is_refused_and_not_run(tmp_path):
    mark = tmp_path / "ran"
    path = write(tmp_path, f"open({str(mark)!r}, 'w')\ncfg = {{}}\n", "run.py")
    assert ".yaml" in error_of(path)
    assert not mark.exists()


def test_missing_folder_and_binary_config_files_are_errors(tmp_path):
    assert "cannot be read" in error_of(str(tmp_path / "absent.yaml"))
    (tmp_path / "folder.yaml").mkdir()
    assert "cannot be read" in error_of(str(tmp_path / "folder.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    assert "UTF-8" in error_of(str(tmp_path / "binary.yaml"))


# ---- settings that exclude each other ----


@pytest.mark.parametrize(
    "opts, named",
    [
        (["train.amp", "float16"], "train.amp"),
        (["loss.name", "dpm", "data.type", "video"], "data.type"),
        (["loss.name", "dpm", "data.k_tfm", "2"], "data.k_tfm"),
        (["test.visrank", "True"], "test.evaluate"),
        (["test.rerank", "True"], "test.evaluate"),
        (["synthetic.cameras", "99"], "synthetic.cameras"),
        (["data.norm_std", "[1.0]"], "data.norm_std"),
        (["test.ranks", "[]"], "test.ranks"),
        (["loss.name", "triplet", "train.fixbase_epoch", "1"], "loss.triplet.weight_x"),
        (["loss.name", "triplet", "loss.triplet.weight_t", "0"], "loss.triplet.weight_t"),
        (["train.steps", "simultaneous"], "train.steps"),
        (["train.accumulate", "2"], "train.accumulate"),
        (["train.compile", "True"], "train.compile"),
        (["train.conv_layout", "contiguous"], "train.conv_layout"),
        (["train.grad_checkpointing", "True"], "train.grad_checkpointing"),
        (["loss.name", "dpm", "train.accumulate", "33"], "train.batch_size"),
        (["data.persistent_workers", "True", "data.workers", "0"], "data.workers"),
        (["data.persistent_workers", "True", "data.type", "video"], "data.type"),
    ],
)
def test_settings_that_would_be_ignored_together_are_refused(opts, named):
    assert named in error_of(opts=opts)


# ---- synthetic data ----


def test_synthetic_keys_are_the_fields_of_the_spec():
    config = load_config(opts=["synthetic.train_ids", "12"])
    assert {name for name, _ in flat(config.synthetic)} == {f.name for f in dataclasses.fields(SyntheticSpec)}
    assert cfg.datamanager_kwargs(config)["synthetic"] == SyntheticSpec(train_ids=12)


# ---- the files we ship ----


def released_difference(name):
    ours, theirs = (dict(flat(load_config(str(CONFIGS / folder / name)))) for folder in ("", "released"))
    return {key: (ours[key], theirs[key]) for key in SCHEMA if ours[key] != theirs[key]}


def test_the_shipped_files_are_the_documented_ones():
    sets = ["dpm_dukemtmc.yaml", "dpm_market1501.yaml", "dpm_occduke.yaml", "dpm_occreid.yaml"]
    assert sets == RELEASED
    assert sorted(sets + ["dpm_synthetic.yaml"]) == NAMES


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
