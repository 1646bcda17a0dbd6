"""Sweeps: each run is trained once, and nothing that is finished is lost, whatever stops them."""

import json
import multiprocessing
import os
import shutil
import signal
import threading
import time

import pytest
import torch

from dpm_plugin.apps.compare import run, sweep
from dpm_plugin.apps.compare.run import Run
from dpm_plugin.utils.errors import DPMError
from experiments.reproduce.setting import make_setting
from helpers.reproduce import CONFIG, PRETENDED, TINY

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


class Bench:
    """A folder with the pretended main.py and what controls it; ``lines`` is what the sweeps print."""

    def __init__(self, folder, root, patch):
        self.folder, self.root, self.base, self.lines = folder, root, folder / "runs", []
        (folder / "main.py").write_text(PRETENDED, encoding="utf-8")
        patch.setattr(run, "PROGRAM", (str(folder / "main.py"),))
        patch.setattr(sweep, "print", lambda *lines, sep="": self.lines.extend(lines), raising=False)
        torch.save({"epoch": 1, "state_dict": {}, "optimizer": {}}, folder / "last.pth.tar")

    def runs(self, *seeds):
        return make_setting(config_file=CONFIG, overrides=TINY, seeds=seeds).runs()

    def sweep(self, runs, **options):
        return sweep.run_all(runs, self.base, root=self.root, **options)

    def calls(self):
        path = self.folder / "calls.txt"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def seeds_called(self):
        return [call["seed"] for call in self.calls()]

    def switch(self, name, on=True):
        (self.folder / name).touch() if on else (self.folder / name).unlink()

    def edit(self, run, epoch):
        """Let the finished run's results name another epoch; returns them."""
        path = run.folder(self.base) / "results.json"
        content = json.loads(path.read_text())
        content["datasets"]["synthetic_occluded"]["epoch"] = epoch
        path.write_text(json.dumps(content))
        return content


@pytest.fixture
def bench(tmp_path, root, monkeypatch):
    return Bench(tmp_path, root, monkeypatch)


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# ---- what a run is ----


def test_runs_that_train_alike_share_a_folder_and_others_do_not(tmp_path):
    setting = make_setting(config_file=CONFIG, overrides=TINY)
    same = setting.run(1, changes={"loss.dpm.beta": setting.config.loss.dpm.beta})
    assert same == setting.run(1)
    other = setting.run(1, changes={"loss.dpm.beta": 0.5})
    assert other.folder(tmp_path) != same.folder(tmp_path) and "beta0.5" in other.label
    copy = tmp_path / "copy.yaml"
    text = open(CONFIG, encoding="utf-8").read()
    copy.write_text("# a comment\n" + text, encoding="utf-8")
    assert Run("dpm_vit_tiny", copy, "dpm_vit_tiny", same.overrides, 1).folder("x") == same.folder("x")
    copy.write_text(text.replace("lr: 0.003", "lr: 0.004"), encoding="utf-8")
    assert Run("dpm_vit_tiny", copy, "dpm_vit_tiny", same.overrides, 1).folder("x") != same.folder("x")


def test_where_data_and_results_lie_does_not_make_another_run():
    moved = ("data.root", "elsewhere"), ("data.workers", 3), ("train.print_freq", 7)
    assert Run("a", CONFIG, "dpm_vit_tiny", moved, 1).digest == Run("a", CONFIG, "dpm_vit_tiny", (), 2).digest


def test_the_command_gives_main_the_settings_that_the_digest_is_of(tmp_path):
    run = Run("a", CONFIG, "dpm_vit_tiny", (("vit.mask_blocks", [3]), ("loss.dpm.beta", 0.0)), 4)
    command = run.command(tmp_path, "data")
    assert command[3:9] == ["--config-file", CONFIG, "-m", "dpm_vit_tiny", "--root", "data"]
    again = dict(zip(command[9::2], command[10::2]))
    assert again.pop("data.save_dir") == str(run.folder(tmp_path)) and again.pop("train.seed") == "4"
    assert Run("a", CONFIG, "dpm_vit_tiny", tuple(again.items()), 4).digest == run.digest


@pytest.mark.parametrize("label", ["", "../a", "a b", "a/b"])
def test_a_label_that_is_no_file_name_is_refused(label):
    with pytest.raises(DPMError, match="label"):
        Run(label, CONFIG, "dpm_vit_tiny", (), 1)


def test_only_results_of_all_epochs_are_finished_and_unnamed_ones_where_the_checkpoint_has_them(bench):
    (run,) = bench.runs(1)
    bench.sweep([run])
    bench.edit(run, epoch=1)
    assert run.results(bench.base) is None
    content = bench.edit(run, epoch=None)  # as of a run that was killed between training and evaluation
    assert run.results(bench.base) is None
    (run.folder(bench.base) / "model").mkdir()
    torch.save({"epoch": 2, "state_dict": {}}, run.checkpoint(bench.base))
    assert run.results(bench.base) == content


# ---- sweeps ----


def test_a_finished_run_is_reused_and_equal_runs_are_trained_once(bench):
    runs = bench.runs(1, 2)
    first = bench.sweep([*runs, *runs], jobs=2)
    assert sorted(bench.seeds_called()) == [1, 2]
    again = bench.sweep([*runs, *bench.runs(3)])
    assert bench.seeds_called()[2:] == [3]
    assert {run: again[run] for run in runs} == first
    assert [found["datasets"]["synthetic_occluded"]["headline"]["rank1"] for found in again.values()] == [0.1, 0.2, 0.3]


