"""What one model costs, measured in a process of its own: ``python -m dpm_plugin.apps.compare.measuring``.

Reads a request as JSON on stdin and writes what it measured as JSON on stdout; :mod:`dpm_plugin.apps.compare.cost`
asks. Training and extraction are asked for one by one, because a process's peak memory never falls.
"""

import contextlib
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from yacs.config import CfgNode

from dpm_plugin import build
from dpm_plugin.config import load_config
from dpm_plugin.evaluation.extract import embed_batch
from dpm_plugin.torchreid_host import utils
from dpm_plugin.utils.command import exit_code
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.timing import measure, peak_memory

WARM_UP = 2  # batches before the clock starts: the first ones allocate memory and choose kernels
FEWEST, MOST = 3, 30  # timed batches


def measure_training(config: CfgNode, seconds: float) -> dict[str, float]:
    """Speed and peak memory of real engine steps: DPM's two, or torchreid's one.

    Args:
        config: a run's configuration.
        seconds: how long to go on, between 3 and 30 batches after two that are not timed.

    Returns:
        ``parameters`` (all, classifier included), ``iterations`` of an epoch, ``batch_size``, and what
        :func:`speed` measured.

    Raises:
        DPMError: what building the parts raises; a model that does not run on images of this size.
    """
    engine = _engine(config)
    engine.set_model_mode("train")
    engine.epoch, engine.batch_idx, engine.max_epoch = 0, 0, 1
    engine.num_batches = len(engine.train_loader)
    if engine.num_batches == 0:
        raise DPMError("the training set does not fill one batch; lower train.batch_size")
    with _runnable(config):
        found = speed(engine.train_loader, engine.forward_backward, _device(config), seconds)
    parameters = sum(parameter.numel() for parameter in engine.model.parameters())
    return {"parameters": parameters, "iterations": engine.num_batches, "batch_size": config.train.batch_size, **found}


def measure_extraction(config: CfgNode, seconds: float) -> dict[str, float]:
    """Speed and peak memory of extracting the first target's gallery, and the FLOPs of one image.

    Arguments and errors as :func:`measure_training`.

    Returns:
        ``flops`` (see :func:`count_flops`), ``batch_size``, and what :func:`speed` measured.
    """
    engine = _engine(config)
    engine.set_model_mode("eval")
    device, model = _device(config), engine.model
    loader = engine.test_loader[config.data.targets[0]]["gallery"]

    def step(batch):
        with torch.no_grad():
            _features(model, batch["img"], config.train.amp).float().cpu()

    with _runnable(config):
        found = speed(loader, step, device, seconds)
    # Afterwards, so that the counting's own memory is no part of the peak.
    flops = count_flops(model, config.data.height, config.data.width)
    return {"flops": flops, "batch_size": config.test.batch_size, **found}


def count_flops(model: nn.Module, height: int, width: int) -> int:
    """Floating-point operations of extracting one image of ``height`` x ``width`` pixels; a multiply-add counts 2.

    Counts matrix products and convolutions, as ``torch.utils.flop_counter`` does; normalisation, activations
    and softmax are left out. For one of the plugin's models it is ``embed``: features and mask.
    """
    device = next(model.parameters()).device
    images = torch.zeros(1, 3, height, width, device=device)
    was_training = model.training
    model.eval()
    # Plain attention: its matrix products are then counted whatever fused kernel this machine has.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        _features(model, images)
    model.train(was_training)
    return counter.get_total_flops()


def speed(
    loader: Iterable[dict], step: Callable[[dict], object], device: torch.device, seconds: float
) -> dict[str, float]:
    """How fast ``step`` goes through the loader's batches.

    Returns:
        ``images_per_second``, loading included; ``loading_share``, the part of the time spent on that;
        ``peak_memory_mb`` of the process (10^6 bytes, libraries included) and, on a GPU, ``peak_gpu_memory_mb``.
        The times are medians over batches: a burst of another program's work must not count.
    """
    batches = _endless(loader)
    peaks: dict[str, float] = {}
    loading, total, clock = [], [], 0.0  # the first two: seconds of one image
    for count in range(WARM_UP + MOST):
        took: dict[str, dict[str, float]] = {}
        with measure(took, "loading"):
            batch = next(batches)
        with measure(took, "step", device):
            step(batch)
        peaks |= {key: max(peak, peaks.get(key, 0.0)) for key, peak in took["step"].items() if key != "seconds"}
        if count < WARM_UP:
            continue
        both = took["loading"]["seconds"] + took["step"]["seconds"]
        clock += both
        loading.append(took["loading"]["seconds"] / len(batch["img"]))
        total.append(both / len(batch["img"]))
        if len(total) >= FEWEST and clock >= seconds:
            break
    median = statistics.median(total)
    return {"images_per_second": 1 / median, "loading_share": min(1.0, statistics.median(loading) / median), **peaks}


def _engine(config: CfgNode):
    build.check_names(config)
    if config.data.type != "image":
        raise DPMError("models are compared on images; set data.type image")
    utils.set_random_seed(config.train.seed)
    return build.build_run(config)


def _features(model, images, amp="off"):
    """(B, D) by what evaluation calls."""
    return embed_batch(model, images, device=next(model.parameters()).device, amp=amp)["embedding"]


def _endless(loader: Iterable[dict]) -> Iterator[dict]:
    while True:
        yield from loader


@contextlib.contextmanager
def _runnable(config: CfgNode) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, KeyError, AssertionError) as error:  # so models say that they cannot
        if isinstance(error, DPMError):
            raise
        reason = str(error).strip().splitlines()[:1]
        size = f"{config.data.height}x{config.data.width}"
        raise DPMError(
            f"'{config.model.name}' does not run on images of {size} with loss.name "
            f"{config.loss.name} ({''.join(reason)}); leave it out, or change data.height, "
            "data.width or train.batch_size"
        ) from error


def _device(config: CfgNode) -> torch.device:
    return torch.device("cuda" if config.use_gpu else "cpu")


MEASUREMENTS = {"training": measure_training, "extraction": measure_extraction}


def main() -> int:
    """One request: {"what", "config_file", "overrides": {key: value}, "seconds"}; exits as ``dpm train``."""
    request, idle = json.load(sys.stdin), peak_memory(torch.device("cpu"))

    def answer():
        with contextlib.redirect_stdout(sys.stderr):  # data sets print their sizes
            config = load_config(request["config_file"], overrides=request["overrides"])
            found = MEASUREMENTS[request["what"]](config, request["seconds"])
            found["idle_memory_mb"] = idle.get("peak_memory_mb")
        json.dump(found, sys.stdout)

    return exit_code(answer)


if __name__ == "__main__":
    sys.exit(main())
