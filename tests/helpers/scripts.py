"""``python -m dpm_plugin`` in a fork of the test process."""

from pathlib import Path

from dpm_plugin import __main__
from helpers.forks import run_forked

TOOLS = Path(__file__).resolve().parents[2] / "tools"


def run_script(folder, *argv):
    """What ``python -m dpm_plugin argv...`` does in ``folder``."""
    return run_forked(folder, lambda: __main__.main([str(argument) for argument in argv]))


def check_mistake(main, arguments, capsys, said):
    """``main`` refuses these arguments with exit code 2 and one line, in which ``said`` stands."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as ended:  # argparse
        code = ended.code
    error = capsys.readouterr().err
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1 and said in error
