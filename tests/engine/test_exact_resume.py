"""A run that is interrupted and resumed ends with the bits of one that was left alone."""

import contextlib
import io
import json
import multiprocessing
import os
import random
import shutil
import signal
import time

import pytest

from dpm_plugin import DPMError
from dpm_plugin.engine import testing as evaluating
from dpm_plugin.engine.run_checkpoints import newest_checkpoint
from dpm_plugin.engine.stop_signals import Stopped
from dpm_plugin.weights.files import read_checkpoint
from helpers.model import assert_identical
from helpers.runs import finished_run

pytestmark = pytest.mark.slow

#: Everything that draws: augmentation by all generators, order, stochastic depth; and optimizer state with counters.
DRAWING = dict(
    data__transforms=["random_flip", "random_crop", "random_erase", "color_jitter", "pad_crop", "erase_pixel"],
    synthetic__train_images=4,
    train__optim="adamw",
    train__lr=0.001,
    train__max_epoch=2,
    vit__drop_path=0.3,
    vit__depth=1,
    train__lr_scheduler="single_step",
    train__stepsize=[1],
    test__eval_freq=1,
    train__checkpoint_every=1,
)
ITERATIONS = 6  # at least: batches of 4 from 16 images in identities of 2, three or four an epoch


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data root whose synthetic pictures are drawn by the first run."""
    return tmp_path_factory.mktemp("data")


def run(folder, root, prepare=lambda engine: None, **changes):
    """A run with nothing on screen; returns its folder."""
    with contextlib.redirect_stdout(io.StringIO()):
        finished_run(folder, root, prepare=prepare, train__resume="auto", **{**DRAWING, **changes})
    return folder


@pytest.fixture(scope="module")
def alone(root, tmp_path_factory):
    """The folder of a run that was left alone."""
    return run(tmp_path_factory.mktemp("run") / "alone", root)


def stopping(after, number=signal.SIGTERM):
    """``prepare`` of a run that gets a signal in iteration ``after`` of those that it works on."""

    def prepare(engine):
        own, calls = engine.forward_backward, []

        def counted(data):
            calls.append(data)
            if len(calls) == after:
                os.kill(os.getpid(), number)
            return own(data)

        engine.forward_backward = counted

    return prepare


def stopped_again_and_again(folder, root, after=1, **changes):
    """The same run, stopped after every ``after`` iterations and resumed; how often it was stopped."""
    for times in range(15):
        try:
            run(folder, root, prepare=stopping(after), **changes)
            return times
        except Stopped as error:
            assert error.signum == signal.SIGTERM
    raise AssertionError("it gets nowhere")


def measured(folder):
    """What results.json says but for seconds and memory."""
    sets = json.loads((folder / "results.json").read_text())["datasets"]
    return {name: {key: value for key, value in entry.items() if key != "phases"} for name, entry in sets.items()}


def assert_same_end(found, expected):
    """Weights, optimizer, schedule, scaler, random states, counters and results of two finished runs."""
    for name in ("last.pth.tar", max(path.name for path in (expected / "model").glob("model.pth.tar-*"))):
        ends = [read_checkpoint(folder / "model" / name) for folder in (found, expected)]
        for end in ends:
            del end["config"]["data"]["save_dir"]
        assert_identical(*ends)
        whole = {"optimizer", "scheduler", "progress"} <= set(ends[0])
        assert whole == (name == "last.pth.tar") and ends[0]["config"] and ends[0]["images"]
    assert read_checkpoint(found / "model" / "last.pth.tar")["progress"]["processes"][0]["now"]["torch"].numel() > 1000
    assert measured(found) == measured(expected)


def test_a_run_stopped_after_every_single_iteration_ends_as_one_left_alone(alone, root, tmp_path):
    assert stopped_again_and_again(tmp_path / "stopped", root) >= ITERATIONS
    assert_same_end(tmp_path / "stopped", alone)


CASES = {
    "scaled half precision": dict(
        train__amp="float16", train__steps="simultaneous", train__optim="sgd", train__lr_scheduler="warmup_cosine"
    ),
    "a constant rate of the mask generator": dict(
        train__lr_scheduler="warmup_cosine", train__mask_schedule="constant", train__max_epoch=3
    ),
    "softmax": dict(loss__name="softmax", sampler__train_sampler="RandomSampler", train__lr_scheduler="cosine"),
    "triplet": dict(loss__name="triplet", model__name="vit_baseline_tiny", loss__triplet__weight_x=1.0),
    "parts": dict(vit__parts=2, vit__part_dim=4, train__lr_scheduler="single_step", loss__dpm__mask_variant="Pn+Fn"),
    "torchreid's own model": dict(
        model__name="osnet_x0_25", loss__name="softmax", data__height=64, data__width=32, train__optim="amsgrad"
    ),
    "a baseline": dict(model__name="vit_baseline_tiny", train__optim="radam", train__lr_scheduler="cosine"),
    "masked features, not renormalised": dict(
        loss__dpm__mask_variant="Pn+Fn", loss__dpm__mask_renormalise=False, train__lr_scheduler="multi_step"
    ),
    "masks before normalising": dict(
        loss__dpm__mask_variant="P", vit__mask_pool="max", vit__camera_embedding=False, train__optim="rmsprop"
    ),
    "masked features before normalising": dict(
        loss__dpm__mask_variant="P+F", vit__neck=False, train__amp="bfloat16", train__accumulate=2
    ),
    "images from processes": dict(data__workers=2, train__lr_scheduler="multi_step"),
    "images from lasting processes": dict(data__workers=2, data__persistent_workers=True),
}
NIGHTLY = {*CASES} - {
    "scaled half precision",
    "a constant rate of the mask generator",
    "softmax",
    "masked features, not renormalised",
    "images from processes",
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.fuzz] * (name in NIGHTLY)) for name in CASES])
def test_so_does_one_of_another_kind(name, root, tmp_path):
    changes = dict(test__eval_freq=-1, train__checkpoint_every=0, **CASES[name])
    expected = run(tmp_path / "alone", root, **changes)
    assert stopped_again_and_again(tmp_path / "stopped", root, after=5, **changes) >= 1
    assert_same_end(tmp_path / "stopped", expected)


def test_with_train_deterministic_a_resumed_run_may_have_other_workers(root, tmp_path):
    changes = dict(train__deterministic=True, test__eval_freq=-1)
    expected = run(tmp_path / "alone", root, **changes)
    with pytest.raises(Stopped):
        run(tmp_path / "stopped", root, prepare=stopping(2), **changes)
    run(tmp_path / "stopped", root, data__workers=2, **changes)
    states = [read_checkpoint(folder / "model" / "last.pth.tar") for folder in (tmp_path / "stopped", expected)]
    assert_identical(*(state["state_dict"] for state in states))
    assert measured(tmp_path / "stopped") == measured(expected)


def test_what_an_interrupted_evaluation_missed_is_made_up_for(alone, root, tmp_path, monkeypatch):
    own, calls = evaluating.evaluate, []

    def interrupted(*args, **kwargs):
        calls.append(1)
        if len(calls) in (1, 3):  # after the first epoch, and after the last
            os.kill(os.getpid(), signal.SIGINT)
        return own(*args, **kwargs)

    monkeypatch.setattr(evaluating, "evaluate", interrupted)
    for _ in range(2):
        with pytest.raises(Stopped) as caught:
            run(tmp_path / "stopped", root)
        assert caught.value.signum == signal.SIGINT
    run(tmp_path / "stopped", root)
    assert len(calls) == 4
    assert_same_end(tmp_path / "stopped", alone)


def test_a_longer_run_goes_on_as_if_it_had_always_been_long(alone, root, tmp_path):
    run(tmp_path / "short", root, train__max_epoch=1)
    run(tmp_path / "short", root)
    assert_same_end(tmp_path / "short", alone)


# ---- SIGKILL ----


def child(folder, root, kill_at):
    """A run in this process, which kills itself right before its ``kill_at``-th word to the file system."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    calls = []
    for name in ("fsync", "replace", "link") if kill_at else ():

        def counted(*args, own=getattr(os, name)):
            calls.append(args)
            if len(calls) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return own(*args)

        setattr(os, name, counted)
    run(folder, root)


