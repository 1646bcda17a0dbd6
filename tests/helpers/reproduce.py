"""A tiny setting, and two stand-ins for ``dpm train`` that start at once: a pretended and a real one."""

import contextlib
import csv
import json
import multiprocessing
import time
from pathlib import Path

from dpm_plugin.commands import train

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / "configs" / "dpm_synthetic.yaml")
TINY = """
train.max_epoch 2 synthetic.train_ids 4 synthetic.train_images 2 synthetic.test_ids 6
synthetic.distractor_ids 0
synthetic.gallery_images 2 synthetic.query_images 1 synthetic.height 32 synthetic.width 16 data.height 32
data.width 16 vit.patch_size 8 vit.stride 8 vit.embed_dim 16 vit.depth 2 vit.num_heads 2 vit.mask_blocks [1,2]
sampler.num_instances 2 train.batch_size 8 train.lr_scheduler cosine test.ranks [1,5,10]
""".split()

# Pretends to train: notes its call in calls.txt; waits where a file hang-<seed> lies beside it, having left a
# checkpoint of one epoch; fails where a file fail-<seed> does; else writes results.
PRETENDED = """
import json, os, pathlib, shutil, sys, time
control, args = pathlib.Path(__file__).parent, sys.argv[1:]
settings = dict(zip(args, args[1:]))
folder, seed = pathlib.Path(settings["data.save_dir"]), settings["train.seed"]
epochs = settings["train.max_epoch"]
with open(control / "calls.txt", "a") as calls:
    calls.write(json.dumps({"pid": os.getpid(), "threads": os.environ["OMP_NUM_THREADS"], "seed": int(seed),
                            "model": settings["-m"], "args": args}) + "\\n")
if (control / f"hang-{seed}").exists():
    (folder / "model").mkdir(exist_ok=True)
    shutil.copy(control / "last.pth.tar", folder / "model")
    (control / f"hanging-{seed}").touch()
    while (control / f"hang-{seed}").exists():
        time.sleep(0.02)
if (control / f"fail-{seed}").exists():
    print("working")
    print("error: out of luck", file=sys.stderr)
    sys.exit(2)
row = {"rank1": int(seed) / 10, "mAP": 0.25, "cmc": [int(seed) / 10] * 12}
entry = {"epoch": int(epochs), "headline": {"row": "after/off", **row}, "rows": {"after/off": row},
         "phases": {}}
run = {"config": {"train": {"max_epoch": int(epochs)}}}
content = json.dumps({"run": run, "datasets": {"synthetic_occluded": entry}})
(folder / "results.json").write_text(content)
"""

# Hands its arguments to the server below and exits as that says.
CLIENT = """
import json, os, pathlib, sys, time
queue = pathlib.Path(__file__).parent
job, done = queue / f"{os.getpid()}.job", queue / f"{os.getpid()}.done"
part = job.with_suffix(".part")
part.write_text(json.dumps(sys.argv[1:]))
part.rename(job)
while not done.exists():
    time.sleep(0.02)
sys.exit(int(done.read_text()))
"""


def cells(page, row):
    """The cells of the one table line of a Markdown page that begins with ``row``."""
    (line,) = (line for line in page.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def read_csv(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


@contextlib.contextmanager
def real_runs(folder):
    """Path of a script that runs the real dpm train in one process that has imported everything."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "main.py").write_text(CLIENT, encoding="utf-8")
    server = multiprocessing.get_context("fork").Process(target=_serve, args=(folder,), daemon=True)
    server.start()
    try:
        yield folder / "main.py"
    finally:
        server.terminate()
        server.join()


def _serve(folder):
    while True:
        for job in sorted(folder.glob("*.job")):
            args = json.loads(job.read_text())
            job.unlink()
            part = job.with_suffix(".ready")
            part.write_text(str(_call(args)))
            part.rename(job.with_suffix(".done"))
        time.sleep(0.02)


def _call(args):
    try:
        return train.main(args)
    except BaseException as error:  # the server goes on whatever a run does
        print(repr(error), flush=True)
        return 1
