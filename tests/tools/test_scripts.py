"""python -m dpm_plugin: scripts written for torchreid run as they are, in both import styles, with any workers."""

import os
import re
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from dpm_plugin import script
from dpm_plugin.evaluation.protocol import format_headline
from dpm_plugin.torchreid_host import models, optim, utils
from helpers.data import draw, write_occluded_duke
from helpers.scripts import run_script

pytestmark = [pytest.mark.slow, pytest.mark.torchreid]

ROOT = Path(__file__).resolve().parents[2]

# The calls of torchreid's training script, in its order; PACKAGE is torchreid or torchreid.reid.
TRAIN = """
import argparse, os.path as osp, sys, time
import torch
import torchreid
import PACKAGE.data, PACKAGE.engine
from PACKAGE import models, optim
from PACKAGE.utils import (
    Logger, check_isfile, compute_model_complexity, load_pretrained_weights, resume_from_checkpoint, set_random_seed
)
from settings import SIZE  # a module beside the script

def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root")
    parser.add_argument("--loss", default="softmax")
    parser.add_argument("--save-dir")
    parser.add_argument("--max-epoch", type=int, default=1)
    parser.add_argument("--resume", default="")
    parser.add_argument("--weights", default="")
    parser.add_argument("--evaluate", action="store_true")
    args = parser.parse_args()
    set_random_seed(1)
    log_name = "test.log" if args.evaluate else "train.log"
    sys.stdout = Logger(osp.join(args.save_dir, log_name + time.strftime("-%Y-%m-%d-%H-%M-%S")))
    datamanager = torchreid.data.ImageDataManager(
        root=args.root, sources="occluded_duke", targets="occluded_duke", **SIZE, batch_size_train=4,
        batch_size_test=4, transforms=["random_flip"], workers=0, use_gpu=torch.cuda.is_available(),
        train_sampler="RandomIdentitySampler" if args.loss == "triplet" else "RandomSampler", num_instances=2)
    model = models.build_model(
        name="dpm_vit_tiny", num_classes=datamanager.num_train_pids, loss=args.loss, pretrained=True, use_gpu=False)
    num_params, flops = compute_model_complexity(model, (1, 3, SIZE["height"], SIZE["width"]))
    print("Model complexity: params={:,} flops={:,}".format(num_params, flops))
    if args.weights and check_isfile(args.weights):
        load_pretrained_weights(model, args.weights)
    optimizer = optim.build_optimizer(model, optim="sgd", lr=0.001)
    scheduler = optim.build_lr_scheduler(optimizer, lr_scheduler="cosine", max_epoch=2)
    start_epoch = 0
    if args.resume and check_isfile(args.resume):
        start_epoch = resume_from_checkpoint(args.resume, model, optimizer=optimizer, scheduler=scheduler)
    classes = {"softmax": PACKAGE.engine.ImageSoftmaxEngine, "triplet": PACKAGE.engine.ImageTripletEngine}
    engine = classes[args.loss](datamanager, model, optimizer=optimizer, scheduler=scheduler, use_gpu=False)
    engine.run(save_dir=args.save_dir, max_epoch=args.max_epoch, start_epoch=start_epoch, ranks=[1, 2],
               test_only=args.evaluate, print_freq=1)
    sys.stdout.flush()

if __name__ == "__main__":
    main()
"""

# The contract that torchreid's script for activation maps relies on.
ACTMAP = """
import sys
import torch
import torchreid
from torch.nn import functional as F
from torchreid.utils import check_isfile, load_pretrained_weights

@torch.no_grad()
def activation_maps(model, loader):
    model.eval()
    for data in loader:
        outputs = model(data["img"], return_featuremaps=True)
        assert outputs.dim() == 4
        outputs = (outputs ** 2).sum(1)
        b, h, w = outputs.size()
        print("maps", b, h, w, len(data["impath"]), F.normalize(outputs.view(b, h * w)).norm(dim=1).tolist())

datamanager = torchreid.data.ImageDataManager(
    root=sys.argv[1], sources="occluded_duke", height=64, width=32, batch_size_train=4, batch_size_test=4,
    transforms=None, workers=0, use_gpu=False)
model = torchreid.models.build_model(
    name=sys.argv[3], num_classes=datamanager.num_train_pids, use_gpu=False)
if check_isfile(sys.argv[2]):
    load_pretrained_weights(model, sys.argv[2])
for target in datamanager.test_loader:
    activation_maps(model, datamanager.test_loader[target]["query"])
"""

