"""What is imported is what setup.py declares; with ``--oldest``, as .ci/run gives it, the oldest of that."""

from importlib import import_module

import pytest
from packaging.version import Version

from helpers.oldest import declared


@pytest.mark.parametrize("name", declared())
def test_the_imported_version_is_a_declared_one_and_where_asked_for_the_oldest(name, pytestconfig):
    found = Version(import_module({"Pillow": "PIL"}.get(name, name)).__version__)
    bound = Version(declared()[name])
    if pytestconfig.getoption("--oldest") and name != "torch":  # which is from the newer environment
        assert found == bound
    assert found >= bound


def test_all_packages_with_a_bound_are_found():
    assert declared().keys() == {"torch", "timm", "numpy", "Pillow"}
