"""One key and its value: an unknown key is answered with the nearest, a wrong value with what is expected."""

import difflib

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dpm_plugin.config import SCHEMA, flat, load_config
from dpm_plugin.config.loading import PATHS
from dpm_plugin.config.types import KINDS, convert, kind_of
from dpm_plugin.utils.errors import DPMError
from helpers.config import error_of, write

# ---- unknown keys ----


@st.composite
def misspelt(draw):
    name = draw(st.sampled_from(sorted(SCHEMA)))
    at = draw(st.integers(0, len(name) - 1))
    edit = draw(st.sampled_from(["drop", "double", "swap", "replace"]))
    letter = draw(st.sampled_from("abexyz_0"))
    typo = {
        "drop": name[:at] + name[at + 1 :],
        "double": name[:at] + name[at] + name[at:],
        "swap": name[:at] + name[at : at + 2][::-1] + name[at + 2 :],
        "replace": name[:at] + letter + name[at + 1 :],
    }[edit]
    return name, typo


@given(misspelt())
@example(("train.lr", "trian.lr"))
@example(("vit.stride", "vit.strid"))
@settings(max_examples=150, deadline=None)
def test_a_misspelt_key_is_refused_with_a_known_key_at_least_as_close(pair):
    name, typo = pair
    if typo in SCHEMA or typo.startswith("--"):
        return
    message = error_of(opts=[typo, "1"])
    assert f"'{typo}'" in message
    if "is a section" in message:
        return
    suggested = message.rsplit("'", 2)[1]
    assert suggested in SCHEMA

    def likeness(other):
        return difflib.SequenceMatcher(None, other, typo).ratio()

    assert likeness(suggested) >= likeness(name)


@pytest.mark.parametrize(
    "typo, expected",
    [
        ("train.lrr", "train.lr"),
        ("trian.lr", "train.lr"),
        ("lr", "train.lr"),
        ("loss.dpm.apha", "loss.dpm.alpha"),
        ("dpm.head_input", "loss.dpm.head_input"),
        ("max_epoch", "train.max_epoch"),
        ("test.visrank_top", "test.visrank_topk"),
        ("synthetic.trian_ids", "synthetic.train_ids"),
    ],
)
def test_the_nearest_key_is_the_one_a_person_meant(typo, expected):
    assert error_of(opts=[typo, "1"]).endswith(f"; the nearest known key is '{expected}'")


def test_a_key_far_from_all_brings_no_suggestion():
    assert error_of(opts=["batch", "1"]).endswith(
        "unknown key 'batch' on the command line; configs/REFERENCE.md lists all"
    )


def test_an_unknown_key_in_a_file_names_key_file_and_line(tmp_path):
    path = write(tmp_path, "train:\n  lr: 0.1\n  batchsize: 3\n")
    assert error_of(path) == (
        f"unknown key 'train.batchsize' in {path}, line 3; the nearest known key is 'train.batch_size'"
    )


# ---- wrong values ----


def test_every_default_has_the_type_choices_and_range_its_key_declares():
    for name, key in SCHEMA.items():
        assert kind_of(key) in KINDS, name
        assert key.help, name
        value = convert(key, key.default)
        assert value == (list(key.default) if isinstance(key.default, tuple) else key.default), name


@given(st.sampled_from(sorted(SCHEMA)), st.dictionaries(st.text(max_size=2), st.integers(), max_size=1))
@settings(max_examples=100, deadline=None)
def test_no_key_takes_a_mapping(name, value):
    with pytest.raises(DPMError, match=name):
        load_config(overrides={name: value})


@pytest.mark.parametrize(
    "key, text, expected",
    [
        ("train.lr", "fast", "a number"),
        ("train.lr", "True", "a number"),
        ("train.lr", "-1", "at least 0"),
        ("train.lr", "None", "a number"),
        ("train.max_epoch", "1.5", "an integer"),
        ("train.batch_size", "0", "at least 1"),
        ("data.sources", "market1501", "a list of texts"),
        ("model.pretrained", "1", "True or False"),
        ("loss.name", "arcface", "softmax, triplet, dpm"),
        ("train.amp", "fp16", "off, float16, bfloat16, auto"),
        ("vit.mask_pool", "mean", "avg, max"),
        ("loss.dpm.mask_variant", "F", "Pn, Pn+Fn, P, P+F"),
        ("vit.stride", "[1, 2, 3]", "a list of two"),
        ("data.transforms", "[random_flop]", "random_flip, random_crop"),
        ("test.ranks", "[1, 0]", "at least 1"),
        ("test.cameras", "[0]", "text or a list of two"),
        ("test.cameras", "all", "auto, ids, none"),
        ("vit.drop_path", "1.0", "at most 0.99"),
        ("adam.beta1", "nan", "a number"),
        ("train.optim", "lion", "adam, amsgrad, sgd, rmsprop, radam, adamw"),
        ("train.seed", "4294967296", "at most 4294967295"),
    ],
)
def test_a_wrong_value_names_key_and_what_was_expected(key, text, expected):
    message = error_of(opts=[key, text])
    assert f"'{key}'" in message and expected in message


