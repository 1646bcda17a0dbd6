"""One body for two sizes: a few cases in every run of the suite, many under ``pytest -m fuzz``."""

import signal
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings

from dpm_plugin.utils.errors import DPMError

HANG = 60  # seconds of computing for one case
WAIT = 600  # seconds for one that may be waiting, on a machine however busy


def sizes(few, many):
    """Parameters ``cases`` of a fuzz test: ``few`` always, ``many`` under the marker."""
    return pytest.mark.parametrize(
        "cases", [pytest.param(few, id="few"), pytest.param(many, id="many", marks=pytest.mark.fuzz)]
    )


@pytest.fixture
def fuzz(cases, record_property):
    """``fuzz(strategy, check)`` calls ``check`` with that many cases; each must end in time."""

    def run(strategy, check):
        count = 0

        @settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(strategy)
        def each(case):
            nonlocal count
            count += 1
            with must_end():
                check(case)

        try:
            each()
        finally:
            record_property("fuzz_cases", count)

    return run


@contextmanager
def must_end():
    def hangs(*_):
        raise AssertionError(f"still running after {HANG} seconds of computing, or {WAIT} of anything")

    timers = ((signal.SIGPROF, signal.ITIMER_PROF, HANG), (signal.SIGALRM, signal.ITIMER_REAL, WAIT))
    before = [signal.signal(number, hangs) for number, _, _ in timers]
    for _, timer, seconds in timers:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(timers, before):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def outcome(call, *arguments):
    """What the call returns, or the message of its DPMError; any other exception is a failure."""
    try:
        return call(*arguments)
    except DPMError as error:
        message = str(error)
        assert message
        return Refused(message)


class Refused(str):
    """A DPMError's message."""
