"""A file that is no model for a tool: it says so in one line with exit code 2, runs nothing and leaves nothing."""

import importlib
from pathlib import Path

import pytest
import torch

from dpm_plugin.torchreid_host import models
from helpers.data import draw, write_occluded_duke
from helpers.network import go_offline
from helpers.payload import Payload
from helpers.runs import untrained_run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:occluded_duke")]  # drawn smaller than published
SETTINGS = ["--config-file", "settings.yaml"]
SETS = ["--root", "data", "-s", "occluded_duke", "-t", "occluded_duke"]
RUN = [*SETTINGS, *SETS, "test.ranks", "[1]", "data.save_dir"]


# What is done with the file -> tool and its arguments; FILE and LOGS stand for the file and an empty folder.
COMMANDS = {
    "export": ["export", "FILE", "out.pt2", *SETTINGS],
    "index": ["search", "index", "images", "--model", "FILE", *SETTINGS],
    "query": ["search", "query", "images/a.png", "--index", "index", "--model", "FILE", *SETTINGS],
    "track": ["track_example", "film.mp4", "boxes.txt", "--model", "FILE", *SETTINGS, "--out", "tracks.txt"],
    "convert": ["convert_checkpoint", "FILE", "out.pth"],
    "load": ["main", *RUN, "LOGS", "model.load_weights", "FILE", "test.evaluate", "True"],
    "resume": ["main", *RUN, "LOGS", "model.resume", "FILE"],
}
# Name of the file -> what is said of it.
FILES = {
    "truncated.pth": "cannot be read as plain weights",
    "empty.pth": "cannot be read as plain weights",
    "text.pth": "cannot be read as plain weights",
    "executing.pth": "cannot be read as plain weights",
    "folder": "is a folder",
    "missing.pth": "does not exist",
    "other-model.pth": "of another model",
    "other-shape.pth": "of another",
    "zoo:occluded_duck": "did you mean 'zoo:occluded_duke'?",
    "zoo:occluded_reid": "can't be downloaded",
}
# (tool, file) -> where that differs, or None where it is no mistake: names change in any shape.
SPECIAL = {
    ("convert", "other-model.pth"): "nothing to convert",
    ("convert", "other-shape.pth"): None,
    ("resume", "zoo:occluded_duck"): "does not exist",
    ("resume", "zoo:occluded_reid"): "does not exist",
} | {(name, "other-model.pth"): "fits this DPM" for name in ("export", "index", "query", "track", "load")}


def run_tool(name, *arguments):
    return importlib.import_module(name).main(arguments)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images, an index of them, data, settings and the files above."""
    folder = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run, _, config = untrained_run(Path("run"))
        Path("settings.yaml").write_text(config.dump(), encoding="utf-8")
        draw("images/a.png")
        assert run_tool("search", "index", "images", "--model", str(run), "--index", "index") == 0
        write_occluded_duke("data")
        Path("boxes.txt").write_text("1,-1,0,0,9,9,1\n")
        whole = (run / "model" / "last.pth.tar").read_bytes()
        for name, content in (("truncated", whole[: len(whole) // 2]), ("empty", b""), ("text", b"{'weights': 1}")):
            Path(f"{name}.pth").write_bytes(content)
        state = {"epoch": 1, "rank1": 0.5, "optimizer": None}
        torch.save({**state, "state_dict": {}, "x": Payload("executed")}, "executing.pth")
        other = models.build_model("osnet_x0_25", num_classes=4, pretrained=False)
        torch.save({**state, "state_dict": other.state_dict()}, "other-model.pth")
        _, wider, _ = untrained_run(Path("wider"), vit__embed_dim=32)
        torch.save({**state, "state_dict": wider.state_dict()}, "other-shape.pth")
        for name in ("folder", "cache"):
            Path(name).mkdir()
    return folder


# A run is built first, which takes a while, and reads its checkpoint as the others do.
CASES = [
    (name, file)
    for name in COMMANDS
    for file in FILES
    if name not in ("load", "resume") or file not in ("empty.pth", "text.pth", "folder", "missing.pth")
]


@pytest.mark.parametrize("name, file", CASES)
def test_it_is_one_line_with_exit_code_2_and_nothing_is_left_behind(place, tmp_path, monkeypatch, capsys, name, file):
    monkeypatch.chdir(place)
    monkeypatch.setenv("DPM_CACHE", "cache")
    go_offline(monkeypatch)
    before = sorted(place.rglob("*"))
    code = run_tool(*[{"FILE": file, "LOGS": str(tmp_path)}.get(word, word) for word in COMMANDS[name]])
    error = capsys.readouterr().err
    said = SPECIAL.get((name, file), FILES[file])
    if said is None:
        assert code == 0 and Path("out.pth").is_file()
        Path("out.pth").unlink()
    else:
        assert (code, error.count("\n")) == (2, 1) and error.startswith("error: ") and said in error, error
    assert sorted(place.rglob("*")) == before
