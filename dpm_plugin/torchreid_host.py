"""The only file that knows where torchreid keeps its parts and which of them are stale.

Two layouts are in use: upstream 1.4.0 (``torchreid.models``) and PyPI's 0.2.5 (``torchreid.reid.models``).
``from torchreid import models`` works on both, so every other module takes torchreid from here.
"""

import importlib.util
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

with warnings.catch_warnings():
    # Only says that the Cython metric is absent; evaluation has an exact replacement for it.
    warnings.filterwarnings("ignore", message="Cython evaluation")
    from torchreid import data, engine, losses, metrics, models, optim, utils  # noqa: F401 (for the other modules)

from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.images import read_image

Engine = engine.Engine
ImageSoftmaxEngine = engine.ImageSoftmaxEngine
ImageTripletEngine = engine.ImageTripletEngine
ImageDataset = data.ImageDataset
ImageDataManager = data.ImageDataManager

_PARTS = ("data", "engine", "losses", "metrics", "models", "optim", "utils")
_HOME = models.__name__.rpartition(".")[0]  # "torchreid" in upstream's layout, "torchreid.reid" in PyPI's


class LayoutNames:
    """Import hook: torchreid's modules under the other layout's names, as the same module objects.

    Without it a submodule of an aliased package would be loaded a second time from its file, with classes of its own.
    """

    @staticmethod
    def real_name(name: str) -> str | None:
        """The name under which this layout has the module that ``name`` means; None for all other modules."""
        top, *parts = name.split(".")
        if top != "torchreid" or not parts:
            return None
        parts = parts[1:] if parts[0] == "reid" else parts
        if parts and parts[0] not in _PARTS:  # such as PyPI's torchreid.reid_model_factory
            return None
        real = ".".join([_HOME, *parts])
        return None if real == name else real

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Part of the import protocol."""
        real = cls.real_name(name)
        return ModuleSpec(name, cls) if real and importlib.util.find_spec(real) else None  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """Part of the import protocol."""

    @classmethod
    def exec_module(cls, module: ModuleType) -> None:
        """Put the real module in the place of the new, empty one."""
        sys.modules[module.__name__] = importlib.import_module(cls.real_name(module.__name__) or module.__name__)


def install_layout_names() -> None:
    """From now on code written for either layout imports; repeating it is harmless."""
    if LayoutNames not in sys.meta_path:
        sys.meta_path.insert(0, LayoutNames)  # before the finder of files, which would load duplicates
    importlib.import_module("torchreid.reid")  # for those who only import torchreid and go on by attributes


def version() -> str:
    """torchreid's, of the code that is imported: another than the installed one may come first in the path."""
    return str(sys.modules["torchreid"].__version__)


def _module_of(obj):
    return importlib.import_module(obj.__module__)


# The three functions by which torchreid's data manager builds its parts.
build_train_sampler = _module_of(ImageDataManager).build_train_sampler
build_transforms = _module_of(ImageDataManager).build_transforms
init_image_dataset = _module_of(ImageDataManager).init_image_dataset

# torchreid's registries by name, themselves. By vars(): within a class dotted access to these names would be mangled.
_MODELS = vars(models)["__model_factory"]
_IMAGE_DATASETS = vars(_module_of(data.register_image_dataset))["__image_datasets"]
_VIDEO_DATASETS = vars(_module_of(data.register_video_dataset))["__video_datasets"]


def register_model(name: str, build: Callable[..., Any]) -> None:
    """Add ``build`` to the factory behind ``torchreid.models.build_model``; repeating it is harmless."""
    _MODELS[name] = build


def model_names() -> list[str]:
    """Every name that ``torchreid.models.build_model`` knows."""
    return sorted(_MODELS)


def weights_by_plain_http(name: str) -> bool:
    """Whether torchreid fetches the ImageNet weights of its model ``name`` by HTTP, where anyone can change them."""
    return "'http://" in repr(vars(_module_of(_MODELS[name])).get("pretrained_settings", ""))


