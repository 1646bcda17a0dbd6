"""Training states of any content: the run goes on to an end, or is refused in one line; never a traceback."""

import collections
import contextlib
import copy
import io

import pytest
import torch
from hypothesis import strategies as st

from dpm_plugin import DPMError, build
from dpm_plugin.config import engine_run_kwargs, load_config
from dpm_plugin.engine.run_checkpoints import newest_checkpoint
from dpm_plugin.engine.stop_signals import Stopped
from dpm_plugin.engine.training_state import take_up
from dpm_plugin.weights.files import read_checkpoint
from helpers.fuzz import Refused, fuzz, outcome, sizes  # noqa: F401, a fixture
from helpers.model import tiny_model
from helpers.runs import SETTINGS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torch's, on odd tensors

KINDS = [
    {"train.lr_scheduler": "warmup_cosine", "train.optim": "sgd"},
    {"train.lr_scheduler": "multi_step", "train.stepsize": [1, 2], "train.optim": "adamw", "train.amp": "float16"},
    {"train.lr_scheduler": "cosine", "loss.name": "softmax", "train.optim": "rmsprop"},
    {"train.lr_scheduler": "single_step", "train.optim": "amsgrad"},
]
KINDS[1]["train.steps"] = "simultaneous"
BASE = {**SETTINGS, "vit.depth": 1, "train.max_epoch": 2, "train.non_finite_limit": 3, "train.resume": "auto"}
PARTS = ["optimizer", "optimizer", "scheduler", "scheduler", "scaler", "progress", "progress", "epoch", "cameras"]
ODD = [None, True, 0, 1, -1, 7, 2**40, 2**70, 1.5, float("nan"), float("inf"), -0.1, "", "text", [], [1], {}, {"a": 1}]
ODD += [(1, 2), b"x", 1j, collections.Counter({1: 2}), torch.zeros(()), torch.zeros(7), torch.zeros(2, 3).to_sparse()]
ODD += [torch.empty(3, device="meta"), torch.zeros(3, dtype=torch.complex64), torch.zeros(1).expand(10**10)]
NAMES = ["x", "step", "optimizer", 5, "get_lr", "base_lrs"]


def engine_of(kind, folder, datamanager=None):
    config = load_config(overrides={**BASE, **kind, "data.root": str(folder / "data"), "data.save_dir": str(folder)})
    torch.manual_seed(1)
    datamanager = datamanager or build.build_datamanager(config)
    model = build.build_model(config, datamanager)
    optimizer = build.build_optimizer(config, model)
    scheduler = build.build_scheduler(config, optimizer)
    engine = build.build_engine(config, datamanager, model, optimizer, scheduler)
    engine.test, engine.last_mAP = lambda **options: 0.0, 0.0
    return config, engine


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """(folder, data manager, content of a checkpoint in the middle of the second epoch) of each kind."""
    folder, datamanager, found = tmp_path_factory.mktemp("resumed"), None, []
    for kind in KINDS:
        config, engine = engine_of(kind, folder, datamanager)
        datamanager, own, calls = engine.datamanager, engine.iterate, []

        def iterate(batch, engine=engine, own=own, calls=calls):
            calls.append(batch)
            engine.stop.asked = 15 if len(calls) == len(engine.train_loader) + 1 else None
            return own(batch)

        engine.iterate = iterate
        with pytest.raises(Stopped):
            engine.run(**engine_run_kwargs(config, None))
        found.append(read_checkpoint(folder / "model" / "last.pth.tar"))
        assert found[-1]["epoch"] == 1 and found[-1]["progress"]["processes"][0]["iteration"] == 1
    return folder, datamanager, found


def tampered(content, changes):
    """A copy of a checkpoint's content with values at any depth replaced, taken away or added."""
    content = copy.deepcopy(content)
    for part, steps, value, act in changes:
        place, key = content, part
        for step in steps:
            inner = place.get(key) if isinstance(place, dict) else place[key]
            if not (isinstance(inner, (dict, list)) and inner):
                break
            place, key = inner, (list(inner) if isinstance(inner, dict) else range(len(inner)))[step % len(inner)]
        if act == "add" and isinstance(place, dict):
            place[NAMES[len(steps) % len(NAMES)]] = value
        elif act == "drop" and key in place:
            del place[key]
        else:
            place[key] = value
    return content


