"""``torchrun --nproc_per_node=2 tools/main.py``: a real run, equal to one process, then robbed of a process."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dpm_plugin.distributed.processes import ALONE
from dpm_plugin.weights import files as checkpoint
from helpers.processes import in_processes, results_of
from helpers.runs import SETTINGS, finished_run

pytestmark = [pytest.mark.slow, pytest.mark.torchreid]

MAIN = Path(__file__).resolve().parents[2] / "tools" / "main.py"
SECONDS = 280
# Equal to one process, image by image: nothing random but the order, and a schedule that no epoch count enters.
CHANGES = dict(vit__drop_path=0.0, data__transforms=[], train__sync_bn=True, train__optim="sgd", train__lr=0.0002)
CHANGES |= dict(train__lr_scheduler="single_step", train__stepsize=[1000], train__batch_size=8, test__eval_freq=1)
CHANGES |= dict(test__batch_size=5, synthetic__train_images=6)
EXACT = {key.replace("__", "."): value for key, value in CHANGES.items()}


def process_of(rank, folder):
    """Process id of ``rank`` of the run in ``folder``."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):  # gone by now, or somebody else's
            variables = path.read_bytes().decode(errors="replace").split("\0")
            if {f"RANK={rank}", f"RUN_OF_THIS_TEST={folder}"} <= set(variables):
                return int(path.parent.name)
    raise AssertionError(f"no process of rank {rank}")


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() < 1e-5, name


@pytest.fixture(scope="module")
def robbed(tmp_path_factory):
    """(folder, exit code, stdout, stderr, seconds from the kill to the end) of a run whose rank 1 was killed."""
    if not Path("/proc/self/environ").exists():
        pytest.skip("the processes of torchrun are found by /proc")
    folder = tmp_path_factory.mktemp("torchrun")
    settings = {**SETTINGS, **EXACT, "data.root": "data", "data.save_dir": "two", "train.max_epoch": 10**6}
    words = [str(word) for pair in settings.items() for word in pair]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(MAIN), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "RUN_OF_THIS_TEST": str(folder)}
    out, err = folder / "stdout", folder / "stderr"
    with open(out, "w") as stdout, open(err, "w") as stderr:
        run = subprocess.Popen(command, cwd=folder, env=environment, stdout=stdout, stderr=stderr)
    try:
        end = time.monotonic() + SECONDS
        while not (folder / "two" / "model" / "model.pth.tar-1").exists():
            assert run.poll() is None and time.monotonic() < end, err.read_text()
            time.sleep(0.05)
        os.kill(process_of(1, folder), signal.SIGKILL)
        start = time.monotonic()
        code = run.wait(SECONDS)
        yield folder, code, out.read_text(), err.read_text(), time.monotonic() - start
    finally:
        run.terminate()


def test_a_killed_process_ends_the_run_with_an_error(robbed):
    _, code, _, stderr, seconds = robbed
    assert code == 1 and seconds < 60
    assert "SIGKILL" in stderr  # torchrun's own report
    # At most one of ours: torchrun may end the other process before it notices.
    ours = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert all("process 0 of 2 lost the others" in line for line in ours) and len(ours) <= 1
    assert 'File "' + str(MAIN) not in stderr


def test_rank_0_alone_writes_and_speaks(robbed):
    folder, _, stdout, _, _ = robbed
    assert stdout.count("Show configuration") == stdout.count("=> Start training") == 1
    assert "2 processes, each CPU" in stdout
    assert [len(list((folder / "two").glob(pattern))) for pattern in ("train.log-*", "events.out.*")] == [1, 1]
    last = checkpoint.read_checkpoint(folder / "two" / "model" / "last.pth.tar")
    assert last["epoch"] >= 1 and all(tensor.isfinite().all() for tensor in last["state_dict"].values())


def test_its_first_epoch_and_evaluation_equal_those_of_one_process(robbed):
    folder, *_ = robbed
    finished_run(folder / "one", folder / "data", **CHANGES)
    paths = [folder / name / "model" / "model.pth.tar-1" for name in ("one", "two")]
    expected, found = map(checkpoint.read_checkpoint, paths)
    assert_equal(found["state_dict"], expected["state_dict"])
    assert found["rank1"] == pytest.approx(expected["rank1"])
    one, two = (json.loads((folder / name / "results.json").read_text()) for name in ("one", "two"))
    assert (one["run"]["processes"], two["run"]["processes"]) == (1, 2)
    first, *_ = two["datasets"]["synthetic_occluded"]["history"]
    assert first == one["datasets"]["synthetic_occluded"]["history"][0]


def resumed(processes, folder, data, path, epochs):
    """State after one more epoch, with the momentum of those before."""
    changes = {**CHANGES, "train__max_epoch": epochs}
    _, model, _ = finished_run(folder, data, processes, model__resume=str(path), **changes)
    return model.state_dict()


def test_its_checkpoint_is_resumed_by_two_processes_as_by_one(robbed, tmp_path):
    folder, *_ = robbed
    path = folder / "two" / "model" / "last.pth.tar"
    arguments = folder / "data", path, checkpoint.read_checkpoint(path)["epoch"] + 1
    expected = resumed(ALONE, tmp_path / "one", *arguments)
    for found in results_of(in_processes(tmp_path, resumed, tmp_path / "two", *arguments)):
        assert_equal(found, expected)
    assert checkpoint.read_checkpoint(tmp_path / "two" / "model" / "last.pth.tar")["epoch"] == arguments[2]


DRAWING = dict(train__resume="auto", train__max_epoch=2, train__sync_bn=True, train__batch_size=8)
DRAWING |= dict(synthetic__train_images=6, data__transforms=["pad_crop", "random_erase"], vit__drop_path=0.3)


def drawing(processes, folder, data, stop_in=None):
    """A run in which every process draws numbers of its own; its last one gets a signal in iteration ``stop_in``."""

    def prepare(engine):
        own, calls = engine.iterate, []

        def counted(batch):
            calls.append(batch)
            if len(calls) == stop_in and processes.rank == processes.size - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return own(batch)

        engine.iterate = counted

    _, model, _ = finished_run(folder, data, processes, prepare, **DRAWING)
    return model.state_dict()


def test_a_signal_to_one_process_stops_all_after_the_same_iteration_and_resumed_they_end_in_the_same_bits(tmp_path):
    data = tmp_path / "data"
    expected = results_of(in_processes(tmp_path, drawing, tmp_path / "alone", data))
    stopped = in_processes(tmp_path, drawing, tmp_path / "stopped", data, 2)
    assert [each.code for each in stopped] == [128 + signal.SIGTERM] * 2
    (line,) = [line for each in stopped for line in each.stderr.splitlines()]
    assert line.startswith("stopped by SIGTERM in epoch 1 after iteration 2 of 3")
    for found, left_alone in zip(results_of(in_processes(tmp_path, drawing, tmp_path / "stopped", data)), expected):
        for name, tensor in left_alone.items():
            assert (found[name] == tensor).all(), name
