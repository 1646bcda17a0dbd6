"""How every script ends: exit code and one line, also where there is nobody to read it."""

import os
import signal
import subprocess
import sys

import pytest

from dpm_plugin.utils.command import exit_code
from helpers.scripts import TOOLS

PRINTING = """
import sys
from dpm_plugin.utils.command import exit_code
sys.exit(exit_code(lambda: [print(number) for number in range(10**5)]))
"""


def started(shell, **options):
    command = ["sh", "-c", shell, sys.executable, "-c", PRINTING]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def test_a_reader_that_goes_is_one_line_and_an_exit_code_of_its_own():
    done = started('{ "$0" "$@"; echo code $? >&2; } | head -n 1')
    assert done.stdout == "0\n" and done.stderr == "stopped: nobody reads what is printed any more\ncode 141\n"


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&- <&-"])
def test_a_stream_that_is_closed_from_the_start_disturbs_nothing(closed):
    done = started(f'"$0" "$@" {closed}')
    assert done.returncode == 0 and done.stderr == ""


def test_nobody_to_read_the_error_leaves_the_exit_code():
    command = [sys.executable, str(TOOLS / "convert_checkpoint.py"), "gone", "out"]
    read, write = os.pipe()
    os.close(read)
    assert subprocess.run(command, stderr=write, timeout=120).returncode == 2
    os.close(write)


def test_a_sweep_stops_its_runs_when_the_connection_is_lost():
    from dpm_plugin.apps.compare.sweep import stop_on_signal

    before = signal.getsignal(signal.SIGHUP)
    with pytest.raises(KeyboardInterrupt), stop_on_signal():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.getsignal(signal.SIGHUP) == before


def test_a_name_that_no_file_can_have_is_one_line(capsys):
    assert exit_code(lambda: open("x" * 5000)) == 2
    error = capsys.readouterr().err
    assert (
        error.startswith("error: 'xxx") and error.endswith("cannot be used: File name too long\n") and len(error) < 200
    )
