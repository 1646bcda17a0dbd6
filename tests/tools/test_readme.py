"""The documents do what they say: their commands run, their Python runs, and the names in their text exist.

Everything is taken from the pages themselves, in their order. Sizes are made small by SHRINK, which is appended to a
command, and by the substitutions of SNIPPETS, each of which must occur.
"""

import re
import shlex
from pkgutil import resolve_name

import pytest
import yaml

from dpm_plugin.config import SCHEMA
from dpm_plugin.config.types import convert
from dpm_plugin.torchreid_host import image_dataset_classes
from helpers.readme import PAGES, PROGRAMS, ROOT, TEXTS, anchors, blocks, codes, commands, links, prose
from helpers.readme_commands import ONLY_READ, do, extras
from helpers.readme_place import Place
from helpers.readme_python import SNIPPETS, execute

# The drawn data set is smaller than the published one, which is a warning.
pytestmark = [pytest.mark.slow, pytest.mark.torchreid, pytest.mark.filterwarnings("ignore:occluded_duke")]

CHANGELOG = ROOT / ".github" / "CHANGELOG.md"
SECTIONS = {name.partition(".")[0] for name in SCHEMA}
FILES = (".py", ".md", ".json", ".yaml", ".list", ".tar", ".onnx", ".pt2", ".png")


def steps():
    """(name, function of the place) of all that is executed, in the order of the pages."""
    for block in blocks():
        if block.language == "python":
            yield f"{block.where}: Python", lambda place, text=block.text: execute(place, text)
        elif block.is_output:
            yield f"{block.where}: output", lambda place, text=block.text: compare_tables(place, text)
        elif block.is_shell:
            for words in commands(block.text)[0]:
                yield f"{block.where}: {shlex.join(words)}", lambda place, words=words: do(place, words)


STEPS = dict(steps())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, pytestconfig):
    """Name of a step -> the exception it raised, or None; they build on each other."""
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("readme")
        patch.chdir(folder)
        patch.setenv("DPM_PRETRAINED", "none")
        patch.setenv("DPM_CACHE", str(folder / "cache"))
        place = Place(folder, pytestconfig)
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
    shown = [line[:16] for line in text.splitlines()]
    header = text.splitlines()[0]
    assert header in quick_start.splitlines()
    assert shown[1:] == [line[:16] for line in quick_start.partition(header)[2].splitlines()[1 : len(shown)]]


@pytest.mark.parametrize("name", STEPS, ids=[name[:90] for name in STEPS])  # longer ones pytest would number
def test_what_the_documents_show_works(outcomes, name):
    if outcomes[name] is not None:
        raise outcomes[name]


def test_every_block_is_executed_or_no_code():
    for block in blocks():
        assert block.language in ("", "python", "bibtex"), block
        if block.is_shell:
            found, complaint = commands(block.text)
            assert found and not complaint, f"{block}: {complaint}"
    assert {block.language for block in blocks()} == {"", "python", "bibtex"}
    assert sum(block.is_output for block in blocks()) == 1 and len(STEPS) > 45


def test_what_makes_the_snippets_small_is_used():
    python = [block.text for block in blocks() if block.language == "python"]
    assert all(sum(mark in text for text in python) == 1 for mark in SNIPPETS) and len(python) == len(SNIPPETS)
    assert all(any(word in name.split() for name in STEPS) for word in ONLY_READ)


def test_the_readme_is_short_and_has_its_five_commands_and_both_set_up_commands():
    lines = TEXTS["README.md"].splitlines()
    assert len(lines) <= 125
    assert "pip install -e . && python tools/main.py --config-file configs/dpm_synthetic.yaml" in lines
    assert 'pip install -e ".[test]" && pytest' in lines
    assert sum(name.startswith("README.md:") and " python tools/" in name for name in STEPS) == 4  # and pip install


