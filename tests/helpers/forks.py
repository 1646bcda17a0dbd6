"""Commands in a fork of the test process, which has imported everything and so starts at once."""

import multiprocessing
import os
import runpy
import sys
import tempfile
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple


class Done(NamedTuple):
    """A finished process, named as ``subprocess`` names its parts."""

    returncode: int
    stdout: str
    stderr: str


def run_forked(folder, call, timeout=240):
    """``sys.exit(call())`` in a process of its own, in ``folder``."""
    with tempfile.TemporaryDirectory() as outputs:
        files = [Path(outputs) / name for name in ("stdout", "stderr")]
        process = multiprocessing.get_context("fork").Process(target=_run, args=(folder, call, files))
        process.start()
        process.join(timeout)
        said = [file.read_text(encoding="utf-8") for file in files]
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"the process did not end within {timeout} s: {said[1]}")
    return Done(process.exitcode, *said)


def run_tool(folder, path, *args):
    """What ``python path args...`` does in ``folder``."""
    return run_forked(folder, lambda: _as_main(path, args))


def _as_main(path, args):
    sys.argv = [str(path), *map(str, args)]
    runpy.run_path(str(path), run_name="__main__")


def write_to(stdout, stderr):
    """From now on this process writes to two files, whatever pytest made of its own."""
    for number, path in enumerate((stdout, stderr), start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)


def _run(folder, call, files):
    write_to(*files)
    os.chdir(folder)
    sys.path.insert(0, str(folder))  # as -m does with the current folder
    # One that an earlier test started is no child of this process, which then cannot wait for it.
    forkserver._forkserver.__init__()
    sys.exit(call())
