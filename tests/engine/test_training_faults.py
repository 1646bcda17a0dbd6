"""What goes wrong in training: signals, full disks, damaged checkpoints, data that cannot be evaluated."""

import errno
import io
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from dpm_plugin import DPMError
from dpm_plugin.data import DPMImageDataManager
from dpm_plugin.engine.engine import ImageDPMEngine
from dpm_plugin.engine.stop_signals import Stopped, StopSignals
from dpm_plugin.utils.command import exit_code
from dpm_plugin.utils.files import put_copy, replacing
from dpm_plugin.utils.runtime import deterministic_kernels
from dpm_plugin.weights import files as checkpoint
from dpm_plugin.weights.files import read_checkpoint
from helpers.data import write_occluded_duke
from helpers.model import batch, engine_for, tiny_model
from helpers.runs import main_of

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def main(root, tmp_path, capsys):
    """``main(**settings)`` runs tools/main.py; returns (exit code, stderr). Folder: tmp_path / "run"."""
    call = main_of(root, tmp_path / "run", capsys)
    return lambda **changes: call(**{"train__resume": "auto", **changes})[::2]


def in_iteration(monkeypatch, number, act):
    """Call ``act()`` within the ``number``-th iteration from now on."""
    own, calls = ImageDPMEngine.iterate, []

    def counted(self, data):
        calls.append(1)
        if len(calls) == number:
            act()
        return own(self, data)

    monkeypatch.setattr(ImageDPMEngine, "iterate", counted)


NUMBERS = [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize("number, code", NUMBERS)
def test_a_signal_ends_the_run_after_the_iteration_with_a_checkpoint(number, code, main, monkeypatch, tmp_path):
    before = [signal.getsignal(each) for each, _ in NUMBERS]
    in_iteration(monkeypatch, 2, lambda: os.kill(os.getpid(), number))
    found, error = main()
    assert found == code
    assert error == (
        f"stopped by {signal.Signals(number).name} in epoch 1 after iteration 2 of 4; continue with train.resume auto\n"
    )
    last = read_checkpoint(tmp_path / "run" / "model" / "last.pth.tar")
    assert (last["epoch"], last["progress"]["processes"][0]["iteration"]) == (0, 2)
    assert [signal.getsignal(each) for each, _ in NUMBERS] == before


def test_a_lost_connection_is_none_under_nohup(main, monkeypatch):
    monkeypatch.setattr(ImageDPMEngine, "iterate", ImageDPMEngine.iterate)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        in_iteration(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGHUP))
        assert main(train__max_epoch=1) == (0, "")
    finally:
        signal.signal(signal.SIGHUP, before)


def test_when_nobody_reads_what_is_printed_the_run_ends_with_a_checkpoint(main, monkeypatch, tmp_path):
    read, write = os.pipe()
    with open(write, "w", buffering=1) as pipe:
        monkeypatch.setattr("sys.stdout", pipe)
        in_iteration(monkeypatch, 2, lambda: os.close(read))
        code, error = main(train__print_freq=1)
        assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    assert (code, error) == (
        141,
        "stopped by SIGPIPE in epoch 1 after iteration 2 of 4; continue with train.resume auto\n",
    )
    assert read_checkpoint(tmp_path / "run" / "model" / "last.pth.tar")["progress"]["processes"][0]["iteration"] == 2


def test_a_loaders_process_killed_for_memory_is_one_line_and_the_run_goes_on_exactly(main, monkeypatch, tmp_path):
    assert main(data__workers=1, data__save_dir=tmp_path / "whole")[0] == 0

    def kill():
        for process in torch.multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)
            process.join()

    in_iteration(monkeypatch, 2, kill)
    code, error = main(data__workers=1)
    assert code == 2 and error.count("\n") == 1 and error.startswith("error: a process that loads images was killed")
    assert "train.resume auto" in error
    last = tmp_path / "run" / "model" / "last.pth.tar"
    assert read_checkpoint(last)["progress"]["processes"][0]["iteration"] == 2
    assert main(data__workers=1)[0] == 0
    whole, resumed = (read_checkpoint(tmp_path / name / "model" / "last.pth.tar") for name in ("whole", "run"))
    assert all(torch.equal(value, resumed["state_dict"][name]) for name, value in whole["state_dict"].items())


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_save_folder_that_is_removed_meanwhile_is_one_line_or_made_again(main, monkeypatch, tmp_path):
    in_iteration(monkeypatch, 2, lambda: shutil.rmtree(tmp_path / "run"))
    code, error = main(train__max_epoch=30, train__print_freq=1)
    assert (code, error) == (0, "") or code == 2 and error.count("\n") == 1 and "was data.save_dir removed" in error