# A data set of the script's own, as torchreid's documentation shows it, loaded by workers.
WORKERS = """
import glob, multiprocessing, os, sys
import torchreid.utils
from torchreid import data
from torchreid.reid.data import ImageDataset  # by either import style the same

assert data.ImageDataset is ImageDataset

class Mine(data.ImageDataset):
    def __init__(self, root="", **kwargs):
        paths = sorted(glob.glob(os.path.join(root, "*.jpg")))
        train = [(path, number // 2, number % 2) for number, path in enumerate(paths)]
        super().__init__(train, train[:1], train[1:2], **kwargs)

    def __getitem__(self, index):
        assert "dpm_plugin" in sys.modules
        return super().__getitem__(index)

data.register_image_dataset("mine", Mine)

if __name__ == "__main__":
    for method in sys.argv[2:]:
        multiprocessing.set_start_method(method, force=True)
        manager = data.ImageDataManager(
            root=sys.argv[1], sources="mine", height=16, width=8, batch_size_train=4, workers=1, use_gpu=False)
        for batch in manager.train_loader:
            print(method, tuple(batch["img"].shape))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with scripts, data and, of each loss, a finished run of one epoch; name -> what it printed."""
    folder = tmp_path_factory.mktemp("scripts")
    write_occluded_duke(folder / "data")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "settings.py").write_text("SIZE = dict(height=64, width=32)\n")
    texts = {"train": TRAIN.replace("PACKAGE", "torchreid"), "train_reid": TRAIN.replace("PACKAGE", "torchreid.reid")}
    for name, text in {**texts, "actmap": ACTMAP}.items():
        (folder / "scripts" / f"{name}.py").write_text(text)
    runs = {
        "softmax": "train.py --root data --save-dir softmax",
        "triplet": "train_reid.py --root data --save-dir triplet --loss triplet",
        "resume": "train_reid.py --root data --save-dir resumed --max-epoch 2 --resume softmax/model/model.pth.tar-1",
        "evaluate": "train.py --root data --save-dir evaluated --evaluate --weights softmax/model/model.pth.tar-1",
        "actmap": "actmap.py data softmax/model/model.pth.tar-1 dpm_vit_tiny",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DPM_PRETRAINED", "none")
        done = {name: run_script(folder, *f"scripts/{words}".split()) for name, words in runs.items()}
    assert all(each.returncode == 0 for each in done.values()), [each.stderr for each in done.values()]
    return types.SimpleNamespace(folder=folder, stdout={name: each.stdout for name, each in done.items()})


def parsed(text):
    """What torchreid's log parser finds in a test log."""
    patterns = {"mAP": r"mAP: ([\.\deE+-]+)%", "rank1": r"Rank-1  : ([\.\deE+-]+)%"}
    return {name: float(re.search(pattern, text).group(1)) for name, pattern in patterns.items()}


@pytest.mark.parametrize("loss", ["softmax", "triplet"])
def test_the_stock_engines_train_a_plugin_model_from_a_stock_script(place, loss):
    assert "Model complexity: params=" in place.stdout[loss] and "epoch: [1/1][1/3]" in place.stdout[loss]
    assert (place.folder / loss / "model" / "model.pth.tar-1").is_file()


def test_torchreids_own_checkpoint_of_a_plugin_model_resumes_by_torchreids_call(place):
    stdout = place.stdout["resume"]
    assert "Last epoch = 1" in stdout and "Last rank1 = " in stdout
    assert "epoch: [2/2]" in stdout and "epoch: [1/2]" not in stdout


def test_evaluating_gives_the_training_runs_result_in_a_log_that_torchreids_parser_reads(place):
    (log,) = (place.folder / "evaluated").glob("test.log*")
    assert parsed(log.read_text()) == parsed(place.stdout["softmax"])
    row = types.SimpleNamespace(cmc=[0.25, 0.5])
    ours = types.SimpleNamespace(mAP=0.125, rows={"after/on": row}, headline="after/on", ranks=(1, 2))
    assert parsed(format_headline(ours)) == {"mAP": 12.5, "rank1": 25.0}


def test_activation_maps_of_a_plugin_model_are_drawn_from_its_feature_maps(place):
    assert "maps 2 4 2 2 [" in place.stdout["actmap"]  # 2 queries of 64x32 pixels: 4x2 patches


def test_a_scripts_own_data_set_is_loaded_by_workers_of_every_start_method(tmp_path):
    for number in range(4):
        draw(tmp_path / f"{number}.jpg")
    path = tmp_path / "workers.py"
    path.write_text(WORKERS)
    env = {**os.environ, "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-m", "dpm_plugin", str(path), str(tmp_path), "fork", "spawn"]
    absolute = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=280)
    relative = run_script(tmp_path, path.name, tmp_path, "forkserver")  # workers find a relative path too
    for done, methods in ((absolute, ("fork", "spawn")), (relative, ("forkserver",))):
        assert done.returncode == 0, done.stderr
        assert all(f"{method} (4, 3, 16, 8)" in done.stdout for method in methods)


