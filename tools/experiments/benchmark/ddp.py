"""The two-step iteration on one global batch, in one process and in two that torchrun starts (one thread each)."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from dpm_plugin.utils.errors import DPMError
from experiments.benchmark.report import Comparison
from experiments.benchmark.settings import Settings

PROCESSES = 2


def run(settings: Settings) -> Iterator[Comparison]:
    """One Comparison: seconds of an iteration, and how far apart the two end after all of them.

    On GPUs it takes two; with fewer it is measured on the CPU, as the case says.
    """
    on_gpus = settings.device.type == "cuda" and torch.cuda.device_count() >= PROCESSES
    tools = Path(__file__).resolve().parents[2]
    paths = [str(tools.parent), str(tools), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    with tempfile.TemporaryDirectory() as folder:
        figures = Path(folder) / "figures.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={PROCESSES}"]
        command += ["-m", "experiments.benchmark.ddp_worker", "--rounds", str(settings.rounds), "--json", str(figures)]
        command += ["--tiny"] * settings.tiny + ["--gpu"] * on_gpus
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode or not figures.is_file():
            said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
            raise DPMError(f"the processes of part ddp failed: {(said or done.stderr.splitlines()[-1:] or ['-'])[0]}")
        yield Comparison(**json.loads(figures.read_text(encoding="utf-8")))
