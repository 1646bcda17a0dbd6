"""SIGINT and SIGTERM end a training run between two iterations, with its state saved."""

import os
import signal
import threading
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(KeyboardInterrupt):
    """The run was asked to stop by ``signum``; its exit code is 128 + signum, as a shell reports it."""

    def __init__(self, signum, message=""):
        super().__init__(message or f"stopped by {signal.Signals(signum).name}")
        self.signum = int(signum)


class StopSignals:
    """Within the block the first SIGINT or SIGTERM waits for the end of an iteration, the second does not.

    Outside of :meth:`deferred` there is nothing to save and both raise :class:`Stopped` at once. Outside of the main
    thread, which alone gets signals, the block does nothing.

    Attributes:
        asked: number of the signal that came, or None.
    """

    def __init__(self):
        self.asked = None
        self._waiting, self._previous, self._owner = False, {}, None

    def __enter__(self):
        self.asked, self._owner = None, os.getpid()
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._handle) for number in SIGNALS}
        return self

    def __exit__(self, *error):
        for number, previous in self._previous.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous = {}

    @contextmanager
    def deferred(self):
        """Within this block the run itself looks at ``asked``."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def _handle(self, number, frame):
        if os.getpid() != self._owner:  # in a forked process of a loader
            leave_to_owner(number)
            return
        at_once = self.asked is not None or not self._waiting
        self.asked = int(number)
        if at_once:
            raise Stopped(number)


def leave_to_owner(number, frame=None):
    """Signal handler of a loader's process: the run, which gets signals to the whole group too, says when it ends."""
    if number == signal.SIGTERM:
        os._exit(0)  # any other code would be an error in the midst of the run's iteration
