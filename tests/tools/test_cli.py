"""tools/main.py as a user runs it: what it leaves behind, its exit codes, and one line for every mistake."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from dpm_plugin import build
from dpm_plugin.commands import train
from dpm_plugin.config import load_config
from helpers.forks import run_tool
from helpers.scripts import TOOLS

# The drawn data set is smaller than the published one, which is a warning.
pytestmark = [pytest.mark.slow, pytest.mark.torchreid, pytest.mark.filterwarnings("ignore:occluded_duke")]
RECIPE = "recipe.yaml"  # lies in the folder the commands are run from: a relative path
TINY_VIT = """
model: {name: dpm_vit_tiny, pretrained: False}
vit: {embed_dim: 16, depth: 2, num_heads: 2, patch_size: 8, stride: 8}
loss: {name: dpm}
data:
  sources: [occluded_duke]
  targets: [occluded_duke]
  height: 32
  width: 16
  workers: 0
  save_dir: out
sampler: {train_sampler: RandomIdentitySampler, num_instances: 2}
train: {optim: sgd, lr: 0.01, lr_scheduler: warmup_cosine, warmup_epochs: 1, batch_size: 8, max_epoch: 2,
        print_freq: 1}
test: {ranks: [1, 5]}
"""


def draw_occluded_duke(root, seed=0):
    """Noise in Occluded-Duke's folder structure: 8 identities to train, 6 to test with 1 query and 2 gallery images."""
    rng = np.random.RandomState(seed)

    def draw(split, pid, camera, frame):
        folder = root / "Occluded_Duke" / split
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.randint(0, 255, (32, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{pid:04d}_c{camera}_f{frame:07d}.jpg")

    for pid in range(1, 9):
        for camera in (1, 2):
            draw("bounding_box_train", pid, camera, 1)
    for pid in range(11, 17):
        draw("query", pid, 1, 1)
        draw("bounding_box_test", pid, 2, 1)
        draw("bounding_box_test", pid, 3, 1)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every command of this file, each in its own process; name -> finished process."""
    folder = tmp_path_factory.mktemp("cli")
    draw_occluded_duke(folder / "data")
    (folder / RECIPE).write_text(TINY_VIT, encoding="utf-8")
    dpm = "--config-file recipe.yaml --root data"
    trained = f"{dpm} model.load_weights out/model/last.pth.tar test.evaluate True"
    commands = {
        "train": f"{dpm} train.max_epoch 1",
        "stock model": "-m osnet_x0_25 -s occluded_duke -t occluded_duke --root data model.pretrained False "
        "data.height 32 data.width 16 data.workers 0 train.max_epoch 1 train.batch_size 8 test.ranks [1,5] "
        "data.save_dir stock",
        "wrong key": f"{dpm} train.max_epochs 1",
        "missing data set": "--config-file recipe.yaml -s market1501 --root data data.save_dir gone",
        "resume": f"{dpm} model.resume out/model/last.pth.tar data.save_dir resumed",
        "evaluate": f"{trained} data.save_dir evaluated",
        "rerank and visrank": f"{trained} test.rerank True test.visrank True test.visrank_topk 2 data.save_dir drawn",
    }
    done = {"folder": folder}
    done.update((name, run_tool(folder, TOOLS / "main.py", *args.split())) for name, args in commands.items())
    return done


def results(runs, save_dir):
    return json.loads((runs["folder"] / save_dir / "results.json").read_text(encoding="utf-8"))


def headline(runs, save_dir):
    return results(runs, save_dir)["datasets"]["occluded_duke"]["headline"]


def assert_mistake(process, *expected):
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1 and process.stderr.startswith("error: ")
    for text in expected:
        assert text in process.stderr


# ---- the commands ----


def test_training_ends_with_results_a_checkpoint_and_a_log(runs):
    process, folder = runs["train"], runs["folder"] / "out"
    assert process.returncode == 0, process.stderr
    assert "epoch: [1/1][2/2]" in process.stdout and "** Results **" in process.stdout
    rows = results(runs, "out")["datasets"]["occluded_duke"]["rows"]
    assert {"before/off", "before/on", "after/off", "after/on"} <= set(rows)
    assert (folder / "model" / "last.pth.tar").is_file()
    (log,) = folder.glob("train.log-*")
    assert log.read_text(encoding="utf-8") == process.stdout


def test_the_results_name_the_run_they_come_from(runs):
    run_info = results(runs, "out")["run"]
    assert run_info["model"] == "dpm_vit_tiny" and run_info["seed"] == 1
    assert run_info["config"]["vit"]["embed_dim"] == 16


def test_resuming_goes_on_after_the_last_finished_epoch(runs):
    process = runs["resume"]
    assert process.returncode == 0, process.stderr
    assert "epoch: [2/2]" in process.stdout and "epoch: [1/2]" not in process.stdout


def test_evaluate_only_finds_what_training_found_and_trains_nothing(runs):
    process = runs["evaluate"]
    assert process.returncode == 0, process.stderr
    assert "Start training" not in process.stdout
    assert headline(runs, "evaluated") == headline(runs, "out")
    assert list((runs["folder"] / "evaluated").glob("test.log-*"))
    assert not (runs["folder"] / "evaluated" / "model").exists()


def test_rerank_makes_the_reranked_row_the_headline(runs):
    assert runs["rerank and visrank"].returncode == 0, runs["rerank and visrank"].stderr
    assert headline(runs, "drawn")["row"] == "after/on+rerank"


def test_visrank_draws_one_picture_per_query(runs):
    assert runs["rerank and visrank"].returncode == 0, runs["rerank and visrank"].stderr
    drawn = sorted(path.name[:4] for path in (runs["folder"] / "drawn" / "visrank_occluded_duke").iterdir())
    assert drawn == [f"{pid:04d}" for pid in range(11, 17)]


def test_a_stock_torchreid_model_trains_and_is_evaluated_alike(runs):
    assert runs["stock model"].returncode == 0, runs["stock model"].stderr
    entry = results(runs, "stock")["datasets"]["occluded_duke"]
    assert list(entry["rows"]) == ["embedding"] and entry["counts"]["query"] == 6


def test_a_wrong_key_is_one_line_and_exit_code_2(runs):
    assert_mistake(runs["wrong key"], "'train.max_epochs'", "'train.max_epoch'")


def test_a_missing_data_set_is_one_line_that_shows_the_layout_and_nothing_is_created(runs):
    assert_mistake(runs["missing data set"], "market1501", "Market-1501-v15.09.15")
    assert not (runs["folder"] / "data" / "market1501").exists()


# ---- the same program in this process ----


@pytest.fixture
def tool():
    """dpm train as a module; what it changes outside itself is put back."""
    stdout, threads = sys.stdout, torch.get_num_threads()
    torch.set_num_threads(1)
    yield train
    torch.set_num_threads(threads)
    assert sys.stdout is stdout


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with data and the recipe."""
    draw_occluded_duke(tmp_path / "data")
    (tmp_path / RECIPE).write_text(TINY_VIT, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def mistake(tool, capsys, args, shows_config=False):
    """The one line on stderr of a run of the recipe that must end with exit code 2, with no configuration above it."""
    assert tool.main(["--config-file", RECIPE, "--root", "data", *args.split()]) == 2
    out, error = capsys.readouterr()
    assert ("Show configuration" in out) == shows_config
    assert error.startswith("error: ") and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    "args, expected",
    [
        ("-m dpm_vti", "'dpm_vit'"),
        ("-m osnet_x0_52 loss.name softmax", "'osnet_x0_"),
        ("-m osnet_x0_25", "loss.name dpm needs one of the plugin's models"),
        ("-s occluded_duck", "'occluded_duke'"),
        ("-s mine", "unknown data set (data.sources, data.targets) 'mine'; known: "),
        ("train.max_epoch 1 -t occluded_reid", "option '-t' comes after the first KEY VALUE pair"),
        ("-t ocluded_reid", "'occluded_reid'"),
        ("data.type video loss.name softmax", "data.type image"),
        ("data.type video loss.name softmax model.name osnet_x0_25", "'occluded_duke'"),
        ("train.staged_lr True", "train.staged_lr"),
        ("train.batch_size 500", "train.batch_size"),
        ("model.resume gone.pth", "'gone.pth'"),
        ("model.load_weights gone.pth", "'gone.pth'"),
        ("vit.pretrained_file gone.bin", "gone.bin"),  # never random weights instead
        ("vit.patch_size 64", "patch"),
        ("test.ranks [1,13]", "12 gallery images"),
        ("vit.mask_blocks [7]", "7"),
        ("vit.backbone vit_of_nobody", "vit_of_nobody"),
        ("train.lr nan", "train.lr"),
        ("sgd.nesterov True sgd.dampening 0.1", "Nesterov"),
        ("train.fixbase_epoch 1 train.open_layers [head]", "classifier"),
        (f"data.save_dir {RECIPE}", "data.save_dir"),  # a file
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(tool, capsys, here, args, expected):
    assert expected in mistake(tool, capsys, args)


def test_a_corrupt_image_is_one_line_that_names_it_in_a_worker_too(tool, capsys, here):
    victim = next((here / "data" / "Occluded_Duke" / "bounding_box_train").iterdir())
    victim.write_bytes(b"no image")
    for workers in ("0", "1"):
        error = mistake(tool, capsys, f"data.workers {workers}", shows_config=True)
        assert victim.name in error and "Traceback" not in error


def test_an_unknown_option_is_one_line_with_exit_code_2(tool, capsys):
    with pytest.raises(SystemExit) as caught:
        tool.main(["--confg"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_names_end_where_key_value_pairs_begin(tool):
    args = tool.parse(["-s", "a", "b", "-t", "c", "train.lr", "1", "data.root", "x"])
    assert args.opts == ["train.lr", "1", "data.root", "x"]
    assert tool.overrides_of(args) == {"data.sources": ["a", "b"], "data.targets": ["c"]}
    both = tool.overrides_of(tool.parse(["--transforms", "jitter", "--root", "x"]))
    assert both == {"data.transforms": ["jitter"], "data.root": "x"}
    assert tool.overrides_of(tool.parse(["-m", "dpm_vit"])) == {"model.name": "dpm_vit"}


def test_ctrl_c_ends_with_130_and_no_traceback(tool, capsys, monkeypatch):
    def interrupted(config, processes):
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, "run", interrupted)
    assert tool.main([]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(tool, monkeypatch):
    def broken(config, processes):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(tool, "run", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        tool.main([])


@pytest.mark.parametrize(
    "model, loss, optim",
    [
        ("vit_baseline_tiny", "dpm", "adamw"),
        ("vit_baseline_tiny", "triplet", "adam"),
        ("dpm_vit_tiny", "softmax", "sgd"),
    ],
)
def test_every_loss_trains_the_plugins_models(tool, here, model, loss, optim):
    args = f"--config-file {RECIPE} --root data -m {model} loss.name {loss} train.optim {optim} train.max_epoch 1"
    assert tool.main(f"{args} loss.triplet.weight_x 1 data.save_dir out".split()) == 0
    rows = json.loads((here / "out" / "results.json").read_text())["datasets"]["occluded_duke"]["rows"]
    assert ("after/on" in rows) == model.startswith("dpm")


@pytest.mark.parametrize("name", ["dpm_occduke.yaml", "released/dpm_occduke.yaml"])
def test_the_papers_recipe_runs_with_a_tiny_model_by_override(tool, here, name):
    small = "model.pretrained False vit.embed_dim 16 vit.depth 2 vit.num_heads 2 data.height 32 data.width 32"
    args = f"{small} data.workers 0 train.batch_size 8 train.max_epoch 1 test.ranks [1] data.save_dir out".split()
    config = str(TOOLS.parent / "configs" / name)
    assert tool.main(["--config-file", config, "-m", "dpm_vit_tiny", "--root", "data", *args]) == 0
    entry = json.loads((here / "out" / "results.json").read_text())["datasets"]["occluded_duke"]
    assert entry["headline"]["row"] == ("before/on" if "released" in name else "after/on")


def test_the_config_reaches_the_parts(tool, here):
    changes = (
        "data.root data vit.camera_weight 1.5 loss.dpm.scale 7.0 loss.dpm.mask_variant P test.feature before "
        "test.cameras [0,1] train.bias_lr_mult 3.0 vit.stride [8,4]"
    )
    engine = build.build_run(load_config(RECIPE, changes.split()))
    model, rates = engine.model, {group["initial_lr"] for group in engine.optimizer.param_groups}
    assert model.num_cameras == engine.datamanager.num_cameras == 2
    assert model.backbone.camera_weight == 1.5 and model.feature_dim == 16
    assert model.embed(torch.zeros(2, 3, 32, 16), need_heads=True).head_logits.shape == (2, 2, 4 * 3)  # stride 8 x 4
    assert engine.criterion.arcface.scale == 7.0 and engine.criterion.arcface.variant == "P"
    assert (engine.evaluation.feature, engine.evaluation.cameras) == ("before", (0, 1))
    assert rates == {0.01, 0.03}
