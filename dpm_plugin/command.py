"""What every script of ``tools/`` shares: errors in one line and the exit code."""
import argparse
import sys

from dpm_plugin.errors import DPMError

__all__ = ["Parser", "exit_code"]


class Parser(argparse.ArgumentParser):
    """argparse with a one-line error."""

    def error(self, message):
        self.exit(2, f"error: {message}; see --help\n")


def exit_code(work, interrupted="interrupted"):
    """Call ``work()``; returns 0, 2 after a DPMError (one line on stderr) or 130 when interrupted.

    ``interrupted`` is what to say then.
    """
    try:
        work()
    except DPMError as error:
        lines = (line.strip() for line in str(error).splitlines())
        print(f"error: {'; '.join(line for line in lines if line)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    return 0
