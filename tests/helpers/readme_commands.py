"""What the tests do with each command of the documents: run it small, or let its program's own parser read it."""

import argparse
import ast
import contextlib
import importlib
import io
import json
import re
import shlex
import tempfile
from pathlib import Path

import pytest
import torch
from torch.distributed.run import get_args_parser

from dpm_plugin import build, commands
from dpm_plugin.commands import COMMANDS
from dpm_plugin.torchreid_host import model_names
from dpm_plugin.weights.files import read_checkpoint
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
# Word of dpm -> its file of tools/, where it is another.
FILES = {"train": "main", "check": "check_data", "convert": "convert_checkpoint"}
# How a run is resumed -> epochs it then has; each goes on with the run of the command before.
RESUMED = {"train.resume": 2, "model.resume": 3}


# ---- calling a tool ----


def called(tool, args):
    """(exit code, what was printed, what was said on stderr) of ``main(args)`` of tools/TOOL.py."""
    main = importlib.import_module(tool).main
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            code = main(args)
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def succeeded(tool, args):
    """What was printed by a call that must succeed."""
    code, out, err = called(tool, args)
    assert code == 0, err
    return out


class Read(BaseException):
    """Ends a tool as soon as it has read its command; carries what it has read."""


def read(tool, args, patched=argparse.ArgumentParser, functions=("parse_args", "parse_intermixed_args")):
    """What the first call of one of ``functions`` of ``patched`` returns to the tool, which goes no further."""

    def ending(function):
        def end(*given, **options):
            raise Read(function(*given, **options))

        return end

    with pytest.MonkeyPatch.context() as patch:
        for name in functions:
            patch.setattr(patched, name, ending(getattr(patched, name)))
        try:
            raise AssertionError(called(tool, args))
        except Read as found:
            return found.args[0]


# ---- what is done with the arguments of each program ----


def train_or_evaluate(place, args):
    if place.folder is None or ONLY_READ.keys() & set(args):
        read("main", args, build, ["check_names"])
        return
    epochs = next((epochs for key, epochs in RESUMED.items() if key in args), 1)
    if "zoo:occluded_duke" in args:
        place.release()
    again = [] if "train.resume" in args else ["train.overwrite", "True"]  # two documents show the same training
    out = succeeded("main", [*args, *SHRINK, "train.max_epoch", str(epochs), *again])
    assert "** Results **" in out and ("epoch: [1/" in out) == (epochs == 1 and "test.evaluate" not in args)
    assert epochs == 1 or f"epoch: [{epochs}/{epochs}]" in out
    assert "test.rerank" not in args or "after/on+rerank" in out
    place.printed[shlex.join(args)] = out


def index_or_query(place, args):
    out = succeeded("search", args)
    if args[0] == "query":
        found = json.loads(Path("found.json").read_text())
        assert [each["query"] for each in found["queries"]] == ["who.jpg"] and "who.jpg" in out
        assert len(found["queries"][0]["mask_on"]) == 2 and Path("found.html").stat().st_size > 1000


def convert_checkpoint(place, args):
    place.release()
    succeeded("convert_checkpoint", args)
    if "released" in args:  # "bit-equal to released.pth"
        again, before = read_checkpoint(args[1]), read_checkpoint("released.pth")
        assert again.keys() == before.keys() and all(torch.equal(again[key], before[key]) for key in before)


def export(place, args):
    # What is written is tested, and where a package for it is missing, in test_export.py.
    read("export", args)
    assert (Path(args[0]) / "model").is_dir() and args[1].endswith((".onnx", ".pt2"))


def track(place, args):
    code, out, err = called("track_example", args)
    if importlib.util.find_spec("deep_sort_realtime") is None:
        assert code == 2 and err.startswith("error: the tracker is not installed")
    else:
        assert code == 0 and out.count("\n") == 3  # of 5 frames: a track is confirmed in its third


def reproduce(place, args):
    options = read("reproduce", args)
    assert re.fullmatch("table[1-5]|figure[3-5]|parts|occlusion|all", options.what)
    assert set(options.models or ()) <= set(model_names())