def test_progress_names_results_and_the_time_left(bench):
    bench.sweep(bench.runs(1, 2))
    assert "2 runs: 0 finished, 2 to train" in bench.lines[0]
    assert "[1/2] dpm_vit_tiny, seed 1: synthetic_occluded rank-1 10.0%, mAP 25.0%" in bench.lines[1]
    assert "left" in bench.lines[1] and bench.lines[2].endswith("all done")


def test_the_cores_are_shared_among_the_jobs(bench):
    bench.sweep(bench.runs(1), jobs=1)
    bench.sweep(bench.runs(2), jobs=100)
    bench.sweep(bench.runs(3), threads=5)
    assert [call["threads"] for call in bench.calls()] == [str(sweep.cores()), "1", "5"]


def test_a_failed_run_does_not_stop_the_others_and_is_one_line_that_shows_why(bench):
    bench.switch("fail-1")
    with pytest.raises(DPMError) as caught:
        bench.sweep(bench.runs(1, 2))
    message = str(caught.value)
    assert "1 of 2 runs failed" in message and "dpm_vit_tiny, seed 1 (exit code 2): out of luck" in message
    assert "\n" not in message and "working" in bench.lines
    assert bench.runs(2)[0].results(bench.base) is not None
    bench.switch("fail-1", on=False)
    assert len(bench.sweep(bench.runs(1, 2))) == 2 and bench.seeds_called() == [1, 2, 1]


@pytest.mark.parametrize(
    "dataset, overrides, message",
    [("synthetic_occluded", ["train.batch_size", "500"], "batch_size"), ("market1501", [], "market1501")],
)
def test_settings_that_cannot_run_and_missing_data_are_an_error_before_the_first_run(
    bench, dataset, overrides, message
):
    setting = make_setting(dataset, CONFIG, [*TINY, *overrides])
    with pytest.raises(DPMError, match=message):
        bench.sweep([*bench.runs(1), *setting.runs()])
    assert bench.calls() == []


def test_sigterm_stops_the_running_run_and_keeps_the_finished_one(bench):
    bench.switch("hang-2")

    def stop():
        wait_for((bench.folder / "hanging-2").exists)
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    watcher = threading.Thread(target=stop)
    watcher.start()
    with pytest.raises(KeyboardInterrupt):
        bench.sweep(bench.runs(1, 2, 3))
    watcher.join()
    assert signal.getsignal(signal.SIGTERM) == before
    assert not alive(bench.calls()[1]["pid"]) and bench.seeds_called() == [1, 2]
    bench.switch("hang-2", on=False)
    bench.sweep(bench.runs(1, 2, 3))
    assert bench.seeds_called() == [1, 2, 2, 3]


def test_a_sweep_killed_in_the_middle_loses_no_finished_run_and_trains_only_the_missing_ones(bench):
    bench.switch("hang-2")
    bench.switch("hang-3")
    options = {"args": (bench.runs(1, 2, 3, 4),), "kwargs": {"jobs": 2}}
    killed = multiprocessing.get_context("fork").Process(target=bench.sweep, **options)
    killed.start()
    wait_for(lambda: all((bench.folder / f"hanging-{seed}").exists() for seed in (2, 3)))
    killed.kill()
    killed.join()
    pids = {call["seed"]: call["pid"] for call in bench.calls()}
    os.kill(pids[2], signal.SIGKILL)  # as when the machine goes down; seed 3's run outlives its sweep
    first = bench.runs(1)[0]
    finished = (first.folder(bench.base) / "results.json").stat()

    def let_go():
        wait_for(lambda: any("waiting for dpm_vit_tiny, seed 3" in line for line in bench.lines))
        bench.switch("hang-3", on=False)

    release = threading.Thread(target=let_go)
    release.start()
    bench.switch("hang-2", on=False)
    results = bench.sweep(bench.runs(1, 2, 3, 4))
    release.join()

    assert len(results) == 4 and all(results.values())
    assert sorted(bench.seeds_called()) == [1, 2, 2, 3, 4]  # neither the finished nor the living run again
    assert (first.folder(bench.base) / "results.json").stat() == finished
    resumed = [call["args"] for call in bench.calls() if call["seed"] == 2][1]
    assert resumed[-2:] == ["model.resume", str(bench.runs(2)[0].checkpoint(bench.base))]


@pytest.mark.parametrize("older", [True, False])
def test_a_run_with_a_damaged_newest_checkpoint_goes_on_from_the_one_before_if_any(bench, capfd, older):
    (run,) = bench.runs(1)
    model = run.checkpoint(bench.base).parent
    model.mkdir(parents=True)
    torch.save({"epoch": 2, "state_dict": {}}, model / "model.pth.tar-2")  # weights alone
    run.checkpoint(bench.base).write_bytes(b"damaged")
    if older:
        shutil.copy(bench.folder / "last.pth.tar", model / "last-1.pth.tar")
    bench.sweep([run])
    (call,) = bench.calls()
    resumed = ["model.resume", str(model / "last-1.pth.tar")] if older else ["train.overwrite", "True"]
    assert call["args"][-2:] == resumed
    said = capfd.readouterr().out
    assert said.count(f"'{run.checkpoint(bench.base)}' is passed over") == 1
    assert ("trained anew" in said) != older
