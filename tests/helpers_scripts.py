"""``python -m dpm_plugin`` in a fork of the test process, which has imported everything and so starts at once."""
import multiprocessing
import os
import sys
from multiprocessing import forkserver
from pathlib import Path
from typing import NamedTuple

from dpm_plugin import script


class Done(NamedTuple):
    code: int
    out: str
    err: str


def run_script(folder, *argv, timeout=240):
    """What ``python -m dpm_plugin argv...`` does in ``folder``."""
    files = [Path(folder) / f"{name}.txt" for name in ("out", "err")]
    process = multiprocessing.get_context("fork").Process(target=_run, args=(folder, argv, files))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise AssertionError(f"{argv} did not end within {timeout} s: {files[1].read_text()}")
    return Done(process.exitcode, *(file.read_text() for file in files))


def _run(folder, argv, files):
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = open(1, "w", buffering=1), open(2, "w", buffering=1)
    os.chdir(folder)
    sys.path.insert(0, str(folder))  # as -m does with the current folder
    # One that an earlier test started is no child of this process, which then cannot wait for it.
    forkserver._forkserver.__init__()
    sys.exit(script.main([str(argument) for argument in argv]))