# ---- what a script sees, and how it ends ----

SEES = """
# -*- coding: latin-1 -*-
import pickle, sys
import __main__
class Here: pass
print(__name__, __file__, sys.argv[1:], sys.path[0], "caf\xe9" == "caf\\xe9")
print(type(pickle.loads(pickle.dumps(Here()))) is Here, __main__.Here is Here)
print(sorted(name for name in globals() if not name.startswith("__")))
"""


def test_a_script_sees_what_python_would_show_it(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "sees.py").write_bytes(SEES.lstrip().encode("latin-1"))
    done = run_script(tmp_path, "deep/sees.py", "-s", "market1501", "--help")
    assert done.returncode == 0, done.stderr
    first = f"__main__ deep/sees.py ['-s', 'market1501', '--help'] {(tmp_path / 'deep').resolve()} True"
    assert done.stdout.splitlines() == [first, "True True", "['Here', 'pickle', 'sys']"]


@pytest.mark.parametrize(
    "text, code, err",
    [
        ("import sys; sys.exit(7)", 7, ""),
        ("import sys; sys.exit('so sorry')", 1, "so sorry\n"),
        ("raise SystemExit", 0, ""),
        (
            "import torchreid; torchreid.models.build_model('dpm_vit_tiny', 3, loss='huge', pretrained=False)",
            2,
            "error: loss 'huge' is unknown to this model; choose 'softmax', 'triplet' or 'dpm'\n",
        ),
        ("raise KeyboardInterrupt", 130, "interrupted\n"),
    ],
)
def test_exit_codes_pass_through_and_our_errors_are_one_line(tmp_path, text, code, err):
    (tmp_path / "ends.py").write_text(text)
    done = run_script(tmp_path, "ends.py")
    assert (done.returncode, done.stderr) == (code, err)


def test_a_scripts_own_exception_keeps_its_traceback(tmp_path):
    (tmp_path / "fails.py").write_text("x = 1\nx / 0\n")
    done = run_script(tmp_path, "fails.py")
    assert done.returncode == 1 and 'fails.py", line 2' in done.stderr and "ZeroDivisionError" in done.stderr


def test_a_missing_script_is_a_one_line_error(tmp_path, capsys):
    for name in ("none.py", "."):
        assert script.main([str(tmp_path / name)]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and err.startswith(f"error: script '{tmp_path / name}' does not exist")
    with pytest.raises(SystemExit) as stop:
        script.main([])
    assert stop.value.code == 2 and "script" in capsys.readouterr().err


# ---- checkpoints by torchreid's own calls ----


def test_torchreids_loader_opens_its_old_files(tmp_path):
    model = models.build_model("osnet_x0_25", num_classes=4, pretrained=False)
    old = tmp_path / "old.pth.tar"
    torch.save({"state_dict": model.state_dict(), "epoch": 3, "rank1": np.float32(0.25)}, old)
    other = models.build_model("osnet_x0_25", num_classes=4, pretrained=False)
    assert utils.load_checkpoint(old)["rank1"] == 0.25
    optimizer = optim.build_optimizer(other)
    assert utils.resume_from_checkpoint(old, other, optimizer) == 3
    assert torch.equal(other.conv1.conv.weight, model.conv1.conv.weight)

    other = models.build_model("osnet_x0_25", num_classes=9, pretrained=False)
    utils.load_pretrained_weights(other, old)  # torchreid's own: the classifier of another size is dropped
    assert torch.equal(other.conv1.conv.weight, model.conv1.conv.weight)

    for path, error in ((tmp_path / "none", FileNotFoundError), (None, ValueError)):
        with pytest.raises(error):
            utils.load_checkpoint(path)
