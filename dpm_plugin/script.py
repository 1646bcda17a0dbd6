"""Run any script that was written for torchreid with this plugin loaded: ``python -m dpm_plugin SCRIPT ARGS...``."""

import argparse
import builtins
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from dpm_plugin import harden
from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.place import HOME

SCRIPT_VARIABLE = "DPM_SCRIPT"  # tells started worker processes which script they work for


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; the script's own ``sys.exit`` passes through."""
    parser = Parser(
        prog="python -m dpm_plugin",
        description="Run a script written for torchreid, as it is, with DPM's models, data sets, losses and engine "
        "registered and torchreid's unsafe readers and downloads replaced.",
    )
    parser.add_argument("script", help="the Python file")
    parser.add_argument("args", nargs=argparse.REMAINDER, help="its arguments")
    args = parser.parse_args(argv)
    return exit_code(lambda: run(args.script, args.args))


def run(script: str, args: Sequence[str] = ()) -> None:
    """Run ``script`` as ``python script args...`` would, in this process's ``__main__``; DPMError if it can't be read.

    ``__main__`` stays the same module, so that what the script defines can be pickled. Processes started by spawn or
    forkserver, such as DataLoader workers, load the plugin and then the script's definitions.
    """
    code = _compiled(script)
    os.environ[SCRIPT_VARIABLE] = os.path.abspath(script)
    sys.argv = [str(script), *args]
    if not getattr(sys.flags, "safe_path", False):  # python -P puts no folder there
        sys.path[0] = str(Path(script).resolve().parent)
    if str(HOME) not in sys.path:  # it was found through the current folder, whose entry is gone
        sys.path.append(str(HOME))
    _execute(code, script, vars(sys.modules["__main__"]))


def _execute(code, script, namespace):
    """Execute compiled ``code`` of the file ``script`` as the whole content of a main module's ``namespace``."""
    harden()
    spec = ModuleSpec("dpm_plugin.script_worker", loader=None)  # multiprocessing starts its processes by this name
    own = dict(__name__=namespace["__name__"], __file__=str(script), __doc__=None, __package__="", __spec__=spec)
    namespace.clear()
    namespace.update(own, __builtins__=builtins)
    exec(code, namespace)


def run_definitions(namespace: dict[str, Any]) -> None:
    """In a started process: the script's definitions in ``namespace``; its ``__name__`` is not "__main__"."""
    script = os.environ[SCRIPT_VARIABLE]
    _execute(_compiled(script), script, namespace)


def _compiled(script):
    if not Path(script).is_file():
        raise DPMError(f"script '{script}' does not exist; the usage is: python -m dpm_plugin SCRIPT ARGS...")
    try:
        source = Path(script).read_bytes()  # bytes: compile heeds the encoding that a file declares
    except OSError as error:
        raise DPMError(f"script '{script}' cannot be read: {error.strerror}") from error
    return compile(source, str(script), "exec", dont_inherit=True)
