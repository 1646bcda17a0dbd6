"""Signals end a training run between two iterations, with its state saved.

Those are SIGINT, SIGTERM, SIGHUP (the connection is lost; not where nohup has it ignored) and SIGPIPE (nobody reads
what is printed any more, see :class:`dpm_plugin.utils.command.Console`), as far as the system has them.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGPIPE") if hasattr(signal, name))

T = TypeVar("T")


class Stopped(KeyboardInterrupt):
    """The run was asked to stop by ``signum`` (exit code 128 + signum), after a checkpoint ``when``, if any."""

    def __init__(self, signum: int, when: str = "") -> None:
        advice = f" {when}; continue with train.resume auto" if when else ""
        super().__init__(f"stopped by {signal.Signals(signum).name}{advice}")
        self.signum = int(signum)


class StopSignals:
    """Within the block the first of ``SIGNALS`` waits for the end of an iteration, the second does not.

    Outside of :meth:`deferred` there is nothing to save and all raise :class:`Stopped` at once. Outside of the main
    thread, which alone gets signals, the block does nothing.

    Args:
        shared: whether several processes stop together, after :meth:`agree`. Default: False.
    """

    def __init__(self, shared: bool = False) -> None:
        self.shared = shared
        self.asked: int | None = None  # number of the signal that this process got
        self._agreed: int | None = None
        self._owner: int | None = None  # the process that the block is in
        self._previous: dict[int, Any] = {}  # handlers by signal
        self._waiting = False

    def __enter__(self) -> "StopSignals":
        self._owner = os.getpid()
        if threading.current_thread() is threading.main_thread():
            numbers = [number for number in SIGNALS if not _is_left_alone(number)]
            self._previous = {number: signal.signal(number, self._handle) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)
        self._previous, self.asked, self._agreed = {}, None, None

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Within this block the run itself looks at :attr:`due`."""
        self._waiting = True
        try:
            yield
        finally:
            self._waiting = False

    def agree(self) -> None:
        """Stop with the other processes, because one of them or this one was asked to."""
        self._agreed = self.asked or signal.SIGTERM

    @property
    def due(self) -> int | None:
        """The signal to stop for now, or None."""
        return self._agreed if self.shared else self.asked

    def raise_if_due(self, when: str) -> None:
        """Raise :class:`Stopped` if a signal is due, once the state ``when`` is saved."""
        if self.due:
            raise Stopped(self.due, when)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._owner:  # in a forked process of a loader
            leave_to_owner(number)
            return
        if self.asked and signal.Signals(number).name == "SIGPIPE":  # every further line raises it, without hurry
            return
        at_once = self.asked is not None or not self._waiting
        self.asked = int(number)
        if at_once:
            raise Stopped(number)


def children_heard_between(batches: Iterator[T]) -> Iterator[T]:
    """The ``batches`` of a loader; that one of its processes was killed is an error only while they are waited for.

    torch's handler raises it wherever the run is, such as between two halves of an optimizer's step.
    """
    chld = getattr(signal, "SIGCHLD", signal.SIGTERM)  # Windows has none, and nothing is heard
    own = signal.getsignal(chld)
    if not hasattr(signal, "SIGCHLD") or not callable(own) or threading.current_thread() is not threading.main_thread():
        yield from batches
        return
    waiting, missed = False, False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal missed
        missed = not waiting
        if waiting:
            own(number, frame)

    signal.signal(chld, handle)
    try:
        while True:
            waiting = True
            if missed:
                handle(chld, None)
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                waiting = False
            yield batch
    finally:
        signal.signal(chld, own)


def _is_left_alone(number: int) -> bool:
    """Whether nohup had this signal ignored; Python itself ignores SIGPIPE."""
    return signal.Signals(number).name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN


def leave_to_owner(number: int, frame: FrameType | None = None) -> None:
    """Signal handler of a loader's process: the run, which gets signals to the whole group too, says when it ends."""
    if number == signal.SIGTERM:
        os._exit(0)  # any other code would be an error in the midst of the run's iteration
