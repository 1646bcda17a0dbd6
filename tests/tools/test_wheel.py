"""What an installed package does without its checkout: built as a wheel, in an environment and a folder of its own."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.readme_commands import SHRINK

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ("configs", "dpm_plugin", "LICENSE", "README.md", "setup.py")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("pip", "setuptools"))), reason="pip or setuptools is not installed"
    ),
]
# One process for most of the commands, as each would import everything anew; argv: one command, as JSON, each.
EACH = """
import json, sys
import dpm_plugin
from dpm_plugin.commands import main
print("package:", dpm_plugin.__file__)
for words in map(json.loads, sys.argv[1:]):
    print("===", *words, flush=True)
    assert main(words) == 0, words
"""
RUN = "log/dpm_synthetic"
COMPARED = [word for pair in zip(SHRINK[::2], SHRINK[1::2]) if pair[0] != "train.max_epoch" for word in pair]
COMMANDS = [
    ["eval", RUN],
    ["check", "images"],
    ["search", "index", "images", "--model", RUN],
    ["search", "query", "images/a.jpg", "--index", "images", "--html", "found.html"],
    ["visualize", RUN, "--queries", "1", "--topk", "2", "--channels", "1"],
    ["convert", f"{RUN}/model/last.pth.tar", "released.pth", "--to", "released"],
    ["export", RUN, "model.pt2"],
    ["compare", "dpm_vit_tiny", "--budget", "epochs", "1", *COMPARED],
]


def run(*command, **options):
    """What a command printed; it must succeed, and knows nothing of this checkout."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=580, **options)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of what a git URL or an sdist brings."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / "source" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder]
    run(*pip, folder / "source")
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """``program(name)`` in an environment where the wheel is, with this environment's other packages behind it."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, symlinks=True)
    scripts = folder / Path(sysconfig.get_path("scripts")).name
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site_packages = Path(run(scripts / "python", "-c", code).strip())
    (site_packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [scripts / "python", "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--ignore-installed"]
    run(*pip, wheel)
    return SimpleNamespace(program=lambda name: scripts / name, site_packages=site_packages)


def test_the_wheel_holds_the_repositorys_configurations_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        for path in [*(ROOT / "configs").rglob("*.yaml"), ROOT / "configs" / "REFERENCE.md"]:
            assert archive.read(f"dpm_plugin/{path.relative_to(ROOT).as_posix()}") == path.read_bytes()
        names = archive.namelist()
        assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"dpm_plugin"}
        (entry,) = (archive.read(name).decode() for name in names if name.endswith("entry_points.txt"))
    assert "dpm = dpm_plugin.commands:main" in entry and not (ROOT / "dpm_plugin" / "configs").exists()


def test_an_sdist_holds_what_a_wheel_is_built_of(tmp_path):
    for name in SHIPPED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    run(sys.executable, "setup.py", "-q", "sdist", "-d", "out", cwd=tmp_path)
    (made,) = (tmp_path / "out").iterdir()
    shutil.unpack_archive(made, tmp_path / "unpacked")
    (top,) = (tmp_path / "unpacked").iterdir()
    for path in (ROOT / "configs").rglob("*.yaml"):
        assert (top / path.relative_to(ROOT)).read_bytes() == path.read_bytes()


def test_every_command_works_from_a_wheel_in_an_empty_folder(installed, tmp_path):
    dpm, python = installed.program("dpm"), installed.program("python")
    assert run(dpm, "--version", cwd=tmp_path).startswith("dpm-torchreid ")
    shown = run(dpm, "train", "--config-file", "dpm_synthetic", *SHRINK, cwd=tmp_path)
    assert "** Results **" in shown and (tmp_path / RUN / "results.json").is_file()
    images = sorted((tmp_path / "reid-data").rglob("query/*.jpg"))[:2]
    (tmp_path / "images").mkdir()
    for image, name in zip(images, ("a.jpg", "b.jpg")):
        shutil.copy(image, tmp_path / "images" / name)
    shown = run(python, "-c", EACH, *map(json.dumps, COMMANDS), cwd=tmp_path)
    assert f"package: {installed.site_packages}" in shown and str(ROOT) not in shown
    for made in ("found.html", "released.pth", "model.pt2", "log/compare/compare.md", f"{RUN}/visualize/index.html"):
        assert (tmp_path / made).is_file(), made
    assert list((tmp_path / RUN / "evaluations").glob("*/results.json"))