def compare(place, args):
    assert set(read("compare", args).models) <= set(model_names())


def benchmark(place, args):
    read("benchmark", args)


def visualize(place, args):
    succeeded("visualize", [*args, "--queries", "1", "--topk", "2", "--channels", "1"])
    assert (Path(args[0]) / "visualize" / "index.html").is_file()


def prepare_occduke(place, args):
    assert "0 written, 62 already there" in succeeded("prepare_occduke", args)


def check_data(place, args):
    code, out, err = called("check_data", args)
    if "--json" in args:
        assert code == 1 and "published" in out, err  # fewer than the published ones
        assert json.loads(Path("report.json").read_text())
    else:
        assert code == 0 and out.startswith(args[0]), out + err


def config_reference(place, args):
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "REFERENCE.md"
        called("config_reference", [*args, str(page)])
        assert page.read_text() == (ROOT / "configs" / "REFERENCE.md").read_text(), "make configs/REFERENCE.md again"


TOOLS = {
    "main": train_or_evaluate,
    "search": index_or_query,
    "track_example": track,
    **{each.__name__: each for each in (convert_checkpoint, export, reproduce, compare, benchmark)},
    **{each.__name__: each for each in (visualize, prepare_occduke, check_data, config_reference)},
}


def python(place, args):
    if args[:2] == ["-m", "dpm_plugin"]:
        done = run_script(place.folder, *args[2:])
        assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "identities: 8"), done.stderr
    else:
        tool = re.fullmatch(r"tools/(\w+)\.py", args[0])[1]
        assert (ROOT / args[0]).is_file()
        TOOLS[tool](place, args[1:])


def dpm(place, args):
    """A word is what its file of tools/ is, as test_commands.py tests; one that stands alone in the text exists."""
    word, *rest = args
    if not rest:
        assert word in (*COMMANDS, "--version")
    elif word == "eval":
        evaluate(place, rest)
    else:
        TOOLS[FILES.get(word, word.replace("-", "_"))](place, rest)


def evaluate(place, args):
    if place.folder is not None and "--config-file" not in args:
        before = set(Path(args[0]).glob("evaluations/*"))
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert commands.main(["eval", *args]) == 0
        assert "** Results **" in out.getvalue() and len(set(Path(args[0]).glob("evaluations/*")) - before) == 1
    else:
        train_or_evaluate(place, [*args, "test.evaluate", "True"])


def torchrun(place, args):
    options = get_args_parser().parse_args(args)
    assert options.training_script == "tools/main.py"
    read("main", options.training_script_args, build, ["check_names"])


def extras():
    """The extras that setup.py offers."""
    calls = [node for node in ast.walk(ast.parse((ROOT / "setup.py").read_text())) if isinstance(node, ast.Call)]
    words = (word for call in calls for word in call.keywords)
    return next(ast.literal_eval(word.value) for word in words if word.arg == "extras_require")


def pip(place, args):
    found = re.fullmatch(r"install (?:-e \.(?:\[(\w+)\])?|[a-z -]+)", " ".join(args))
    assert found and (found[1] is None or found[1] in extras())


def pytest_options(place, args):
    for option, value in zip(args, [*args[1:], ""]):
        if option == "-m":
            markers = {line.partition(":")[0] for line in place.pytestconfig.getini("markers")}
            assert set(re.findall(r"\w+", value)) - {"not"} <= markers, value
        elif option.startswith("--"):
            place.pytestconfig.getoption(option)  # raises for an unknown one


def a_path_here(place, args):
    assert all((ROOT / path).exists() for path in args[-1:])


def hooks(place, args):
    assert args == ["install"] and (ROOT / ".pre-commit-config.yaml").is_file()


PROGRAMS = dict(
    {"dpm": dpm, "pip": pip, "python": python, "torchrun": torchrun, "pytest": pytest_options, "pre-commit": hooks},
    **dict.fromkeys(("bash", "mypy", "ruff"), a_path_here),
)


def do(place, words):
    """Run one command of the documents, or read it as its program would."""
    PROGRAMS[words[0]](place, words[1:])
