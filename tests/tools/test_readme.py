"""README.md does what it says: its commands run, its Python runs, and the names in its text exist.

Everything is taken from the file itself, in its order. Sizes are made small by SHRINK, which is appended to a
command, and by the substitutions of SNIPPETS, each of which must occur.
"""

import re
import shlex

import config_reference
import pytest

from dpm_plugin.config import SCHEMA
from dpm_plugin.config.types import convert
from dpm_plugin.torchreid_host import image_dataset_classes
from helpers.readme import README, ROOT, blocks, codes, commands, prose
from helpers.readme_commands import ONLY_READ, Place, do, extras
from helpers.readme_python import SNIPPETS, execute

# The drawn data set is smaller than the published one, which is a warning.
pytestmark = pytest.mark.filterwarnings("ignore:occluded_duke")

SECTIONS = {name.partition(".")[0] for name in SCHEMA}
FILES = (".py", ".md", ".json", ".yaml", ".list", ".tar", ".onnx", ".pt2", ".png")


def steps():
    """(name, function of the place) of all that is executed, in the order of the README."""
    for block in blocks():
        if block.language == "python":
            yield f"line {block.line}: Python", lambda place, text=block.text: execute(place, text)
        elif block.is_output:
            yield f"line {block.line}: output", lambda place, text=block.text: compare_tables(place, text)
        elif block.is_shell:
            for words in commands(block.text)[0]:
                yield f"line {block.line}: {shlex.join(words)}", lambda place, words=words: do(place, words)


STEPS = dict(steps())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """Name of a step -> the exception it raised, or None; they build on each other."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("readme")
        patch.chdir(folder)
        patch.setenv("DPM_PRETRAINED", "none")
        patch.setenv("DPM_CACHE", str(folder / "cache"))
        place = Place(folder)
        for name, step in STEPS.items():
            try:
                step(place)
                found[name] = None
            except (Exception, SystemExit) as error:
                found[name] = error
    return found


def compare_tables(place, text):
    """The table shown is the quick start's, in all but its numbers."""
    (quick_start,) = (printed for args, printed in place.printed.items() if args.endswith("dpm_synthetic.yaml"))
    shown = [line[:18] for line in text.splitlines()]
    header = text.splitlines()[0]
    assert header in quick_start.splitlines()
    assert shown[1:] == [line[:18] for line in quick_start.partition(header)[2].splitlines()[1 : len(shown)]]


@pytest.mark.parametrize("name", STEPS, ids=[name[:90] for name in STEPS])  # longer ones pytest would number
def test_what_the_readme_shows_works(outcomes, name):
    if outcomes[name] is not None:
        raise outcomes[name]


def test_every_block_is_executed_or_no_code():
    for block in blocks():
        assert block.language in ("", "python", "bibtex"), block
        if block.is_shell:
            found, complaint = commands(block.text)
            assert found and not complaint, f"{block}: {complaint}"
    assert {block.language for block in blocks()} == {"", "python", "bibtex"}
    assert sum(block.is_output for block in blocks()) == 1 and len(STEPS) > 30


def test_what_makes_the_snippets_small_is_used():
    python = [block.text for block in blocks() if block.language == "python"]
    assert all(sum(mark in text for text in python) == 1 for mark in SNIPPETS) and len(python) == len(SNIPPETS)
    assert all(any(word in name.split() for name in STEPS) for word in ONLY_READ)


def test_a_command_in_the_text_is_read_by_its_program(pytestconfig):
    found = [code for code in codes() if code.startswith(("python ", "pip ", "pytest "))]
    assert len(found) >= 3
    for words in map(shlex.split, found):
        if words[0] == "pytest":
            assert all(pytestconfig.getoption(option) for option in words[1:] if option.startswith("--"))
        elif words[:2] == ["python", "tools/config_reference.py"]:
            continue  # its result is compared below
        else:
            choices = next((word for word in words if "|" in word), "")  # a|b: each of them
            for choice in choices.split("|"):
                do(None, [choice if word == choices else word for word in words])
    assert set(re.findall(r"\.\[(\w+)\]", README)) == set(extras())


def test_keys_and_values_in_the_text_are_known():
    keys = 0
    for code in codes():
        words = code.split()
        if words[0] in SCHEMA and len(words) % 2 == 0:
            for key, value in zip(words[::2], words[1::2]):
                convert(SCHEMA[key], value)
        for word in words:
            if re.fullmatch(r"\w+(\.\w+)+", word) and word.partition(".")[0] in SECTIONS and not word.endswith(FILES):
                assert word in SCHEMA, f"`{word}` is no key"
                keys += 1
    assert keys > 30
    choices = re.findall(r"\| `([\w.]+)`: ((?:`[^`|]+`(?:, )?)+) \|", prose())
    assert len(choices) >= 6
    for key, values in choices:
        for value in re.findall(r"`([^`]+)`", values):
            convert(SCHEMA[key], value)


def test_files_links_and_data_sets_in_the_text_exist():
    paths = {
        word
        for code in codes()
        for word in code.split()
        if word.startswith(("dpm_plugin/", "configs/", "tools/", "tests/"))
    }
    targets = re.findall(r"\]\(([^)#:]+)\)", prose())
    assert len(paths) > 20 and len(targets) > 3
    for path in [*paths, *targets]:
        assert list(ROOT.glob(path)), f"'{path}' does not exist"
    titles = re.findall(r"^#+ (.+)$", prose(), re.M)
    headings = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", prose())) <= headings
    sets = re.findall(r"^\| `(\w+)` \| (?:`.*\{|drawn)", prose(), re.M)
    assert len(sets) == 8 and set(sets) <= image_dataset_classes().keys()


def test_each_equation_is_where_the_table_says():
    rows = re.findall(r"^\| (Eq\. \d|section 4\.1) \| .+ \| (.+) \|$", prose(), re.M)
    assert [place for place, _ in rows if place.startswith("Eq")] == [f"Eq. {number}" for number in range(1, 9)]
    for place, files in rows:
        for file in re.findall(r"`([^`]+)`", files):
            assert place in (ROOT / file).read_text(encoding="utf-8"), f"{file} does not name {place}"


def test_the_configuration_reference_is_made_from_the_schema():
    written = (ROOT / "configs" / "REFERENCE.md").read_text(encoding="utf-8")
    assert written == config_reference.reference(), "run: python tools/config_reference.py"
    assert all(f"| `{name}`" in written for name in SCHEMA)
    assert len(config_reference.FIRST) == 15
