"""Configuration: a superset of torchreid's keys whose every mistake is one readable line."""

import dataclasses

import pytest
import torch
import yaml

from dpm_plugin.config import arguments as cfg
from dpm_plugin.config import flat, load_config
from dpm_plugin.data.synthetic.spec import SyntheticSpec
from dpm_plugin.torchreid_host import optim
from helpers.config import error_of, write

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
train: {optim: 'amsgrad', lr: 0.0015, max_epoch: 150, batch_size: 64, fixbase_epoch: 10, open_layers: ['classifier'],
  lr_scheduler: 'cosine'}
test: {batch_size: 300, dist_metric: 'euclidean', normalize_feature: False, evaluate: False,
  eval_freq: -1, rerank: False}
"""
STOCK_TRIPLET = """
model: {name: 'resnet50_fc512'}
data:
  sources: ['market1501', 'dukemtmcreid']
  targets: ['cuhk03']
  transforms: ['random_flip', 'random_crop', 'random_patch']
  norm_mean: [0.485, 0.456, 0.406]
sampler: {train_sampler: 'RandomIdentitySampler', num_instances: 4}
cuhk03: {labeled_images: True}
loss:
  name: 'triplet'
  triplet: {margin: 0.3, weight_t: 1, weight_x: 1e-1}
train: {optim: 'sgd', lr: 0.05, staged_lr: True, stepsize: [20, 40], lr_scheduler: 'multi_step'}
sgd: {nesterov: True}
video: {seq_len: 8}
use_gpu: False
"""


# ---- torchreid's keys ----


def test_defaults_of_torchreids_keys_are_torchreids():
    config = load_config()
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
    expected = dict(flat(load_config()), **given_values)
    expected["use_gpu"] = config.use_gpu
    if "loss.triplet.weight_x" in given_values:
        expected["loss.triplet.weight_x"] = 0.1  # YAML 1.1 reads 1e-1 as a text
    assert dict(flat(config)) == expected


def test_stock_arguments_are_those_torchreids_builders_take(tmp_path):
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


def test_a_loaded_config_cannot_be_changed_and_shares_no_list_with_another():
    config = load_config()
    with pytest.raises(AttributeError):
        config.train.lr = 1.0
    config.data.sources.append("other")
    assert load_config().data.sources == ["market1501"]


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
    (tmp_path / "folder.yaml").mkdir()
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    for name, said in (("absent", "cannot be read"), ("folder", "cannot be read"), ("binary", "UTF-8")):
        assert said in error_of(str(tmp_path / f"{name}.yaml"))


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
