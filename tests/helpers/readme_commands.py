"""What the tests do with each command of the documents, in a folder with small stand-ins for a reader's files."""

import argparse
import ast
import contextlib
import importlib.util
import io
import json
import re
import shlex
import shutil
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from dpm_plugin import build
from dpm_plugin.torchreid_host import model_names
from dpm_plugin.weights.files import read_checkpoint, read_state
from helpers.model import to_released
from helpers.readme import ROOT
from helpers.scripts import run_script

# Appended to every run of tools/main.py: a tiny encoder, few and tiny images, one epoch.
SHRINK = """
model.pretrained False vit.backbone vit_tiny_patch16_224.augreg_in21k_ft_in1k vit.patch_size 8 vit.stride 8
vit.embed_dim 16 vit.depth 2 vit.num_heads 2 vit.mask_blocks [1,2] data.height 32 data.width 16 data.workers 0
synthetic.height 32 synthetic.width 16 synthetic.train_ids 4 synthetic.train_images 4 synthetic.test_ids 6
synthetic.gallery_images 4 synthetic.query_images 1 synthetic.distractor_ids 0 sampler.num_instances 2
train.batch_size 8 train.max_epoch 1 train.print_freq 1
""".split()
# A word of a command -> why it is read as tools/main.py reads it, with this config and these keys, but not run.
ONLY_READ = {"train.seed": "the quick start again, six times", "--root": "a folder of this name is not ours to make"}
# How a run is resumed -> epochs it then has; each goes on with the run of the command before.
RESUMED = {"train.resume": 2, "model.resume": 3}


