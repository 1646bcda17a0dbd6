"""``pytest --torchreid-layout upstream`` runs the whole suite against the layout of torchreid's own repository."""

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest


def pytest_addoption(parser):
    parser.addoption(
        "--torchreid-layout",
        choices=("installed", "upstream"),
        default="installed",
        help="upstream: rearrange the installed torchreid into torchreid.* in a temporary folder and test with that",
    )
    parser.addoption("--oldest", action="store_true", help="the imported versions must be the oldest declared ones")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the option
def pytest_cmdline_main(config):
    """The whole suite runs for two cores, a file at a time, unless the command line says otherwise (``-n 0``)."""
    whole_suite = not config.option.file_or_dir and not hasattr(config, "workerinput")  # that marks a worker
    if whole_suite and getattr(config.option, "numprocesses", 0) is None:
        config.option.numprocesses = min(2, os.cpu_count() or 1) + 1  # one is often waiting for a process it started
        config.option.dist = "loadfile"
        config.option.loadscopereorder = False  # the order below, not by number of tests


def pytest_configure(config):
    import torch

    torch.set_num_threads(1)  # tiny tensors: threads would only wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the same for subprocesses
    if config.getoption("--torchreid-layout") == "upstream":
        folder = Path(tempfile.mkdtemp(prefix="torchreid_upstream_"))
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        rearrange_torchreid(folder)
        sys.path.insert(0, str(folder))
        paths = [str(folder), os.environ.get("PYTHONPATH", "")]
        os.environ["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


def pytest_collection_modifyitems(config, items):
    """Files with slow tests first, so that no core waits for the other at the end; nightly sizes when asked for."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if "fuzz" in config.getoption("-m"):
        return
    for item in items:
        if item.get_closest_marker("fuzz"):
            item.add_marker(pytest.mark.skip(reason="nightly-sized: pytest -m fuzz"))


def pytest_terminal_summary(terminalreporter):
    """How many cases the fuzz tests ran, wherever they ran."""
    counts = [
        value
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
        if name == "fuzz_cases"
    ]
    if counts and "fuzz" in terminalreporter.config.getoption("-m"):
        terminalreporter.write_line(f"fuzz: {sum(counts):,} cases in {len(counts)} tests")


def rearrange_torchreid(folder):
    """Copy the installed ``torchreid.reid`` to ``folder/torchreid``, as in torchreid's own repository."""
    source = Path(importlib.util.find_spec("torchreid").origin).parent
    target = folder / "torchreid"
    if not (source / "reid").is_dir():  # upstream's layout is the installed one
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        return
    shutil.copytree(source / "reid", target, ignore=shutil.ignore_patterns("__pycache__"))
    for path in target.rglob("*.py"):
        path.write_text(path.read_text().replace("torchreid.reid", "torchreid"))
    init = target / "__init__.py"
    init.write_text(init.read_text() + "\n__version__ = '1.4.0'\n")


def pytest_report_header(config):
    from importlib.metadata import version

    from helpers.oldest import declared

    versions = ", ".join(f"{name} {version(name)}" for name in declared())
    return f"torchreid layout: {config.getoption('--torchreid-layout')}; {versions}"


@pytest.fixture(scope="session", autouse=True)
def hardened():
    """torchreid as the tools leave it; that importing the plugin alone changes less is test_torchreid_host's."""
    import dpm_plugin

    dpm_plugin.harden()


@pytest.fixture(scope="session")
def torchreid_layout(pytestconfig):
    """ "installed" or "upstream"."""
    return pytestconfig.getoption("--torchreid-layout")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """A headless Chromium, see helpers.page.Browser."""
    from helpers.page import open_browser

    browser = open_browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def dpm_run(tmp_path_factory):
    """The folder of a run for tools/visualize.py, alone in its own folder but for the data."""
    from helpers.visualized import evaluated_run

    return evaluated_run(tmp_path_factory.mktemp("visualize"), "dpm_vit_tiny")
