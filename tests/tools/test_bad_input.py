"""A file that is no model for a tool: it says so in one line with exit code 2, runs nothing and leaves nothing."""

import importlib.util
from pathlib import Path

import pytest
import torch

from convert_checkpoint import main as convert
from dpm_plugin.apps.picture_index.cli import main as search
from dpm_plugin.inference.export.cli import main as export
from dpm_plugin.torchreid_host import models
from helpers.data import draw, write_occluded_duke
from helpers.payload import Payload
from helpers.runs import untrained_run

pytestmark = pytest.mark.filterwarnings("ignore:occluded_duke")  # drawn smaller than published
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ["--config-file", "settings.yaml"]
SETS = ["--root", "data", "-s", "occluded_duke", "-t", "occluded_duke"]
RUN = [*SETTINGS, *SETS, "test.ranks", "[1]", "data.save_dir"]


def tool(name):
    spec = importlib.util.spec_from_file_location(f"bad_input_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


TOOLS = {
    "export": lambda file, logs: export([file, "out.pt2", *SETTINGS]),
    "index": lambda file, logs: search(["index", "pictures", "--model", file, *SETTINGS]),
    "query": lambda file, logs: search(["query", "pictures/a.png", "--index", "index", "--model", file, *SETTINGS]),
    "track": lambda file, logs: tool("track_example")(
        ["film.mp4", "boxes.txt", "--model", file, *SETTINGS, "--out", "tracks.txt"]
    ),
    "convert": lambda file, logs: convert([file, "out.pth"]),
    "load": lambda file, logs: tool("main")([*RUN, logs, "model.load_weights", file, "test.evaluate", "True"]),
    "resume": lambda file, logs: tool("main")([*RUN, logs, "model.resume", file]),
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
    "zoo:occluded_duck": "the nearest known name is 'zoo:occluded_duke'",
    "zoo:occluded_reid": "can't be downloaded",
}
# (tool, file) -> where that differs, or None where it is no mistake: names change in any shape.
SPECIAL = {
    ("convert", "other-model.pth"): "nothing to convert",
    ("convert", "other-shape.pth"): None,
    ("resume", "zoo:occluded_duck"): "does not exist",
    ("resume", "zoo:occluded_reid"): "does not exist",
} | {(name, "other-model.pth"): "fits this DPM" for name in ("export", "index", "query", "track", "load")}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with pictures, an index of them, data, settings and the files above."""
    folder = tmp_path_factory.mktemp("bad")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run, _, config = untrained_run(Path("run"))
        Path("settings.yaml").write_text(config.dump(), encoding="utf-8")
        draw("pictures/a.png")
        assert search(["index", "pictures", "--model", str(run), "--index", "index"]) == 0
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
    for name in TOOLS
    for file in FILES
    if name not in ("load", "resume") or file not in ("empty.pth", "text.pth", "folder", "missing.pth")
]


@pytest.mark.parametrize("name, file", CASES)
def test_it_is_one_line_with_exit_code_2_and_nothing_is_left_behind(place, tmp_path, monkeypatch, capsys, name, file):
    monkeypatch.chdir(place)
    monkeypatch.setenv("DPM_CACHE", "cache")
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nothing listens there
    before = sorted(place.rglob("*"))
    code = TOOLS[name](file, str(tmp_path))
    error = capsys.readouterr().err
    said = SPECIAL.get((name, file), FILES[file])
    if said is None:
        assert code == 0 and Path("out.pth").is_file()
        Path("out.pth").unlink()
    else:
        assert (code, error.count("\n")) == (2, 1) and error.startswith("error: ") and said in error, error
    assert sorted(place.rglob("*")) == before