class Place:
    """The folder that a reader works in (None: commands are only read).

    ``printed`` is what each command said, ``names`` are those of the snippets.
    """

    def __init__(self, folder, pytestconfig):
        self.folder, self.pytestconfig, self.printed, self.names = folder, pytestconfig, {}, {}
        if folder is not None:
            self._fill()

    def _fill(self):
        folder = self.folder
        rng = np.random.default_rng(0)
        people = folder / "reid-data" / "Occluded_Duke"
        sides = {
            "bounding_box_train": (range(1, 9), (1, 2), (1, 2)),
            "query": (range(11, 17), (1,), (1,)),
            "bounding_box_test": (range(11, 17), (2, 3), (1, 2)),
        }
        images = [
            people / side / f"{pid:04d}_c{camera}_f{frame:07d}.jpg"
            for side, (pids, cameras, frames) in sides.items()
            for pid in pids
            for camera in cameras
            for frame in frames
        ]
        images += map(folder.joinpath, ("a.jpg", "b.png", "who.jpg", "my-images/1.jpg", "my-images/2.png"))
        for path in images:
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)).save(path)
        shutil.copytree(ROOT / "configs", folder / "configs")
        self._zip(people)
        self._script()
        self._film(rng)

    def _zip(self, people):
        """A DukeMTMC-reID.zip of those images, and the lists of their names."""
        (self.folder / "FOLDER").mkdir()
        with zipfile.ZipFile(self.folder / "DukeMTMC-reID.zip", "w") as archive:
            sides = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
            for split, side in sides.items():
                names = sorted(path.name for path in (people / side).iterdir())
                (self.folder / "FOLDER" / f"{split}.list").write_text("\n".join(names) + "\n")
                for name in names:
                    archive.write(people / side / name, f"DukeMTMC-reID/{side}/{name}")

    def _script(self):
        (self.folder / "scripts").mkdir()
        (self.folder / "scripts" / "main.py").write_text("""
import argparse, torchreid, yaml
parser = argparse.ArgumentParser()
parser.add_argument("--config-file")
parser.add_argument("--root")
args = parser.parse_args()
manager = torchreid.data.ImageDataManager(root=args.root, use_gpu=False, **yaml.safe_load(open(args.config_file)))
print("identities:", manager.num_train_pids)
""")
        (self.folder / "my.yaml").write_text("{sources: occluded_duke, batch_size_train: 4, workers: 0}")

    def _film(self, rng):
        film = cv2.VideoWriter(str(self.folder / "video.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 5, (64, 48))
        frame = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        for _ in range(5):
            film.write(frame)
        film.release()
        lines = [f"{number},-1,10,4,16,32,0.9\n" for number in range(1, 6)]
        (self.folder / "boxes.txt").write_text("".join(lines))

    def release(self):
        """Once there is a run: its weights as the published ones, by hand in the cache and as a file."""
        if not Path("released.pth").exists():
            torch.save(to_released(read_state("log/dpm_occduke/model/last.pth.tar")), "released.pth")
            Path("cache").mkdir()
            shutil.copy("released.pth", "cache/occluded_duke.pth")


# ---- what is done with a command ----


def called(main, args):
    """(exit code, what was printed, what was said on stderr) of a tool's ``main(argv)``."""
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main(args)
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def succeeded(main, args):
    """What was printed by a call that must succeed."""
    code, out, err = called(main, args)
    assert code == 0, err
    return out


def tool(name):
    """tools/NAME.py as a module."""
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location(f"readme_{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


class Read(BaseException):
    """Ends a tool when it has read its command, or built nothing yet; carries what it has read."""


def read(main, args, patched=argparse.ArgumentParser, functions=("parse_args", "parse_intermixed_args")):
    """What ``functions`` of ``patched`` return when ``main(args)`` calls the first of them; it goes no further."""

    def ending(function):
        def end(*given, **options):
            raise Read(function(*given, **options))

        return end

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        for name in functions:
            patch.setattr(patched, name, ending(getattr(patched, name)))
        with pytest.raises(Read) as stopped:
            main(args)
    return stopped.value.args[0]


def train_or_evaluate(place, args, only_read=False):
    main = tool("main").main
    if only_read or place.folder is None or ONLY_READ.keys() & set(args):
        assert read(main, args, build, ["check_names"]) is None
        return
    evaluated = "test.evaluate" in args
    epochs = next((epochs for key, epochs in RESUMED.items() if key in args), 1)
    if "zoo:occluded_duke" in args:
        place.release()
    out = succeeded(main, [*args, *SHRINK, "train.max_epoch", str(epochs)])
    assert "** Results **" in out and ("epoch: [1/" in out) == (epochs == 1 and not evaluated)
    assert epochs == 1 or f"epoch: [{epochs}/{epochs}]" in out
    assert "test.rerank" not in args or "after/on+rerank" in out
    place.printed[shlex.join(args)] = out


def index_or_query(place, args):
    out = succeeded(tool("search").main, args)
    if args[0] == "query":
        found = json.loads(Path("found.json").read_text())
        assert [each["query"] for each in found["queries"]] == ["who.jpg"] and "who.jpg" in out
        assert len(found["queries"][0]["mask_on"]) == 2 and Path("found.html").stat().st_size > 1000


def convert_checkpoint(place, args):
    place.release()
    succeeded(tool("convert_checkpoint").main, args)
    if "released" in args:  # "bit-equal to released.pth"
        again, before = read_checkpoint(args[1]), read_checkpoint("released.pth")
        assert again.keys() == before.keys() and all(torch.equal(again[key], before[key]) for key in before)


def export_file(place, args):
    # What is written is tested, and where a package for it is missing, in test_export.py.
    read(tool("export").main, args)
    assert (Path(args[0]) / "model").is_dir() and args[1].endswith((".onnx", ".pt2"))


def track(place, args):
    code, out, err = called(tool("track_example").main, args)
    if importlib.util.find_spec("deep_sort_realtime") is None:
        assert code == 2 and err.startswith("error: the tracker is not installed")
    else:
        assert code == 0 and out.count("\n") == 3  # of 5 frames: a track is confirmed in its third


def reproduce(place, args):
    options = read(tool("reproduce").main, args)
    assert re.fullmatch("table[1-5]|figure[3-5]|occlusion|all", options.what)
    assert set(options.models or ()) <= set(model_names())


def compare(place, args):
    assert set(read(tool("compare").main, args).models) <= set(model_names())


def visualize(place, args):
    succeeded(tool("visualize").main, [*args, "--queries", "1", "--topk", "2", "--channels", "1"])
    assert (Path(args[0]) / "visualize" / "index.html").is_file()


def prepare(place, args):
    assert "0 written, 62 already there" in succeeded(tool("prepare_occduke").main, args)


def check(place, args):
    code, out, err = called(tool("check_data").main, args)
    if "--json" in args:
        assert code == 1 and "published" in out, err  # fewer than the published ones
        assert json.loads(Path("report.json").read_text())
    else:
        assert code == 0 and "my-images" in out, err


def script(place, args):
    done = run_script(place.folder, *args)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "identities: 8"), done.stderr


def install(place, args):
    assert args[0] == "install"
    if args[1] == "-e":
        folder, extra = re.fullmatch(r"(.)(?:\[(\w+)\])?", args[2]).groups()
        assert folder == "." and (extra is None or extra in extras()) and len(args) == 3
    else:
        assert all(map(str.isidentifier, (name.replace("-", "_") for name in args[1:])))


def read_by_pytest(place, args):
    for option, value in zip(args, [*args[1:], ""]):
        if option == "-m":
            markers = {line.partition(":")[0] for line in place.pytestconfig.getini("markers")}
            assert set(re.findall(r"\w+", value)) - {"not"} <= markers
        elif option.startswith("--"):
            place.pytestconfig.getoption(option)  # raises for an unknown one


def check_files(place, args):
    assert (ROOT / args[-1]).exists()


def commit_hooks(place, args):
    assert args == ["install"] and (ROOT / ".pre-commit-config.yaml").is_file()


def launched(place, args):
    from torch.distributed.run import get_args_parser

    options = get_args_parser().parse_args(args)
    assert options.training_script == "tools/main.py"
    train_or_evaluate(place, options.training_script_args, only_read=True)


TOOLS = {
    "main": train_or_evaluate,
    "search": index_or_query,
    "convert_checkpoint": convert_checkpoint,
    "export": export_file,
    "track_example": track,
    "reproduce": reproduce,
    "compare": compare,
    "visualize": visualize,
    "prepare_occduke": prepare,
    "benchmark": lambda place, args: read(tool("benchmark").main, args),
    "check_data": check,
}


def extras():
    """The extras that setup.py offers."""
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call)]
    words = (word for call in calls for word in call.keywords)
    return next(ast.literal_eval(word.value) for word in words if word.arg == "extras_require")


PROGRAMS = {
    "pip": install,
    "torchrun": launched,
    "pytest": read_by_pytest,
    "bash": check_files,
    "ruff": check_files,
    "mypy": check_files,
    "pre-commit": commit_hooks,
}


def do(place, words):
    """Run one command of the documents, or read it as its program would."""
    program, *args = words
    if program != "python":
        PROGRAMS[program](place, args)
    elif args[:2] == ["-m", "dpm_plugin"]:
        script(place, args[2:])
    else:
        name = re.fullmatch(r"tools/(\w+)\.py", args[0])
        assert name and name[1] in TOOLS and (ROOT / args[0]).is_file(), f"no test knows {args[0]}"
        TOOLS[name[1]](place, args[1:])
