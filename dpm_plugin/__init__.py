"""DPM (Dynamic Prototype Mask, ACM MM 2022) for torchreid: occluded person re-identification.

Importing this package registers its models, data sets, losses and engine with torchreid, and lets code written
for either of torchreid's two layouts import. It changes nothing else of torchreid; see :func:`harden` for what does.
"""

from dpm_plugin import torchreid_host
from dpm_plugin.data import DATASETS
from dpm_plugin.engine.engine import ImageDPMEngine
from dpm_plugin.evaluation.metric import evaluate_rank
from dpm_plugin.inference.extractor import DPMExtractor
from dpm_plugin.inference.open_run import load_as_trained
from dpm_plugin.method.head_enrich import HeadEnrichLoss
from dpm_plugin.method.losses import DPMLoss, SoftMarginTripletLoss
from dpm_plugin.method.masked_arcface import MaskedArcFace
from dpm_plugin.method.model import DPM
from dpm_plugin.method.retrieval import query_mask_distance
from dpm_plugin.models import (
    MODELS,
    by_name,
    dpm_vit,
    dpm_vit_parts,
    dpm_vit_parts_small,
    dpm_vit_parts_tiny,
    dpm_vit_small,
    dpm_vit_tiny,
    vit_baseline,
    vit_baseline_small,
    vit_baseline_tiny,
)
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.weights.files import read_checkpoint
from dpm_plugin.weights.load import load_weights

__version__ = "0.1.0"
__all__ = ["DPM", "DPMError", "DPMExtractor", "ImageDPMEngine", "harden", "load_weights", "register"]
__all__ += ["DPMLoss", "HeadEnrichLoss", "MaskedArcFace", "SoftMarginTripletLoss"]
__all__ += ["dpm_vit", "dpm_vit_small", "dpm_vit_tiny", "dpm_vit_parts", "dpm_vit_parts_small", "dpm_vit_parts_tiny"]
__all__ += ["vit_baseline", "vit_baseline_small", "vit_baseline_tiny"]
__all__ += ["evaluate_rank", "query_mask_distance"]


def register() -> None:
    """Make everything known to torchreid; done on import, and harmless to repeat."""
    for name, build in MODELS.items():
        torchreid_host.register_model(name, by_name(build))
    for name, dataset in DATASETS.items():
        torchreid_host.register_dataset(name, dataset)
    for loss in (MaskedArcFace, HeadEnrichLoss, SoftMarginTripletLoss, DPMLoss):
        setattr(torchreid_host.losses, loss.__name__, loss)
    torchreid_host.engine.ImageDPMEngine = ImageDPMEngine
    torchreid_host.install_layout_names()


def harden() -> None:
    """Replace what is unsafe or broken in torchreid itself, for this process; harmless to repeat.

    An unreadable image is an error instead of an endless loop; checkpoints and weights are read without executing
    anything, and those of our models are opened as they were trained; no data set is downloaded. ``dpm`` and
    ``python -m dpm_plugin`` call this; other programs do where they want it.
    """
    torchreid_host.install_read_image()
    torchreid_host.install_download_guard()
    torchreid_host.install_checkpoint_reader(read_checkpoint)
    torchreid_host.install_weight_loader(load_as_trained, DPM)


register()
