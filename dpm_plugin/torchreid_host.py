"""The only file that knows where torchreid keeps its parts and which of them are stale.

Two layouts are in use: upstream 1.4.0 (``torchreid.models``) and PyPI's 0.2.5
(``torchreid.reid.models``). ``from torchreid import models`` works on both, so
every other module takes torchreid from here.
"""
import importlib
import warnings
from contextlib import contextmanager
from functools import wraps
from pathlib import Path

with warnings.catch_warnings():
    # Only says that the Cython metric is absent; evaluation has an exact replacement for it.
    warnings.filterwarnings("ignore", message="Cython evaluation")
    from torchreid import data, engine, losses, metrics, models, optim, utils

from PIL import Image

from dpm_plugin.errors import DPMError

__all__ = [
    "data", "engine", "losses", "metrics", "models", "optim", "utils",
    "Engine", "ImageDataManager", "ImageDataset", "ImageSoftmaxEngine", "ImageTripletEngine",
    "compiled_rank_available",
    "read_image", "register_dataset", "register_model", "install_read_image", "install_weight_loader",
    "build_train_sampler", "build_transforms", "image_dataset_classes", "init_image_dataset",
    "is_torchreid_own", "manager_builders",
    "model_names", "video_dataset_names",
]

Engine = engine.Engine
ImageSoftmaxEngine = engine.ImageSoftmaxEngine
ImageTripletEngine = engine.ImageTripletEngine
ImageDataset = data.ImageDataset
ImageDataManager = data.ImageDataManager


def _module_of(obj):
    return importlib.import_module(obj.__module__)


# The three functions by which torchreid's data manager builds its parts.
build_train_sampler = _module_of(ImageDataManager).build_train_sampler
build_transforms = _module_of(ImageDataManager).build_transforms
init_image_dataset = _module_of(ImageDataManager).init_image_dataset


def register_model(name, build):
    """Add ``build`` to the factory behind ``torchreid.models.build_model``; repeating it is harmless."""
    # Written as vars()[...]: dotted access to a double-underscore name is mangled inside a class.
    vars(models)["__model_factory"][name] = build


def model_names():
    """Every name that ``torchreid.models.build_model`` knows."""
    return sorted(vars(models)["__model_factory"])


def video_dataset_names():
    """Every name that torchreid's ``VideoDataManager`` knows."""
    return sorted(vars(_module_of(data.register_video_dataset))["__video_datasets"])


def register_dataset(name, cls):
    """Register an image dataset; torchreid's own call raises on a repeat, this one replaces."""
    registry = vars(_module_of(data.register_image_dataset))["__image_datasets"]
    if name in registry:
        registry[name] = cls
    else:
        data.register_image_dataset(name, cls)


def image_dataset_classes():
    """{name: class} of the image datasets that torchreid knows, registered ones included."""
    return dict(vars(_module_of(data.register_image_dataset))["__image_datasets"])


def is_torchreid_own(cls):
    """True for a class that torchreid itself ships."""
    return cls.__module__.split(".")[0] == "torchreid"


@contextmanager
def manager_builders(**builders):
    """Let torchreid's ``ImageDataManager`` constructor call these builders within the block.

    Its constructor looks up ``init_image_dataset``, ``build_train_sampler`` and ``build_transforms`` as
    globals of its module; they are put back at the end. Not for several threads at a time.
    """
    module = _module_of(ImageDataManager)
    own = {name: getattr(module, name) for name in builders}
    vars(module).update(builders)
    try:
        yield
    finally:
        vars(module).update(own)


def compiled_rank_available():
    """True where torchreid's Cython metric is built (never on PyPI's layout)."""
    return bool(_module_of(metrics.evaluate_rank).IS_CYTHON_AVAI)


def read_image(path):
    """Open ``path`` as RGB.

    Replaces torchreid's reader, which retries an unreadable file for ever.

    Raises:
        DPMError: the file is missing or is no readable image; the message names it.
    """
    if not Path(path).is_file():
        raise DPMError(f"image '{path}' does not exist; was the data set moved while it was in use?")
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DPMError(
            f"image '{path}' cannot be read ({error}); replace it by an intact copy or remove it"
        ) from error


def install_read_image():
    """Make every torchreid dataset use :func:`read_image`; repeating it is harmless."""
    _module_of(ImageDataset).read_image = read_image
    _module_of(utils.read_image).read_image = read_image
    utils.read_image = read_image


def install_weight_loader(load, kind):
    """Make torchreid's ``load_pretrained_weights`` leave models of class ``kind`` to ``load(model, path)``.

    Its own drops every tensor of another name or size, position embeddings too, with nothing but a line in
    the log. Repeating it is harmless.
    """
    own = getattr(utils.load_pretrained_weights, "__wrapped__", utils.load_pretrained_weights)

    @wraps(own)
    def load_pretrained_weights(model, weight_path):
        if isinstance(model, kind):
            load(model, weight_path)
        else:
            own(model, weight_path)

    for module in (_module_of(own), _module_of(utils.FeatureExtractor), utils):
        module.load_pretrained_weights = load_pretrained_weights
