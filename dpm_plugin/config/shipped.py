"""The configurations that come with this package, found by name: ``dpm_occduke``, ``released/dpm_occduke``."""

import errno
import os
from pathlib import Path

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.place import CONFIGS
from dpm_plugin.utils.text import nearest


def shipped() -> dict[str, Path]:
    """{name: path} of every configuration of this package."""
    return {path.relative_to(CONFIGS).with_suffix("").as_posix(): path for path in sorted(CONFIGS.rglob("*.yaml"))}


def config_path(file: str | Path) -> str | Path:
    """The path of a config file: ``file`` itself where there is one, else the shipped one of that name.

    Args:
        file: a path, or a name with or without .yaml.

    Raises:
        DPMError: neither; names the nearest shipped one, or all where none is near.
    """
    if os.path.isfile(file):
        return file
    name, known = os.fspath(file).removesuffix(".yaml"), shipped()
    if name in known:
        return known[name]
    if os.path.exists(file):  # such as a folder or a pipe, which reading refuses by its kind
        return file
    near = nearest(name.removeprefix("configs/"), known)
    advice = f"shipped are {', '.join(known)}" if near is None else f"the nearest that is shipped is '{near}'"
    raise DPMError(f"config file '{file}' cannot be read: {os.strerror(errno.ENOENT)}; {advice}")
