"""Every script of tools/, started as a user would, with nothing of this package imported before; where a run writes."""

import contextlib
import io
import os
import runpy
import sys
from pathlib import Path

import pytest

from helpers.forks import run_forked
from helpers.runs import main_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TOOLS = sorted((ROOT / "tools").glob("*.py"))


def start_each():
    """``tool --help`` of all, each with the package still to be found and imported."""
    found = list(sys.path)
    for tool in TOOLS:
        for name in [name for name in sys.modules if name.partition(".")[0] in ("dpm_plugin", "experiments")]:
            del sys.modules[name]
        sys.path[:] = [path for path in found if Path(path).resolve() not in (ROOT, ROOT / "tools")]
        sys.path.insert(0, str(tool.parent))  # as python does
        sys.argv = [str(tool), "--help"]
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            try:
                runpy.run_path(str(tool), run_name="__main__")
            except SystemExit as stop:
                assert not stop.code, (tool, stop.code)
        assert "usage:" in shown.getvalue() and Path(sys.modules["dpm_plugin"].__file__).parents[1] == ROOT, tool
        print(tool)


def test_every_tool_starts_from_any_folder_and_explains_itself(tmp_path):
    done = run_forked(tmp_path, start_each)
    assert done.returncode == 0, done.stderr
    assert len(TOOLS) >= 9 and done.stdout.split() == [str(tool) for tool in TOOLS]
    assert not any(tmp_path.iterdir())


def test_a_run_may_write_to_the_folder_it_is_started_in(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    code, _, error = main_of(tmp_path / "data", ".", capsys)(train__max_epoch=1)
    assert (code, error) == (0, "") and {"results.json", "model"} <= set(os.listdir())