@pytest.mark.parametrize(
    "key, text, value",
    [
        ("train.lr", "1e-3", 1e-3),
        ("train.lr", "1", 1.0),
        ("use_gpu", "false", False),
        ("data.sources", "['a', 'b']", ["a", "b"]),
        ("data.sources", "[a, b]", ["a", "b"]),
        ("data.sources", "('a',)", ["a"]),
        ("data.save_dir", "2024", "2024"),
        ("data.root", "None", "None"),
        ("loss.dpm.triplet_margin", "None", None),
        ("loss.dpm.triplet_margin", "0.3", 0.3),
        ("vit.stride", "[12, 8]", [12, 8]),
        ("test.cameras", "[0, 2]", [0, 2]),
        ("train.amp", "off", "off"),
        ("data.norm_mean", "[0, 0.5, 1]", [0.0, 0.5, 1.0]),
    ],
)
def test_a_value_on_the_command_line_is_read_as_its_keys_type(key, text, value):
    got = dict(flat(load_config(opts=[key, text])))[key]
    assert got == value and type(got) is type(value)


@given(st.floats(0, 10), st.integers(2, 10**6), st.booleans(), st.lists(st.integers(1, 99), min_size=1, max_size=4))
@settings(max_examples=50, deadline=None)
def test_values_survive_yaml_and_the_command_line(tmp_path_factory, lr, size, flag, ranks):
    values = {"train.lr": lr, "train.batch_size": size, "model.pretrained": flag, "test.ranks": ranks}
    by_opts = load_config(opts=[text for key, value in values.items() for text in (key, repr(value))])
    by_file = load_config(write(tmp_path_factory.getbasetemp(), yaml.safe_dump(values)))
    assert dict(flat(by_opts)) == dict(flat(by_file))
    assert by_opts.train.lr == lr and by_opts.test.ranks == ranks


@pytest.mark.parametrize("key", PATHS)
def test_a_home_folder_is_meant_by_its_sign_wherever_a_path_is_set(key, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    section, name = key.split(".")
    file = write(tmp_path, f"{section}: {{{name}: ~/place}}")
    for config in (load_config(file), load_config(opts=[key, "~/place"]), load_config(overrides={key: "~/place"})):
        assert dict(flat(config))[key] == str(tmp_path / "place")


def test_unquoted_off_and_none_in_yaml_are_words(tmp_path):
    config = load_config(write(tmp_path, "train: {amp: off}\ntest: {cameras: none}\n"))
    assert (config.train.amp, config.test.cameras) == ("off", "none")


@pytest.mark.parametrize(
    "words, said",
    [
        ("train.lr", "'train.lr' has no"),
        ("train.lr 1 a", "'a' has no"),
        ("train.lr 1 --root x", "'--root' comes after"),
        ("train.lr 1 -t x", "'-t' comes after"),
        ("train.lr -1", "expected at least 0, got -1"),
    ],
)
def test_words_that_are_no_pairs_name_the_one_in_question(words, said):
    assert said in error_of(opts=words.split())


@pytest.mark.parametrize(
    "words, said",
    [
        ("data.norm_std [0,0.5,0.5]", "divide by 0"),
        ("train.batch_size 1 loss.name triplet", "at least 2"),
        ("data.save_dir ''", "data.save_dir is empty"),
    ],
)
def test_a_value_that_nothing_can_be_computed_with_is_refused_before_anything_is_built(words, said):
    assert said in error_of(opts=[word.strip("'") for word in words.split()])


@pytest.mark.parametrize("name", ["a\0b", "\udcff"])
def test_a_path_that_no_file_can_have_is_refused(name):
    assert "is no file name in UTF-8" in error_of(opts=["data.save_dir", name])
