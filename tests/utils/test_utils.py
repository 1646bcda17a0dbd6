"""Locks on files, and progress lines."""

import multiprocessing

import pytest

from dpm_plugin.utils import files, progress
from dpm_plugin.utils.files import locked


def hold(path, ready, end):
    with locked(path):
        ready.set()
        end.wait(60)


def test_a_lock_is_held_by_one_process_and_dropped_when_that_is_killed(tmp_path):
    pytest.importorskip("fcntl")
    path, context = tmp_path / "new" / "lock", multiprocessing.get_context("fork")
    ready, end = context.Event(), context.Event()
    process = context.Process(target=hold, args=(path, ready, end))
    process.start()
    assert ready.wait(60)
    with pytest.raises(BlockingIOError), locked(path, wait=False):
        pass
    process.kill()
    with locked(path) as file:
        assert file is not None and not file.closed
    process.join()
    assert file.closed and path.exists()


def test_without_locks_nothing_is_held_and_the_work_is_done(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no locks here")

    if files.fcntl is not None:
        monkeypatch.setattr(files.fcntl, "flock", refuse)
        with locked(tmp_path / "lock") as file:
            assert file is None
    monkeypatch.setattr(files, "fcntl", None)
    with locked(tmp_path / "lock", wait=False) as file:
        assert file is None


def test_progress_tells_the_time_left_and_is_not_shown_at_every_step(monkeypatch):
    lines, times = [], iter([0, 1, 10, 11, 20])
    monkeypatch.setattr(progress, "monotonic", lambda: next(times))
    shown = progress.Progress(100, "images", lines.append)
    for done in (1, 10, 11, 100):
        shown.at(done)
    assert lines == ["10/100 images, 1:30 left", "100/100 images, 0:00 left"]