def in_a_process(folder, root, kill_after=None, kill_at=0):
    """Run to the end or to the SIGKILL; returns the exit code and the seconds it took."""
    start = time.monotonic()
    process = multiprocessing.get_context("fork").Process(target=child, args=(folder, root, kill_at))
    process.start()
    process.join(kill_after)
    if process.is_alive() and kill_after is not None:
        process.kill()
    process.join()
    return process.exitcode, time.monotonic() - start


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.fuzz)])
def test_a_run_killed_at_any_moment_goes_on_from_a_valid_checkpoint_to_the_same_end(kills, alone, root, tmp_path):
    moments, killed, longest = random.Random(kills), 0, 0.5
    for number in range(kills):
        folder = tmp_path / str(number)
        if number % 2 == 0:  # while saving: each checkpoint has about six words to the file system
            code, _ = in_a_process(folder, root, kill_at=moments.randint(1, 50))
        else:
            code, _ = in_a_process(folder, root, kill_after=moments.uniform(0.1, longest))
        killed += code == -signal.SIGKILL
        assert code in (0, -signal.SIGKILL)  # a moment may be after the end
        newest = newest_checkpoint(folder / "model")
        assert newest is None or newest.name in ("last.pth.tar", "last-1.pth.tar")
        code, seconds = in_a_process(folder, root)
        assert code == 0
        longest = max(longest, seconds)
        assert_same_end(folder, alone)
        assert not list(folder.rglob("*.tmp"))
        shutil.rmtree(folder)
    assert killed >= kills / 2


def test_damaged_checkpoints_are_passed_over_for_the_newest_that_is_whole(alone, tmp_path, capsys):
    model, others = tmp_path / "model", ["last-1.pth.tar", "last-2.pth.tar"]
    shutil.copytree(alone / "model", model)
    evaluated = ["model.pth.tar-1", "model.pth.tar-2"]
    assert sorted(path.name for path in model.iterdir()) == ["best.pth.tar", *others, "last.pth.tar", *evaluated]
    places = [read_checkpoint(model / name)["progress"]["processes"][0]["iteration"] for name in others]
    assert places[0] == places[1] + 1 and read_checkpoint(model / "last.pth.tar")["epoch"] == 2
    assert newest_checkpoint(model).name == "last.pth.tar"
    order = ["last.pth.tar", *others]  # the weights of evaluated epochs hold no training state
    for name, following in zip(order, order[1:]):
        (model / name).write_bytes((model / name).read_bytes()[:-2000])
        assert newest_checkpoint(model).name == following
        assert f"{name}' is passed over" in capsys.readouterr().out
    (model / order[-1]).write_bytes(b"")
    with pytest.raises(DPMError, match="none of the 6 checkpoints"):
        newest_checkpoint(model)
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_the_best_checkpoint_is_that_of_the_highest_rank_1(alone):
    history = measured(alone)["synthetic_occluded"]["history"]
    best = read_checkpoint(alone / "model" / "best.pth.tar")
    assert len(history) == 2 and best["rank1"] == max(entry["rank1"] for entry in history)
    assert best["epoch"] == next(entry["epoch"] for entry in history if entry["rank1"] == best["rank1"])
