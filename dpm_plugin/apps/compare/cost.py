"""What a model costs: parameters, FLOPs, images per second, peak memory."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from dpm_plugin.apps.compare.run import Run
from dpm_plugin.config import config_path
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import write_file
from dpm_plugin.utils.place import environment

SECONDS = 20.0  # how long each timing goes on; at least 3 batches are timed


class Cost(NamedTuple):
    """One model's cost, at a run's image and batch sizes.

    Attributes:
        parameters: all of the trained model's, classifier included.
        flops: of one image's extraction, a multiply-add counted as 2.
        train_images_per_second: of real training iterations, the loading of images included.
        train_loading_share: part of that time spent waiting for images, 0 to 1.
        extract_images_per_second, extract_loading_share: the same of feature extraction.
        train_memory_mb, extract_memory_mb: peak in 10^6 bytes: of the GPU's allocations where there is one,
            else of a whole process that does nothing else.
        idle_memory_mb: what such a process holds before it loads data and model: Python and the libraries.
        epoch_seconds: training iterations of an epoch times their time.
    """

    parameters: int
    flops: int
    train_images_per_second: float
    train_loading_share: float
    extract_images_per_second: float
    extract_loading_share: float
    train_memory_mb: float | None
    extract_memory_mb: float | None
    idle_memory_mb: float | None
    epoch_seconds: float


def measure_cost(
    run: Run, *, root: str | Path | None = None, threads: int | None = None, cache: str | Path | None = None
) -> Cost:
    """Measure a run's model in two fresh processes, one that trains and one that extracts.

    Args:
        run: its settings; the seed does not matter.
        root: folder of the data sets; None keeps ``data.root``.
        threads: CPU threads of each process; None leaves the choice to torch.
        cache: folder that keeps measurements; one already there is not repeated. Default: None, measure anew.

    Raises:
        DPMError: the model cannot be measured; the message says why.
    """
    train, extract = (_measurement(what, run, root, threads, cache) for what in ("training", "extraction"))
    return Cost(
        int(train["parameters"]),
        int(extract["flops"]),
        train["images_per_second"],
        train["loading_share"],
        extract["images_per_second"],
        extract["loading_share"],
        _peak(train),
        _peak(extract),
        train.get("idle_memory_mb"),
        _epoch_seconds(train),
    )


def training_speed(
    run: Run, *, root: str | Path | None = None, threads: int | None = None, cache: str | Path | None = None
) -> float:
    """Seconds of one training epoch; arguments and errors as :func:`measure_cost`, half of its work."""
    return _epoch_seconds(_measurement("training", run, root, threads, cache))


def _epoch_seconds(train: dict) -> float:
    return train["iterations"] * train["batch_size"] / train["images_per_second"]


def _peak(found: dict) -> float | None:
    return found.get("peak_gpu_memory_mb", found.get("peak_memory_mb"))


def _measurement(
    what: str, run: Run, root: str | Path | None, threads: int | None, cache: str | Path | None
) -> dict[str, float]:
    """What ``measuring`` answers, from ``cache`` where it is there."""
    place = {} if root is None else {"data.root": str(root)}
    overrides = {**dict(run.overrides), "model.name": run.model, **place}
    request = {"what": what, "config_file": run.config_file, "overrides": overrides, "seconds": SECONDS}
    if cache is None:
        return _ask(request, threads)
    path = Path(cache) / f"{run.model}-{what}-{_digest(request, threads)}.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # missing or damaged
        found = _ask(request, threads)
        write_file(path, json.dumps(found, indent=1))
        return found


def _digest(request: dict, threads: int | None) -> str:
    """Hash of all that a measurement depends on but the machine."""
    file = request["config_file"]
    try:
        text = Path(config_path(file)).read_text(encoding="utf-8") if file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise DPMError(f"config file '{file}' cannot be read: {error}") from error
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    settings = [request["what"], text, request["overrides"], request["seconds"], threads, gpu]
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()[:12]


def _ask(request: dict, threads: int | None) -> dict[str, float]:
    env = environment(**({} if threads is None else {"OMP_NUM_THREADS": str(threads)}))
    command = [sys.executable, "-m", "dpm_plugin.apps.compare.measuring"]
    done = subprocess.run(command, input=json.dumps(request), text=True, capture_output=True, env=env)
    if done.returncode == 0:
        return json.loads(done.stdout)
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if done.returncode < 0:  # a signal: most often the kernel, out of memory
        last = f"ended by signal {-done.returncode}; is there enough memory for train.batch_size?"
    raise DPMError(
        f"measuring the {request['what']} of '{request['overrides']['model.name']}': {last.removeprefix('error: ')}"
    )
