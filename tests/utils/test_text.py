"""Words for messages: a suggestion only where one is near."""

import pytest

from dpm_plugin.apps.visualize.visualize_run import choose_queries
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import unknown

SETS = ("market1501", "viper", "ilids", "occluded_duke")


@pytest.mark.parametrize("name, near", [("ocluded_duke", "occluded_duke"), ("Market", "market1501"), ("vipr", "viper")])
def test_an_unknown_name_brings_the_nearest_known_one(name, near):
    assert f"'{name}'; did you mean '{near}'? Known: market1501," in str(unknown("data set", name, SETS))


@pytest.mark.parametrize("name", ["mine", "my_photos", "x", ""])
def test_a_name_far_from_all_brings_no_suggestion_but_all_names(name):
    said = f"unknown data set '{name}'; known: market1501, viper, ilids, occluded_duke"
    assert str(unknown("data set", name, SETS)) == said


def test_a_query_far_from_all_brings_the_first_name_not_any_of_the_same_ending():
    with pytest.raises(DPMError, match="no query is called 'mine.jpg'; the first is '0001_c1.jpg'"):
        choose_queries(["q/0001_c1.jpg", "q/0002_c1.jpg"], ["mine.jpg"])
