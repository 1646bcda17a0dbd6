"""Configuration files, and what is said of those that are refused."""

import pytest

from dpm_plugin.config import load_config
from dpm_plugin.utils.errors import DPMError


def write(folder, text, name="run.yaml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def error_of(*args, **kwargs):
    with pytest.raises(DPMError) as caught:
        load_config(*args, **kwargs)
    message = str(caught.value)
    assert "\n" not in message
    return message
