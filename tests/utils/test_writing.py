"""Writing replaces the content of a file and nothing else; cleaning removes what this package left and nothing else."""

import os
import stat
import threading

import pytest

from dpm_plugin import DPMError
from dpm_plugin.utils.files import put_copy, remove_leftovers, replacing, write_file
from dpm_plugin.weights.files import read_checkpoint, write_checkpoint


@pytest.mark.parametrize("write", [lambda path: write_file(path, "new"), lambda path: copy(path, "new")])
def test_a_link_stays_one_and_the_file_it_leads_to_is_replaced(write, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "there").write_text("old")
    for name in ("there", "not yet"):
        (tmp_path / name).symlink_to(tmp_path / "disk" / name)
        write(tmp_path / name)
        assert (tmp_path / name).is_symlink() and (tmp_path / "disk" / name).read_text() == "new"
    assert sorted(os.listdir(tmp_path / "disk")) == ["not yet", "there"]


def copy(path, text):
    source = path.parent / "source"
    source.write_text(text)
    put_copy(source, path)
    source.unlink()


def test_permissions_stay_and_hold_before_the_content_is_there(tmp_path):
    path = tmp_path / "secret.json"
    path.touch(mode=0o600)
    with replacing(path) as file:
        file.write(b"new")
        (temporary,) = set(tmp_path.iterdir()) - {path}
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.read_text() == "new"


def test_a_pipe_and_a_device_are_written_into_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    found = []
    reader = threading.Thread(target=lambda: found.append((tmp_path / "pipe").read_text()))
    reader.start()
    write_file(tmp_path / "pipe", "new")
    reader.join()
    assert found == ["new"] and stat.S_ISFIFO(os.stat(tmp_path / "pipe").st_mode)
    (tmp_path / "null").symlink_to("/dev/null")
    write_checkpoint({"epoch": 1}, tmp_path / "null")
    assert stat.S_ISCHR(os.stat(tmp_path / "null").st_mode) and sorted(os.listdir(tmp_path)) == ["null", "pipe"]
    read, write = os.pipe()
    write_file(f"/dev/fd/{write}", "new")
    assert os.read(read, 9) == b"new"
    os.close(read), os.close(write)


@pytest.mark.parametrize("name", [".", "folder", "a\0b", "n" * 300, "file/below", "loop"])
def test_a_place_that_takes_no_file_is_one_line(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder")
    os.symlink("loop", "loop")
    (tmp_path / "file").touch()
    before = sorted(os.listdir())
    for write in (lambda: write_file(name, "new"), lambda: write_checkpoint({"epoch": 1}, name)):
        with pytest.raises(DPMError, match="cannot be written") as caught:
            write()
        assert "\n" not in str(caught.value) and "\0" not in str(caught.value)
    assert sorted(os.listdir()) == before


def test_cleaning_removes_what_dead_processes_of_this_package_left_and_nothing_else(tmp_path):
    dead, kept = ".last.pth.tar.99999999.dpm.tmp", [".thesis.tmp", ".notes.99999999.tmp", "a.99999999.dpm.tmp"]
    kept += [f".last.pth.tar.{os.getpid()}.dpm.tmp", ".notes.dpm.tmp", ".notes.x9.dpm.tmp"]
    for name in (dead, *kept):
        (tmp_path / name).touch()
    (tmp_path / ".folder.99999999.dpm.tmp").mkdir()
    (tmp_path / ".link.99999999.dpm.tmp").symlink_to(tmp_path / ".thesis.tmp")
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, ".folder.99999999.dpm.tmp", ".link.99999999.dpm.tmp"])


def test_a_killed_writer_leaves_the_old_file_and_what_is_cleaned_later(tmp_path):
    write_checkpoint({"epoch": 1}, tmp_path / "last")
    if os.fork() == 0:
        with replacing(tmp_path / "last") as file:
            file.write(b"half")
            os._exit(1)
    os.wait()
    assert len(os.listdir(tmp_path)) == 2 and read_checkpoint(tmp_path / "last") == {"epoch": 1}
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["last"]
