"""``python -m dpm_plugin`` in a fork of the test process."""

from dpm_plugin import script
from helpers.forks import run_forked


def run_script(folder, *argv):
    """What ``python -m dpm_plugin argv...`` does in ``folder``."""
    return run_forked(folder, lambda: script.main([str(argument) for argument in argv]))
