"""Where this package lies, and how another Python finds it there: the only file that looks above the package."""

import os
import sysconfig
from pathlib import Path

#: The folder that ``import dpm_plugin`` finds the package in: site-packages, or a checkout.
HOME = Path(__file__).resolve().parents[2]
_INSTALLED = HOME / "dpm_plugin" / "configs"  # where setup.py puts a copy of the repository's only one
#: The configurations.
CONFIGS = _INSTALLED if _INSTALLED.is_dir() else HOME / "configs"


def environment(**variables: str) -> dict[str, str]:
    """``os.environ`` with ``variables``, for a Python that is to import this package, installed or not."""
    found = [os.environ.get("PYTHONPATH"), None if _is_installed() else str(HOME)]
    path = os.pathsep.join(filter(None, found))
    return {**os.environ, **({"PYTHONPATH": path} if path else {}), **variables}


def _is_installed():
    """Whether every Python of this environment looks there anyway: before the standard library it would shadow that."""
    return HOME in (Path(sysconfig.get_path(name)).resolve() for name in ("purelib", "platlib"))
