"""What a model costs: parameters, FLOPs, images per second, peak memory."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import write_file

TOOLS = Path(__file__).resolve().parents[2]


class Cost(NamedTuple):
    """One model's cost, at a run's picture and batch sizes.

    Attributes:
        parameters: all of the trained model's, classifier included.
        flops: of one picture's extraction, a multiply-add counted as 2.
        train_images_per_second: of real training iterations, the loading of pictures included.
        train_loading_share: part of that time spent waiting for pictures, 0 to 1.
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
    model_name, config_file, overrides=(), *, root=None, threads=None, seconds=20.0, cache=None, python=sys.executable
):
    """Measure a model in two fresh processes, one that trains and one that extracts.

    Args:
        model_name: of torchreid's or the plugin's models.
        config_file: yaml of the run, "" for the defaults.
        overrides: (key, value) pairs of the run, those of
            :func:`experiments.compare.budget.stock_overrides` included.
        root: folder of the data sets; None keeps ``data.root``.
        threads: CPU threads of each process; None leaves the choice to torch.
        seconds: how long each timing goes on; at least 3 batches are timed. Default: 20.
        cache: folder that keeps measurements; one already there is not repeated. Default: None, measure anew.

    Returns:
        Cost.

    Raises:
        DPMError: the model cannot be measured; the message says why.
    """
    asked = dict(root=root, threads=threads, seconds=seconds, cache=cache, python=python)
    train = _measurement("training", model_name, config_file, overrides, **asked)
    extract = _measurement("extraction", model_name, config_file, overrides, **asked)
    return Cost(
        train["parameters"],
        extract["flops"],
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
    model_name, config_file, overrides=(), *, root=None, threads=None, seconds=20.0, cache=None, python=sys.executable
):
    """Seconds of one training epoch; arguments and errors as :func:`measure_cost`, half of its work."""
    return _epoch_seconds(
        _measurement(
            "training",
            model_name,
            config_file,
            overrides,
            root=root,
            threads=threads,
            seconds=seconds,
            cache=cache,
            python=python,
        )
    )


def _epoch_seconds(train):
    return train["iterations"] * train["batch_size"] / train["images_per_second"]


def _peak(found):
    return found.get("peak_gpu_memory_mb", found.get("peak_memory_mb"))


def _measurement(what, model_name, config_file, overrides, *, root, threads, seconds, cache, python):
    """The dict of one of measuring.py's functions, from ``cache`` where it is there."""
    overrides = {**dict(overrides), "model.name": model_name}
    if root is not None:
        overrides["data.root"] = str(root)
    request = {"what": what, "config_file": str(config_file), "overrides": overrides, "seconds": seconds}
    path = None if cache is None else Path(cache) / f"{model_name}-{what}-{_digest(request, threads)}.json"
    if path is not None and path.is_file():
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            pass  # measured again below
    found = _ask(request, threads, python)
    if path is not None:
        write_file(path, json.dumps(found, indent=1))
    return found


def _digest(request, threads):
    """Of all that a measurement depends on but the machine."""
    file = request["config_file"]
    try:
        text = Path(file).read_text(encoding="utf-8") if file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise DPMError(f"config file '{file}' cannot be read: {error}") from error
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    settings = json.dumps(
        [request["what"], text, request["overrides"], request["seconds"], threads, gpu], sort_keys=True, default=str
    )
    return hashlib.sha256(settings.encode()).hexdigest()[:12]


def _ask(request, threads, python):
    env = dict(os.environ)
    paths = (str(TOOLS.parent), str(TOOLS), env.get("PYTHONPATH"))  # runs where the package is not installed, too
    env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    if threads is not None:
        env["OMP_NUM_THREADS"] = str(threads)
    done = subprocess.run(
        [python, "-m", "experiments.compare.measuring"],
        input=json.dumps(request),
        text=True,
        capture_output=True,
        env=env,
    )
    if done.returncode == 0:
        return json.loads(done.stdout)
    last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    if done.returncode < 0:  # a signal: most often the kernel, out of memory
        last = f"ended by signal {-done.returncode}; is there enough memory for train.batch_size?"
    raise DPMError(
        f"measuring the {request['what']} of '{request['overrides']['model.name']}': {last.removeprefix('error: ')}"
    )
