"""The listing of the package is its architecture: what may import what, and what no file may do."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dpm_plugin"
FILES = sorted(PACKAGE.rglob("*.py"))
#: From the top down: a part imports from the parts below it and from its own; parts of one line not from each other.
LEVELS = (
    ("__main__", "script_worker"),
    ("commands", "script"),
    ("__init__",),
    ("apps",),
    ("inference",),
    ("build",),
    ("engine", "models"),
    ("weights",),
    ("config", "evaluation"),
    ("data", "method"),
    ("torchreid_host", "distributed"),
    ("utils",),
)
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
#: Names of timm, torch, numpy and torchreid's engine that have no public twin, and public ones that begin so.
UNDERSCORED = set("_pos_embed _foreach_norm _core _models _optims _scheds _asdict _replace _exit _fields".split())


def module_of(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path):
    """Modules of this package that a file imports, at its top or within functions."""
    known = {module_of(file) for file in FILES}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "dpm_plugin":
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in known else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.partition(".")[0] == "dpm_plugin")


IMPORTS = {module_of(path): sorted(set(imported(path)) - {module_of(path)}) for path in FILES}


def part_of(module):
    return module.split(".")[1] if "." in module else "__init__"


@pytest.mark.parametrize("module", IMPORTS)
def test_imports_go_one_way(module):
    for other in IMPORTS[module]:
        here, there = part_of(module), part_of(other)
        assert here == there or LEVEL[here] < LEVEL[there], (module, other)


def test_no_circle_of_imports():
    state = {}

    def visit(module, path):
        assert state.get(module) != "open", " -> ".join([*path, module])
        if module not in state:
            state[module] = "open"
            for other in IMPORTS.get(module, ()):
                visit(other, [*path, module])
            state[module] = "done"

    for module in IMPORTS:
        visit(module, [])


@pytest.mark.parametrize("path", sorted((PACKAGE / "method").glob("*.py")), ids=lambda path: path.stem)
def test_the_method_imports_nothing_of_the_package_but_utils(path):
    assert {part_of(module) for module in IMPORTS[module_of(path)]} <= {"method", "utils"}


def test_only_one_file_imports_torchreid():
    importing = re.compile(r"^\s*(import|from)\s+torchreid\b", re.MULTILINE)
    files = [path for path in FILES if importing.search(path.read_text(encoding="utf-8"))]
    assert files == [PACKAGE / "torchreid_host.py"]


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_the_package_reads_nothing_of_its_checkout(path):
    """Only the file that says where the package lies looks above it, and none imports from beside it."""
    source = path.read_text(encoding="utf-8")
    assert path.name == "place.py" or not re.search(r"__file__\)[\w.()]*\.parents\[[1-9]", source)
    assert not re.search(r"^\s*(import|from)\s+(tests|tools|experiments|helpers)\b", source, re.MULTILINE)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_private_attribute_of_another_class_or_module(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {
        target.attr if isinstance(target, ast.Attribute) else target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store)
        for target in [node]
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr) and node.attr not in own:
            assert node.attr in UNDERSCORED, (path, node.lineno, node.attr)


@pytest.mark.parametrize("folder", ["dpm_plugin", "tools", "tests"])
def test_no_file_is_longer_than_300_lines(folder):
    long = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert not {name: lines for name, lines in long.items() if lines > 300}


def test_the_listing_is_short():
    assert len([path for path in PACKAGE.iterdir() if path.is_file() and path.name != "py.typed"]) <= 8