def register_dataset(name: str, cls: type) -> None:
    """Register an image data set; torchreid's own call raises on a repeat, this one replaces."""
    _IMAGE_DATASETS[name] = cls


def image_dataset_classes() -> dict[str, type]:
    """{name: class} of the image data sets that torchreid knows, registered ones included."""
    return dict(_IMAGE_DATASETS)


def video_dataset_classes() -> dict[str, type]:
    """{name: class} of the data sets that torchreid's ``VideoDataManager`` knows."""
    return dict(_VIDEO_DATASETS)


def is_torchreid_own(cls: type) -> bool:
    """True for a class that torchreid itself ships."""
    return cls.__module__.split(".")[0] == "torchreid"


@contextmanager
def manager_builders(**builders: Callable) -> Iterator[None]:
    """Let torchreid's ``ImageDataManager`` constructor call these builders within the block.

    It looks up ``init_image_dataset``, ``build_train_sampler`` and ``build_transforms`` as globals of its module; they
    are put back at the end. Not for several threads at a time.
    """
    module = _module_of(ImageDataManager)
    own = {name: getattr(module, name) for name in builders}
    vars(module).update(builders)
    try:
        yield
    finally:
        vars(module).update(own)


def compiled_rank_available() -> bool:
    """True where torchreid's Cython metric is built (never on PyPI's layout)."""
    return bool(_module_of(metrics.evaluate_rank).IS_CYTHON_AVAI)


def install_read_image() -> None:
    """Make every torchreid data set use our ``read_image``; torchreid's own retries an unreadable file for ever."""
    _replace("read_image", read_image)


def install_download_guard() -> None:
    """Make every torchreid data set whose folder is missing an error; repeating it is harmless.

    Its own would make the folder, fetch an archive by plain HTTP and extract whatever paths are in it.
    """
    owner = next(cls for cls in ImageDataset.__mro__ if "download_dataset" in vars(cls))
    owner.download_dataset = _refuse_download


def _refuse_download(self, dataset_dir, dataset_url):
    if not Path(dataset_dir).exists():
        what = f"no folder '{dataset_dir}'; nothing is downloaded for you, put the data there by hand"
        raise DPMError(f"{type(self).__name__}: {what} (torchreid names {dataset_url or 'no address'})")


def install_checkpoint_reader(read: Callable[[str], Any]) -> None:
    """Make torchreid's ``load_checkpoint`` and all that uses it read a file by ``read``; repeating it is harmless.

    Under torch 2.6 and later its own cannot read what torchreid writes (``rank1`` is a numpy scalar), and for a file
    with undecodable text it falls back to a load that executes whatever the file holds.
    """

    def load_checkpoint(fpath):
        if fpath is None:
            raise ValueError("File path is None")
        if not Path(fpath).expanduser().exists():
            raise FileNotFoundError(f'File is not found at "{fpath}"')
        return read(fpath)

    _replace("load_checkpoint", load_checkpoint)


def install_weight_loader(load: Callable[[Any, str], object], kind: type) -> None:
    """Make torchreid's ``load_pretrained_weights`` leave models of class ``kind`` to ``load(model, path)``.

    Its own drops every tensor of another name or size, position embeddings too, with nothing but a line in the log.
    Repeating it is harmless.
    """
    own = getattr(utils.load_pretrained_weights, "__wrapped__", utils.load_pretrained_weights)

    @wraps(own)
    def load_pretrained_weights(model, weight_path):
        if isinstance(model, kind):
            load(model, weight_path)
        else:
            own(model, weight_path)

    _replace("load_pretrained_weights", load_pretrained_weights)


def _replace(name, new):
    """Put ``new`` wherever a module of torchreid holds the function ``name`` of ``torchreid.utils``."""
    old = getattr(utils, name)
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] == "torchreid" and vars(module).get(name) is old:
            setattr(module, name, new)