STEPS = st.lists(st.integers(0, 60), max_size=5)
ACTS = st.sampled_from(["set", "set", "set", "drop", "add"])
CHANGES = st.lists(st.tuples(st.sampled_from(PARTS), STEPS, st.sampled_from(ODD), ACTS), min_size=1, max_size=2)


@sizes(10, 400)
def test_a_tampered_training_state_goes_on_or_is_refused_in_one_line(fuzz, stopped):  # noqa: F811
    folder, datamanager, contents = stopped
    path = folder / "model" / "last.pth.tar"

    def go_on(kind):
        config, engine = engine_of(KINDS[kind], folder, datamanager)
        engine.run(**engine_run_kwargs(config, build.resume(config, engine)))

    def check(case):
        kind, changes = case
        for old in path.parent.iterdir():
            old.unlink()
        try:
            torch.save(tampered(contents[kind], changes), path)
        except (NotImplementedError, RuntimeError):
            return
        with contextlib.redirect_stdout(io.StringIO()):
            found = outcome(go_on, kind)
        assert not isinstance(found, Refused) or "\n" not in found, found

    fuzz(st.tuples(st.integers(0, len(KINDS) - 1), CHANGES), check)


@pytest.mark.parametrize(
    "kind, spoil, said",
    [
        (0, lambda state: state["progress"].update(skipped_in_a_row=float("inf")), "progress in .* is damaged"),
        (0, lambda state: state["progress"]["processes"][0].update(iteration=99), "iteration 99"),
        (0, lambda state: state["progress"]["processes"][0].update(now={}), "random states"),
        (0, lambda state: state["scheduler"].clear() or state["scheduler"].update(x=1), "no last_epoch"),
        (0, lambda state: state.update(optimizer=torch.zeros(7)), "does not fit this run's optimizer"),
        (1, lambda state: state["scaler"].update(scale=torch.zeros(7)), "scale is tensor"),
        (1, lambda state: state["scaler"].update(growth_interval=1.5), "growth_interval is 1.5"),
        (1, lambda state: state["optimizer"]["param_groups"][0].update(betas=(7, 7)), "does not fit"),
        (1, lambda state: state["optimizer"]["param_groups"][0].update(eps=float("nan")), "eps is nan"),
        (1, lambda state: state["scheduler"]["milestones"].update({2: 0.5}), "milestones is"),
        (2, lambda state: state["scheduler"].update(eta_min=None), "eta_min is None"),
        (3, lambda state: state["scheduler"].update(step_size=0), "step_size is 0"),
        (3, lambda state: state["optimizer"]["state"][0].pop("max_exp_avg_sq"), "max_exp_avg_sq"),
        (3, lambda state: state["optimizer"]["state"][0].update(exp_avg=7), "does not fit"),
        (3, lambda state: state["optimizer"]["state"][0].update(step=-1), "does not fit"),
    ],
)
def test_a_state_that_would_fail_later_is_refused_on_resuming(kind, spoil, said, stopped, capsys):
    folder, datamanager, contents = stopped
    for old in (folder / "model").iterdir():
        old.unlink()
    content = copy.deepcopy(contents[kind])
    spoil(content)
    torch.save(content, folder / "model" / "last.pth.tar")
    config, engine = engine_of(KINDS[kind], folder, datamanager)
    with pytest.raises(DPMError, match=said) as caught:
        build.resume(config, engine)
    assert "\n" not in str(caught.value)


def test_one_whose_progress_is_no_dict_is_passed_over(stopped, capsys):
    folder, _, contents = stopped
    for name, progress in (("last-1", contents[0]["progress"]), ("last", torch.zeros(7))):
        torch.save({**contents[0], "progress": progress}, folder / "model" / f"{name}.pth.tar")
    assert newest_checkpoint(folder / "model").name == "last-1.pth.tar"
    assert "last.pth.tar' is passed over" in capsys.readouterr().out


def test_a_schedule_takes_up_what_is_its_own_and_nothing_else():
    optimizer = torch.optim.SGD(tiny_model().parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 20)
    state = {**scheduler.state_dict(), "last_epoch": 7, "verbose": False, "optimizer": 5, "get_lr": 5}
    del state["_last_lr"]  # versions of torch differ in these
    take_up(scheduler, state, "a.pth")
    assert scheduler.last_epoch == 7 and scheduler.optimizer is optimizer and callable(scheduler.get_lr)
