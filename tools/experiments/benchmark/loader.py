"""Images a second of the loader, of the model, and of both together: decoding must not hold the model up."""

import contextlib
import io
import tempfile
from functools import partial

from dpm_plugin.data import DPMImageDataManager
from dpm_plugin.data.synthetic.spec import SyntheticSpec
from dpm_plugin.evaluation.extract import extract_features
from experiments.benchmark.report import compared
from experiments.benchmark.step import build, case
from experiments.benchmark.timing import Timing, take_turns

WORKERS = (0, 2)
GALLERY = {"cpu": (8, 8), "cuda": (256, 64)}  # identities with four images each, batch
TINY_GALLERY = (4, 4)
RECIPE = dict(transforms=["random_flip", "pad_crop", "erase_pixel"], interpolation="bicubic")


def run(settings):
    """Yields one comparison for each number of workers, then what keeping the workers saves an epoch."""
    what = case(settings)
    identities, batch = TINY_GALLERY if settings.tiny else GALLERY.get(settings.device.type, GALLERY["cpu"])
    height, width = what.model["img_size"]
    model = build(what, settings.device, num_cameras=0).eval()
    features_of = partial(extract_features, model, device=settings.device, amp=what.amp)
    with tempfile.TemporaryDirectory() as root, contextlib.ExitStack() as drawing:
        drawing.enter_context(contextlib.redirect_stdout(io.StringIO()))  # torchreid's summaries
        spec = SyntheticSpec(
            height=height,
            width=width,
            train_ids=identities,
            train_images=4,
            test_ids=identities,
            gallery_images=4,
            query_images=1,
            distractor_ids=0,
        )
        managers = {
            (workers, kept): DPMImageDataManager(
                root,
                "synthetic_occluded",
                synthetic=spec,
                height=height,
                width=width,
                batch_size_train=batch,
                batch_size_test=batch,
                workers=workers,
                persistent_workers=kept,
                use_gpu=settings.device.type == "cuda",
                **RECIPE,
            )
            for workers, kept in [*((workers, False) for workers in WORKERS), (WORKERS[-1], True)]
        }
        drawing.close()
        yield from _compare(settings, managers, features_of, f"{height} x {width} JPEG, batches of {batch}")


def _compare(settings, managers, features_of, name):
    def gallery(workers, kept=False):
        return managers[workers, kept].test_loader["synthetic_occluded"]["gallery"]

    held = list(gallery(0))
    images = sum(len(data["img"]) for data in held)
    calls = {"model": lambda: features_of(held)}
    for workers in WORKERS:
        calls[f"loader {workers}"] = lambda workers=workers: _drain(gallery(workers))
        calls[f"training loader {workers}"] = lambda workers=workers: _drain(managers[workers, False].train_loader)
        calls[f"both {workers}"] = lambda workers=workers: features_of(gallery(workers))
    calls["kept"] = lambda: _drain(gallery(WORKERS[-1], kept=True))
    timings = take_turns(calls, rounds=settings.rounds, device=settings.device)
    for workers in WORKERS:
        yield _overlap(f"{name}, {workers} workers", timings, workers, images)
    pair = {f"workers {how}": timings[of] for how, of in (("kept", "kept"), ("anew", f"loader {WORKERS[-1]}"))}
    yield compared(
        "loader",
        f"{name}, an epoch of {images} images with {WORKERS[-1]} workers kept from the last",
        pair,
        ours="workers kept",
        plain="workers anew",
    )


def _overlap(name, timings, workers, images):
    """The ratio of loading and then extracting to both at once; 2 at most."""
    alone = [timings["model"], timings[f"loader {workers}"]]
    pair = {
        "one after the other": Timing([sum(pair) for pair in zip(*(timing.seconds for timing in alone))]),
        "both": timings[f"both {workers}"],
    }
    speed = {
        each: images / timings[of].median
        for each, of in (
            ("model", "model"),
            ("loader", f"loader {workers}"),
            ("training loader", f"training loader {workers}"),
            ("both", f"both {workers}"),
        )
    }
    extra = {f"{each} images/s": value for each, value in speed.items()}
    return compared(
        "loader",
        f"extraction of {name}",
        pair,
        ours="both",
        plain="one after the other",
        extra={"loader / model": speed["loader"] / speed["model"], **extra},
    )


def _drain(loader):
    for _ in loader:
        pass
