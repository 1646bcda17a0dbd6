"""What stands around a run: its folder has one owner, its record stays what it was, and resuming goes by it."""

import json
import multiprocessing
import shutil

import pytest
import torch

from dpm_plugin import DPMError
from dpm_plugin.commands import export, search, visualize
from dpm_plugin.engine import run_folder
from dpm_plugin.engine.engine import ImageDPMEngine
from dpm_plugin.inference.extractor import DPMExtractor
from dpm_plugin.inference.open_run import open_run
from dpm_plugin.inference.run_extractor import Extractor
from dpm_plugin.weights.files import read_checkpoint
from helpers.data import draw, write_occluded_duke
from helpers.runs import as_of_0_1_0, change, finished_run, main_of, untrained_run

pytestmark = [pytest.mark.slow, pytest.mark.torchreid, pytest.mark.filterwarnings("ignore:occluded_duke")]

SEEN = dict(train__max_epoch=2, synthetic__train_images=4, test__eval_freq=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def trained(root, tmp_path_factory):
    """The folder of a finished run of two epochs."""
    return finished_run(tmp_path_factory.mktemp("runs") / "trained", root, **SEEN)[0]


@pytest.fixture
def run(trained, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture
def main(root, tmp_path, capsys):
    """``main(**settings)`` runs tools/main.py there; returns (exit code, stdout, stderr)."""
    call = main_of(root, tmp_path / "run", capsys)
    return lambda **changes: call(**{"test__eval_freq": 1, **changes})


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and "evaluations" not in path.parts}


def rows(folder):
    return json.loads((folder / "results.json").read_text())["datasets"]["synthetic_occluded"]["rows"]


def refused(answer, *said, shows_config=False):
    code, out, error = answer
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert ("Show configuration" in out) == shows_config
    assert all(text in error for text in said), error


# ---- an evaluation ----


def test_an_evaluation_in_a_runs_folder_leaves_all_that_training_wrote_as_it_was(run, main):
    before = files(run)
    weights = dict(model__load_weights=run / "model" / "last.pth.tar", test__evaluate=True)
    assert main(**weights, data__norm_mean=[0.1, 0.2, 0.3])[0] == 0
    code, out, _ = main(test__evaluate=True, train__resume="auto", test__visrank=True)
    assert code == 0 and "holds a run, which stays as it is" in out
    assert files(run) == before and open_run(run).config.data.norm_mean == [0.485, 0.456, 0.406]
    first, second = sorted((run / "evaluations").iterdir())
    assert json.loads((first / "results.json").read_text())["run"]["config"]["data"]["norm_mean"] == [0.1, 0.2, 0.3]
    assert rows(second) == rows(run) != rows(first)
    assert list(second.glob("test.log-*")) and (second / "visrank_synthetic_occluded").is_dir()


def test_an_engine_that_only_tests_does_so_too(run, root, tmp_path):
    before = files(run)
    resumed = dict(train__resume=str(run / "model" / "last.pth.tar"), test__evaluate=True)
    finished_run(run, root, **SEEN, **resumed)
    assert files(run) == before and rows(next((run / "evaluations").iterdir())) == rows(run)


def test_a_finished_run_resumed_for_fewer_epochs_is_evaluated_beside_what_it_wrote(run, main, tmp_path):
    before = files(run)
    code, out, _ = main(train__resume="auto", train__max_epoch=1)
    assert code == 0 and "evaluating only" in out and "holds a run, which stays as it is" in out
    after = {path: content for path, content in files(run).items() if ".log-" not in path.name}
    assert {path: after.pop(path, None) for path in before} == before
    assert [path.name for path in after] == [run_folder.LOCK]
    assert rows(next((run / "evaluations").iterdir())) == rows(run)
    new = tmp_path / "new"  # no run lies there: its own lock is none
    elsewhere = dict(model__resume=run / "model" / "last.pth.tar", data__save_dir=new)
    assert main(train__max_epoch=1, **elsewhere)[0] == 0 and rows(new) == rows(run)


# ---- who owns a folder ----


def test_a_fresh_run_in_a_used_folder_is_refused_and_nothing_is_touched(run, main):
    before = files(run)
    advice = "train.resume auto goes on with it; or set another data.save_dir, or train.overwrite True"
    refused(main(), f"'{run}' holds a run of 2 epochs; {advice}")
    other = shutil.copy(run / "model" / "last.pth.tar", run.parent / "other.pth.tar")
    refused(main(model__resume=other, train__max_epoch=3), "holds a run of 2 epochs")
    refused(main(train__overwrite=True, train__resume="auto"), "train.overwrite True and train.resume auto exclude")
    assert {path: content for path, content in files(run).items() if path.name != run_folder.LOCK} == before


def test_a_run_killed_before_its_first_checkpoint_is_not_taken_for_the_one_that_it_overwrites(run, main, monkeypatch):
    refused(main(train__overwrite=True, train__seed=2, data__sources=["gone"]), "'gone'")
    assert (run / "model" / "last.pth.tar").exists()  # until all parts are built

    def killed(self, data):
        raise DPMError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(ImageDPMEngine, "iterate", killed)
        refused(main(train__overwrite=True, train__seed=2), "killed", shows_config=True)
    assert not list((run / "model").iterdir()) and not (run / "results.json").exists()
    code, out, _ = main(train__seed=2, train__resume="auto")
    assert code == 0 and "from the beginning" in out and open_run(run).config.train.seed == 2


def hold(folder, held, done):
    with run_folder.owned(folder):
        held.set()
        done.wait()


def test_two_runs_at_once_in_one_folder_are_refused_until_the_first_ends(main, tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder, "PATIENCE", 0)
    fork = multiprocessing.get_context("fork")
    held, done = fork.Event(), fork.Event()
    other = fork.Process(target=hold, args=(tmp_path / "run", held, done))
    other.start()
    held.wait(60)
    refused(main(), f"another process trains in '{tmp_path / 'run'}'", "another data.save_dir")
    other.kill()
    other.join()
    assert main()[0] == 0


# ---- what a resumed run may change ----

REFUSED = {
    "train.seed": 2,
    "train.batch_size": 8,
    "train.weight_decay": 7.0,
    "train.lr_scheduler": "cosine",
    "train.mask_schedule": "constant",
    "train.optim": "adamw",
    "train.steps": "simultaneous",
    "loss.dpm.margin": 0.3,
    "sampler.num_instances": 4,
    "sampler.train_sampler": "RandomSampler",
    "data.transforms": ["jitter"],
    "data.norm_std": [0.5, 0.5, 0.5],
    "vit.mask_pool": "max",
    "synthetic.seed": 4,
}


@pytest.mark.parametrize("key", REFUSED)
def test_a_resumed_run_with_another_setting_is_refused_by_name(key, run, main):
    answer = main(train__resume="auto", train__max_epoch=3, **{key.replace(".", "__"): REFUSED[key]})
    refused(answer, "is of a run with other settings", f"{key} ", f"now {REFUSED[key]!r}"[:12], "set them back")


def test_what_may_change_is_listed_and_places_are_not(run, main):
    code, out, _ = main(train__resume="auto", train__max_epoch=3, data__workers=1, test__ranks=[1])
    changed = "data.workers 0, now 1; train.max_epoch 2, now 3; test.ranks [1, 5], now [1]"
    assert code == 0 and f"=> Changed since the checkpoint: {changed}\n" in out


def test_other_people_with_the_same_counts_are_refused(main, tmp_path):
    sets = dict(data__sources=["occluded_duke"], data__targets=["occluded_duke"], test__ranks=[1])
    write_occluded_duke(tmp_path / "a")
    write_occluded_duke(tmp_path / "b", pids=(3, 10, 8))
    write_occluded_duke(tmp_path / "c")
    assert main(data__root=tmp_path / "a", **sets)[0] == 0
    again = dict(train__resume="auto", train__max_epoch=3, **sets)
    refused(main(data__root=tmp_path / "b", **again), "trained on other images or identities")
    assert main(data__root=tmp_path / "c", **again)[0] == 0


def test_checkpoints_of_0_1_0_resume_without_a_record_to_compare(run, main):
    for path in (run / "model").iterdir():
        as_of_0_1_0(path)
    code, out, _ = main(train__resume="auto", train__max_epoch=3, train__weight_decay=0.1)
    assert code == 0 and "after epoch 2" in out and "Changed since" not in out
    as_of_0_1_0(run / "model" / "last.pth.tar")
    refused(main(train__resume="auto", train__max_epoch=4, train__optim="sgd"), "optimizer", "another train.optim")


# ---- checkpoints ----


def test_best_is_the_highest_rank_1_then_the_highest_map_then_the_first(run, root):
    kept = []

    def several(engine):
        for epoch, rank1, mAP in ((0, 0.5, 0.3), (1, 0.5, 0.4), (2, 0.5, 0.4), (3, 0.6, 0.1), (4, 0.5, 0.9)):
            engine.last_mAP = mAP
            engine.save_model(epoch, rank1, str(run))
            kept.append(read_checkpoint(run / "model" / "best.pth.tar")["epoch"])

    finished_run(run.parent / "other", root, prepare=several)
    assert kept == [1, 2, 2, 4, 4]


def test_best_and_last_are_opened_by_name_in_every_tool(run, root, tmp_path, monkeypatch, capsys):
    double = lambda content: content["state_dict"].update({"neck.weight": content["state_dict"]["neck.weight"] * 2})
    change(run / "model" / "best.pth.tar", double)
    last, best = (DPMExtractor(run, checkpoint=name, device="cpu").model.neck.weight for name in ("last", "best"))
    assert torch.equal(best, read_checkpoint(run / "model" / "best.pth.tar")["state_dict"]["neck.weight"])
    assert not torch.equal(best, last) and torch.equal(last, DPMExtractor(run, device="cpu").model.neck.weight)
    draw(tmp_path / "images" / "a.jpg")
    opened = []
    monkeypatch.setattr(export, "export", lambda extractor, *options: opened.append(extractor.model) or ended())
    assert export.main([str(run), "a.onnx", "--checkpoint", "best"]) == 2
    index = [str(tmp_path / "images"), "--model", str(run), "--checkpoint", "best"]
    assert search.main(["index", *index]) == 0
    assert search.main(["query", str(tmp_path / "images" / "a.jpg"), "--index", index[0]]) == 0
    monkeypatch.setattr(visualize, "visualize_run", lambda *args, checkpoint, **options: opened.append(checkpoint))
    assert visualize.main([str(run), "--checkpoint", "best"]) == 0
    assert torch.equal(opened[0].neck.weight, best) and opened[1] == "best"


def ended():
    raise DPMError("read only")


def test_epochs_hold_weights_alone_as_many_as_asked_for_and_the_sum_is_said(main, tmp_path):
    code, out, _ = main(train__max_epoch=5, train__keep_epochs=2, train__keep_checkpoints=1)
    folder = tmp_path / "run" / "model"
    assert sorted(path.name for path in folder.glob("model*")) == ["model.pth.tar-4", "model.pth.tar-5"]
    assert "=> Checkpoints will take about 0.0 GB" in out and (folder / "best.pth.tar").exists()
    sizes = [(folder / name).stat().st_size for name in ("last.pth.tar", "model.pth.tar-5")]
    assert sizes[1] < 0.75 * sizes[0]
    refused(main(train__resume=folder / "model.pth.tar-4", train__max_epoch=5), "no training state", "load_weights")
    assert main(train__resume=folder / "model.pth.tar-4", test__evaluate=True)[0] == 0


# ---- what an evaluation uses ----


def test_weights_to_evaluate_are_read_once(run, main, monkeypatch):
    files, load = [], torch.load
    monkeypatch.setattr(torch, "load", lambda path, **options: files.append(path) or load(path, **options))
    path = run / "model" / "last.pth.tar"
    assert main(model__load_weights=path, test__evaluate=True)[0] == 0 and files == [path]


def test_a_loss_without_cameras_is_tested_without_them(root, tmp_path):
    for loss in ("softmax", "triplet"):
        plain = dict(loss__name=loss, loss__triplet__weight_x=1.0, vit__token_std=0.0, vit__camera_weight=50.0)
        folder, _, _ = finished_run(tmp_path / loss, root, **plain)
        finished_run(tmp_path / f"{loss}2", root, test__cameras="none", **plain)
        assert rows(folder) == rows(tmp_path / f"{loss}2")
        assert open_run(folder).cameras == {} and Extractor(folder).cameras("query")(torch.zeros(2)) is None


def test_auto_cameras_follow_the_sources_of_the_weights_not_of_the_command(run, main, root):
    write_occluded_duke(root)
    weights = dict(model__load_weights=run / "model" / "last.pth.tar", test__evaluate=True)
    assert main(**weights, data__sources=["occluded_duke"])[0] == 0
    assert rows(next((run / "evaluations").iterdir())) == rows(run)


def test_cameras_of_another_number_are_the_weights_own_and_the_neutral_one_is_said(run, main, root):
    write_occluded_duke(root, cameras=(1, 2))
    as_of_0_1_0(run / "model" / "last.pth.tar")
    for seed in (1, 2):
        weights = dict(model__load_weights=run / "model" / "last.pth.tar", test__evaluate=True, train__seed=seed)
        code, out, _ = main(**weights, data__sources=["occluded_duke"])
        assert code == 0 and "has 3 cameras, data.sources 2" in out and "neutral" in out
    first, second = (run / "evaluations").iterdir()
    assert rows(first) == rows(second)


def test_weights_that_lack_what_the_evaluation_uses_are_refused(main, run, tmp_path):
    folder, *_ = untrained_run(tmp_path / "baseline", model__name="vit_baseline_tiny")
    evaluate = dict(test__evaluate=True, data__save_dir=tmp_path / "new")
    refused(main(**evaluate, model__load_weights=folder / "model" / "last.pth.tar"), "lacks ", "'mask_generator.")
    change(run / "model" / "last.pth.tar", lambda content: content["state_dict"].pop("classifier.weight"))
    assert main(**evaluate, model__load_weights=run / "model" / "last.pth.tar")[0] == 0


def test_an_evaluation_without_weights_is_refused(main, tmp_path):
    evaluate = dict(test__evaluate=True, data__save_dir=tmp_path / "new")
    refused(main(**evaluate), "random weights", "model.load_weights")
    refused(main(**evaluate, train__resume="auto"), "random weights", "no checkpoint")
    refused(main(**evaluate, model__name="osnet_x0_25", loss__name="softmax"), "random weights")