def test_a_command_in_the_text_is_read_by_its_program(pytestconfig):
    place = Place(None, pytestconfig)
    starts = ("python tools/", *(f"{program} " for program in PROGRAMS if program != "python"))
    found = [code for code in codes(prose()) if code.startswith(starts)]
    assert len(found) >= 7
    for words in map(shlex.split, found):
        choices = next((word for word in words if re.search(r"\w\|\w", word)), "")  # a|b: each of them
        for choice in choices.split("|"):
            do(place, [choice if word == choices else word for word in words])
    assert set(re.findall(r"\.\[(\w+)\]", "".join(TEXTS.values()))) == set(extras())


def test_keys_and_values_in_the_text_are_known():
    keys = 0
    for code in codes(prose()):
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
        for value in codes(values):
            convert(SCHEMA[key], value)


def test_names_of_the_package_in_the_text_exist():
    names = {name for code in codes(prose()) for name in re.findall(r"\bdpm_plugin(?:\.[A-Za-z_]\w*)+", code)}
    assert len(names) >= 4
    for name in names:
        resolve_name(name)


def test_files_links_and_headings_in_the_text_exist():
    texts = [prose(), CHANGELOG.read_text(encoding="utf-8")]
    starts = ("dpm_plugin/", "configs/", "tools/", "tests/", ".github/", ".ci/")
    paths = {word for text in texts for code in codes(text) for word in code.split() if word.startswith(starts)}
    assert len(paths) > 40
    assert not [path for path in paths if not list(ROOT.glob(path))]
    for page in PAGES:
        for text, target, anchor in links(page):
            assert target.exists(), f"{page}: [{text}] leads nowhere"
            assert not anchor or anchor in anchors(target), f"{page}: [{text}] names no heading"
    assert sum(len(links(page)) for page in PAGES) > 30


def test_data_sets_configurations_and_scripts_are_listed():
    sets = re.findall(r"^\| `(\w+)` \| (?:`.*\{|drawn)", prose("configs/DATA.md"), re.M)
    assert len(sets) == 8 and set(sets) <= image_dataset_classes().keys()
    listed = re.findall(r"^\| `configs/(\w+\.yaml)`", prose("configs/README.md"), re.M)
    assert sorted(listed) == sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
    scripts = set(re.findall(r"`(tools/\w+\.py)`", prose("tools/README.md", ".github/CONTRIBUTING.md")))
    assert scripts >= {f"tools/{path.name}" for path in (ROOT / "tools").glob("*.py")}


def test_each_equation_is_where_the_table_says():
    rows = re.findall(r"^\| ((?:(?:Eq\. \d|section 4\.1)(?:, )?)+) \| .+ \| (.+) \|$", prose("README.md"), re.M)
    assert re.findall(r"Eq\. (\d)", str(rows)) == list("12345678")
    for places, files in rows:
        for file in re.findall(r"\]\((.+?)\)", files):
            for place in places.split(", "):
                assert place in (ROOT / file).read_text(encoding="utf-8"), f"{file} does not name {place}"


def test_the_map_answers_ten_questions():
    rows = re.findall(r"^\| Wh.+\? \| `(.+)` \|$", prose(".github/CONTRIBUTING.md"), re.M)
    assert len(rows) == 10  # that the paths exist is tested above


def test_templates_and_workflow_are_yaml_and_call_what_is_here():
    form, workflow, hooks = (
        yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))
        for path in (".github/ISSUE_TEMPLATE/bug.yml", ".github/workflows/ci.yml", ".pre-commit-config.yaml")
    )
    assert {"name", "description", "body"} <= form.keys()
    assert "bash .ci/run" in [step.get("run") for step in workflow["jobs"]["run"]["steps"]]
    assert [hook["id"] for hook in hooks["repos"][0]["hooks"]] == ["ruff", "ruff-format"]


def test_the_configuration_reference_is_made_from_the_schema(pytestconfig):
    do(Place(None, pytestconfig), ["python", "tools/config_reference.py"])
    assert all(f"| `{name}`" in TEXTS["configs/REFERENCE.md"] for name in SCHEMA)
