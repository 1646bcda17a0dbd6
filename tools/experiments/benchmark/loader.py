"""Images a second of the loader, of the model, and of both together: decoding must not hold the model up."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

from dpm_plugin.data import DPMImageDataManager
from dpm_plugin.data.synthetic.spec import SyntheticSpec
from dpm_plugin.evaluation.extract import Features, extract_features
from experiments.benchmark.report import Comparison, compared
from experiments.benchmark.settings import Settings
from experiments.benchmark.step import build, case
from experiments.benchmark.timing import Timing

WORKERS = (0, 2)
GALLERY, TINY_GALLERY = {"cpu": (8, 8), "cuda": (256, 64)}, (4, 4)  # identities with four images each, batch


def run(settings: Settings) -> Iterator[Comparison]:
    """One comparison for each number of workers, then what keeping the workers saves an epoch."""
    what = case(settings)
    real = GALLERY.get(settings.device.type, GALLERY["cpu"])
    identities, batch = settings.sizes(real, TINY_GALLERY)
    height, width = what.model["img_size"]
    model = build(what, settings.device, num_cameras=0).eval()
    features_of = partial(extract_features, model, device=settings.device, amp=what.amp)
    with tempfile.TemporaryDirectory() as root:
        options = dict(height=height, width=width, batch_size_train=batch, batch_size_test=batch)
        options |= dict(use_gpu=settings.device.type == "cuda", interpolation="bicubic")
        options |= dict(transforms=["random_flip", "pad_crop", "erase_pixel"])
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
        managers = {}
        with contextlib.redirect_stdout(io.StringIO()):  # torchreid's summaries
            for workers, kept in [*((workers, False) for workers in WORKERS), (WORKERS[-1], True)]:
                managers[workers, kept] = DPMImageDataManager(
                    root, "synthetic_occluded", synthetic=spec, workers=workers, persistent_workers=kept, **options
                )
        yield from _compare(settings, managers, features_of, f"{height} x {width} JPEG, batches of {batch}")


def _compare(
    settings: Settings,
    managers: Mapping[tuple[int, bool], DPMImageDataManager],
    features_of: Callable[[Iterable], Features],
    name: str,
) -> Iterator[Comparison]:
    def gallery(workers, kept=False):
        return managers[workers, kept].test_loader["synthetic_occluded"]["gallery"]

    held = list(gallery(0))
    images = sum(len(data["img"]) for data in held)
    last = WORKERS[-1]
    calls = {"model": lambda: features_of(held)}
    for workers in WORKERS:
        calls[f"loader {workers}"] = lambda workers=workers: _drain(gallery(workers))
        calls[f"training loader {workers}"] = lambda workers=workers: _drain(managers[workers, False].train_loader)
        calls[f"both {workers}"] = lambda workers=workers: features_of(gallery(workers))
    calls["kept"] = lambda: _drain(gallery(last, kept=True))
    timings = settings.take_turns(calls)
    for workers in WORKERS:
        yield _overlap(f"{name}, {workers} workers", timings, workers, images)
    pair = {"workers kept": timings["kept"], "workers anew": timings[f"loader {last}"]}
    name = f"{name}, an epoch of {images} images with {last} workers kept from the last"
    yield compared("loader", name, pair, ours="workers kept", plain="workers anew")


def _overlap(name: str, timings: Mapping[str, Timing], workers: int, images: int) -> Comparison:
    """The ratio of loading and then extracting to both at once; 2 at most."""
    alone = zip(timings["model"].seconds, timings[f"loader {workers}"].seconds)
    pair = {"one after the other": Timing([sum(seconds) for seconds in alone]), "both": timings[f"both {workers}"]}
    speed = {"model": images / timings["model"].median}
    speed |= {each: images / timings[f"{each} {workers}"].median for each in ("loader", "training loader", "both")}
    extra = {"loader / model": speed["loader"] / speed["model"]}
    extra |= {f"{each} images/s": value for each, value in speed.items()}
    name = f"extraction of {name}"
    return compared("loader", name, pair, ours="both", plain="one after the other", extra=extra)


def _drain(loader: Iterable) -> None:
    for _ in loader:
        pass
