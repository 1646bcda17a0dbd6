"""Every script of tools/ in a new interpreter."""
import os
import subprocess
import sys
from pathlib import Path

TOOLS = sorted((Path(__file__).resolve().parents[1] / "tools").glob("*.py"))
EACH = """
import contextlib, io, runpy, sys
for tool in sys.argv[1:]:
    sys.argv = [tool, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        try:
            runpy.run_path(tool, run_name="__main__")
        except SystemExit as stop:
            assert not stop.code, (tool, stop.code)
    assert "usage:" in shown.getvalue(), tool
    print(tool)
"""


def test_every_tool_starts_from_any_folder_and_explains_itself(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", EACH, *map(str, TOOLS)], cwd=tmp_path, env=env, text=True,
                          capture_output=True, timeout=280)
    assert done.returncode == 0, done.stderr
    assert len(TOOLS) >= 9 and done.stdout.split() == [str(tool) for tool in TOOLS]
    assert not any(tmp_path.iterdir())