def test_a_second_signal_does_not_wait():
    with StopSignals() as stop, pytest.raises(Stopped) as caught, stop.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.signum == signal.SIGINT
    assert exit_code(lambda: (_ for _ in ()).throw(caught.value)) == 130


def test_a_signal_to_the_whole_group_finds_the_loaders_processes_gone_and_still_saves(main, monkeypatch, tmp_path):
    def to_the_group():
        os.kill(os.getpid(), signal.SIGTERM)
        for process in torch.multiprocessing.active_children():
            os.kill(process.pid, signal.SIGTERM)
            process.join()

    in_iteration(monkeypatch, 2, to_the_group)
    code, error = main(data__workers=1)
    assert code == 143 and "in epoch 1 after iteration 2 of 4" in error
    assert read_checkpoint(tmp_path / "run" / "model" / "last.pth.tar")["progress"]["processes"][0]["iteration"] == 2


def test_a_full_disk_is_one_line_and_the_checkpoint_before_goes_on(main, monkeypatch, tmp_path):
    full, own, calls = OSError(errno.ENOSPC, "No space left on device"), torch.save, []

    def save(state, file):
        calls.append(1)
        if len(calls) == 2:
            own(state, io.BytesIO())
            raise full
        own(state, file)

    monkeypatch.setattr(torch, "save", save)
    code, error = main()
    model = tmp_path / "run" / "model"
    assert code == 2 and error.count("\n") == 1
    assert error.startswith(f"error: checkpoint '{model / 'last.pth.tar'}' cannot be written: No space left")
    assert [path.name for path in model.iterdir()] == ["last.pth.tar"]
    assert read_checkpoint(model / "last.pth.tar")["epoch"] == 1
    code, error = main()
    assert code == 0 and read_checkpoint(model / "model.pth.tar-2")["epoch"] == 2


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 2 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True)
    except OSError as error:
        pytest.skip(f"no small file system can be mounted here: {error}")
    if done.returncode:
        pytest.skip(f"no small file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_really_fills_up_is_one_line_and_keeps_whole_checkpoints(main, small_disk):
    code, error = main(
        data__save_dir=small_disk, train__keep_checkpoints=100, train__checkpoint_every=1, train__max_epoch=50
    )
    assert code == 2 and error.count("\n") == 1 and "No space left on device" in error
    kept = list((small_disk / "model").glob("last*"))
    assert len(kept) > 1 and all(read_checkpoint(path)["state_dict"] for path in kept)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_what_the_system_says_of_a_full_disk_is_the_cause_named(tmp_path):
    path = tmp_path / "last.pth.tar"
    checkpoint.write_checkpoint({"epoch": 1}, path)
    for size in (10, 10**6):  # within the buffers, and beyond
        (tmp_path / f".last.pth.tar.{os.getpid()}.dpm.tmp").symlink_to("/dev/full")
        with pytest.raises(DPMError, match="last.pth.tar' cannot be written: No space left on device; what"):
            checkpoint.write_checkpoint({"epoch": 2, "weights": torch.zeros(size)}, path)
        assert os.listdir(tmp_path) == ["last.pth.tar"] and read_checkpoint(path) == {"epoch": 1}


def test_a_full_disk_anywhere_else_is_one_line_too(capsys):
    def fill():
        raise OSError(errno.ENOSPC, "No space left on device")

    assert exit_code(fill) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "No space left on device" in error and error.count("\n") == 1
    with pytest.raises(FileNotFoundError):
        exit_code(lambda: open("/nowhere/at/all"))


def test_a_checkpoint_that_cannot_be_read_back_never_takes_the_name(tmp_path, monkeypatch):
    path = tmp_path / "last.pth.tar"
    checkpoint.write_checkpoint({"epoch": 1}, path)
    monkeypatch.setattr(torch, "save", lambda state, file: file.write(b"half of"))
    with pytest.raises(DPMError, match="last.pth.tar' cannot be written: .*damaged.*before is intact"):
        checkpoint.write_checkpoint({"epoch": 2}, path)
    assert read_checkpoint(path) == {"epoch": 1} and os.listdir(tmp_path) == ["last.pth.tar"]


COUNTERS = {"best_rank1": None, "skipped": 0, "skipped_in_a_row": 0}


ODD = [7, {**COUNTERS, "processes": 7}, {**COUNTERS, "best_rank1": "high"}, {**COUNTERS, "processes": [7]}]


@pytest.mark.parametrize("progress", [{}, [], {**COUNTERS, "processes": []}, *ODD])
def test_a_checkpoint_whose_progress_is_damaged_is_an_error_that_names_it(progress, tmp_path):
    engine = engine_for(tiny_model(), [batch()])
    state = {**engine.checkpoint_state(0), "progress": progress}
    checkpoint.write_checkpoint(state, tmp_path / "last.pth.tar")
    with pytest.raises(DPMError, match="the progress in '.*last.pth.tar' is damaged"):
        engine.resume(tmp_path / "last.pth.tar")


def test_a_copy_is_made_where_the_file_system_has_no_links(tmp_path, monkeypatch):
    (tmp_path / "a").write_bytes(b"new")
    for name in ("b", "c"):
        (tmp_path / name).write_bytes(b"old")
    put_copy(tmp_path / "a", tmp_path / "b")
    put_copy(tmp_path / "a", tmp_path / "b")  # already the same file
    monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    put_copy(tmp_path / "a", tmp_path / "c")
    with replacing(tmp_path / "a") as file:
        file.write(b"newer")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a": b"newer", "b": b"new", "c": b"new"}


# ---- what cannot be evaluated is said before training ----

OCCDUKE = dict(data__sources=["occluded_duke"], data__targets=["occluded_duke"])


@pytest.mark.filterwarnings("ignore:occluded_duke")
def test_a_target_whose_images_all_have_one_camera_is_an_error_before_training(main, tmp_path):
    top = write_occluded_duke(tmp_path / "duke")
    for path in list((top / "bounding_box_test").iterdir()):
        path.rename(path.with_name(path.name.replace("_c2_", "_c1_")))
    code, error = main(data__root=tmp_path / "duke", test__ranks=[1], **OCCDUKE)
    assert code == 2 and error.startswith("error: 'occluded_duke' cannot be evaluated: none of the 2 queries")
    assert "only under the query's own camera" in error and error.count("\n") == 1
    assert not (tmp_path / "run" / "model").exists()


@pytest.mark.parametrize("side", ["query", "gallery"])
def test_an_empty_query_or_gallery_is_an_error_before_training(side, main, monkeypatch):
    own = DPMImageDataManager.__init__

    def emptied(self, *args, **kwargs):
        own(self, *args, **kwargs)
        self.test_dataset["synthetic_occluded"][side] = []

    monkeypatch.setattr(DPMImageDataManager, "__init__", emptied)
    assert main() == (2, f"error: the {side} set of 'synthetic_occluded' is empty\n")


@pytest.mark.parametrize(
    "settings, said",
    [
        (dict(train__resume="a.pth", model__resume="b.pth"), "train.resume and model.resume"),
        (dict(train__deterministic=True, data__transforms=["random_patch"]), "random_patch"),
        (dict(data__type="video", loss__name="softmax", train__deterministic=True), "data.type image only"),
        (dict(train__resume="gone.pth"), "'gone.pth' does not exist"),
        (dict(test__ranks=[20], cuhk03__use_metric_cuhk03=True), "gallery identities"),
    ],
)
def test_settings_that_cannot_be_kept_are_an_error_before_training(settings, said, main):
    code, error = main(**settings)
    assert code == 2 and said in error and error.count("\n") == 1


def test_deterministic_kernels_are_for_the_length_of_a_run(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic
    with deterministic_kernels(enabled=False):
        assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ
    with deterministic_kernels():
        assert torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert (torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic) == before
