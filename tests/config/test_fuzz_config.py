"""Configurations of any content: a checked configuration or one line that says what is wrong, never anything else."""

import math

import yaml
from hypothesis import strategies as st

from dpm_plugin.config import SCHEMA, flat, load_config
from dpm_plugin.config.types import KINDS, kind_of
from helpers.fuzz import Refused, fuzz, outcome, sizes  # noqa: F401, a fixture

KEYS = sorted(SCHEMA)
WORDS = [
    *"None True off nan .inf 1e400 -1 0 1.5 1_0 0x [] {} '' *a [[[[[[ b'x' 1j __import__('os') ~ | > % @ `".split(),
    *("[1, 2]", "{1: 2}", "!!int x", "!!timestamp 1", "!!bool x", "!!float x", "!!python/name:os.system"),
    *("2001-99-99", "1:60:60", "&a [*a]", "{[a]: b}", "? [a]", "lambda: 0", "\0", "\ud800"),
    *("(" * 300, "[" * 3000, "-" * 100 + "1", "9" * 400, "9" * 5000, "0x" + "f" * 6000),
]
letters = st.text(max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | letters | st.sampled_from(WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(letters, inner, max_size=3),
    max_leaves=8,
)
keys = st.sampled_from(KEYS) | st.sampled_from(["train", "loss.dpm", "synthetic", "", ".", "train."]) | letters


def assert_sound(config):
    """Every value is of its key's type, finite and among its choices; the same values make the same configuration."""
    content = dict(flat(config))
    assert set(content) == set(SCHEMA)
    for name, value in content.items():
        assert KINDS[kind_of(SCHEMA[name])][1](value), name
        items = value if isinstance(value, list) else [value]
        assert all(math.isfinite(item) for item in items if isinstance(item, (int, float))), name
        if SCHEMA[name].choices:
            assert all(item in SCHEMA[name].choices for item in items if isinstance(item, str)), name
    assert dict(flat(load_config(overrides=content))) == content


def assert_answered(found):
    if isinstance(found, Refused):
        assert "\n" not in found.replace("\r", "\n") or "config file" in found
        assert len(found) < 2000
    else:
        assert_sound(found)


@sizes(30, 1500)
def test_pairs_on_the_command_line(fuzz):  # noqa: F811
    texts = values.map(repr) | letters | st.sampled_from(WORDS)

    def check(pairs):
        assert_answered(outcome(load_config, "", [text for pair in pairs for text in pair]))

    fuzz(st.lists(st.tuples(keys, texts), max_size=3), check)


@sizes(25, 1500)
def test_values_as_a_program_gives_them(fuzz):  # noqa: F811
    given = st.dictionaries(keys, values, max_size=3)
    fuzz(given, lambda overrides: assert_answered(outcome(load_config, "", (), overrides)))


@st.composite
def documents(draw):
    """YAML from a nested mapping, some lines exchanged for others, or text of the letters that YAML minds."""
    kind = draw(st.sampled_from(["text", "mapping", "spoilt"]))
    if kind == "text":
        return draw(st.text("abtrain.lr:-[]{}&*!|>?#'\"%@`,\n\t 0123456789\x00\ufeff", max_size=80))
    content = {}
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=4)):
        section, _, name = key.rpartition(".")
        content.setdefault(section, {})[name] = draw(values)
    content |= content.pop("", {})  # keys outside of all sections
    text = yaml.safe_dump(content, allow_unicode=True)
    if kind == "spoilt":
        lines = text.splitlines()
        place = draw(st.integers(0, len(lines)))
        lines[place : place + draw(st.integers(0, 2))] = [draw(st.sampled_from(WORDS) | letters)]
        text = "\n".join(lines)
    return text


@sizes(25, 1500)
def test_yaml_files(fuzz, tmp_path):  # noqa: F811
    path = tmp_path / "run.yaml"

    def check(text):
        path.write_text(text, encoding="utf-8", errors="surrogatepass")
        assert_answered(outcome(load_config, str(path)))

    fuzz(documents(), check)


@sizes(10, 500)
def test_files_of_any_bytes(fuzz, tmp_path):  # noqa: F811
    path = tmp_path / "run.yaml"

    def check(content):
        path.write_bytes(content)
        assert_answered(outcome(load_config, str(path)))

    fuzz(st.binary(max_size=200), check)


def nested(levels):
    """A YAML text of a few lines whose aliases mean 9 ** levels items."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines)


def test_aliases_that_mean_billions_or_themselves_are_refused_at_once(tmp_path):
    path = tmp_path / "run.yaml"
    bomb = nested(12).replace("a0: ", "data: {sources: ", 1).replace("x]", "x]}", 1)
    last = nested(12) + "\ndata: {sources: *a11}"
    keyed = nested(12) + "\n? *a11\n: 1"
    for text in (nested(12), bomb, last, keyed, "a: &x {b: *x}", "train: &x {train: *x}", "a: &x [*x]"):
        path.write_text(text, encoding="utf-8")
        found = outcome(load_config, str(path))
        assert isinstance(found, Refused) and len(found) < 2000, text


def test_what_is_not_finite_or_too_large_for_any_number_type_is_refused():
    for text in ("nan", "inf", "-inf", ".nan", ".inf", "1e400", "9" * 400, "0x" + "f" * 6000):
        for key in ("train.lr", "vit.camera_weight", "data.norm_mean", "loss.triplet.margin", "train.max_epoch"):
            value = f"[{text}, 1, 1]" if key == "data.norm_mean" else text
            assert isinstance(outcome(load_config, "", [key, value]), Refused), (key, text)
    assert isinstance(outcome(load_config, "", (), {"vit.camera_weight": math.nan}), Refused)
