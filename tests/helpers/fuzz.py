"""One body for two sizes: a few cases in every run of the suite, many under ``pytest -m fuzz``."""

import signal
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings

from dpm_plugin.utils.errors import DPMError

HANG = 60  # seconds for one case, on a machine however busy


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
        raise AssertionError(f"still running after {HANG} seconds")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.setitimer(signal.ITIMER_REAL, HANG)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


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
