"""Both torchreid layouts are the same to everything but one file."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dpm_plugin
from dpm_plugin import DPMError, torchreid_host
from helpers.model import tiny_model

pytestmark = pytest.mark.torchreid

ROOT = Path(__file__).resolve().parents[1]


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_the_suite_runs_on_the_layout_it_was_asked_for(torchreid_layout):
    module = torchreid_host.models.__name__
    if torchreid_layout == "upstream":
        assert module == "torchreid.models" and "torchreid_upstream_" in torchreid_host.models.__file__


def test_importing_the_plugin_registers_and_replaces_nothing_and_harden_replaces():
    code = (
        "from torchreid import data, engine, models, utils\n"
        "names = ('read_image', 'load_checkpoint', 'load_pretrained_weights', 'resume_from_checkpoint')\n"
        "own = {name: getattr(utils, name) for name in names if hasattr(utils, name)}\n"
        "download = data.ImageDataset.download_dataset\n"
        "import dpm_plugin\n"
        "assert 'dpm_vit' in vars(models)['__model_factory'] and engine.ImageDPMEngine\n"
        "assert all(getattr(utils, name) is function for name, function in own.items())\n"
        "assert data.ImageDataset.download_dataset is download\n"
        "dpm_plugin.harden()\n"
        "changed = {name for name, function in own.items() if getattr(utils, name) is not function}\n"
        "assert changed == {'read_image', 'load_checkpoint', 'load_pretrained_weights'}, changed\n"
        "assert data.ImageDataset.download_dataset is not download\n"
    )
    run(code)


@pytest.mark.fuzz  # imports everything anew; CI runs the suite on the other layout
def test_the_model_factory_builds_on_the_other_layout_too(tmp_path, torchreid_layout):
    """A quick look at upstream's layout; ``--torchreid-layout upstream`` runs everything on it."""
    from conftest import rearrange_torchreid

    rearrange_torchreid(tmp_path)
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
        "import dpm_plugin, torchreid\n"
        "assert torchreid.models.__name__ == 'torchreid.models', torchreid.models.__name__\n"
        "model = torchreid.models.build_model('dpm_vit_tiny', 3, pretrained=False)\n"
        "assert type(model).__name__ == 'DPM' and torchreid.engine.ImageDPMEngine and torchreid.losses.DPMLoss\n"
        "assert torchreid.data.datasets.__image_datasets['occluded_duke']\n"
        "import torchreid.reid.models.osnet, torchreid.models.osnet\n"
        "from torchreid.reid.utils import FeatureExtractor\n"
        "assert torchreid.reid.models is torchreid.models and torchreid.utils.FeatureExtractor is FeatureExtractor\n"
        "assert torchreid.reid.models.osnet is torchreid.models.osnet\n"
    )
    run(code)


@pytest.mark.parametrize("name", ["models", "utils.tools", "data.datasets.image.market1501", "engine.image.softmax"])
def test_both_layouts_names_import_the_same_module(name):
    # the unusual name first: what loads under it must be what the usual one gives
    other, real = (importlib.import_module(f"{home}.{name}") for home in ("torchreid.reid", "torchreid"))
    assert other is real and real.__spec__.name == real.__name__
    assert real.__name__.startswith(torchreid_host.models.__name__.rpartition(".")[0] + ".")


def test_imports_in_every_style_give_the_same_objects():
    namespace = {}
    exec(
        "import torchreid.models\nfrom torchreid import models as plain\nfrom torchreid.reid import models as reid\n"
        "import torchreid.reid.models.osnet\nfrom torchreid.models.osnet import OSNet\n",
        namespace,
    )
    package = namespace["torchreid"]
    assert package.models is namespace["plain"] is namespace["reid"] is torchreid_host.models
    assert package.reid.models.osnet.OSNet is namespace["OSNet"]


def test_what_neither_layout_has_is_not_found():
    for name in ("torchreid.models.no_such_net", "torchreid.reid.models.no_such_net", "torchreid.no_such_part"):
        with pytest.raises(ModuleNotFoundError, match="no_such"):
            importlib.import_module(name)


def test_registering_again_changes_nothing():
    def state():
        hooks = [finder for finder in sys.meta_path if finder is torchreid_host.LayoutNames]
        own = torchreid_host.utils.load_pretrained_weights.__wrapped__
        return len(hooks), own, sorted(sys.modules), torchreid_host.model_names()

    before = state()
    dpm_plugin.register()
    assert state() == before and before[0] == 1 and not hasattr(before[1], "__wrapped__")


def test_torchreids_weight_loader_takes_plugin_models_of_other_sizes_and_refuses_other_networks(tmp_path):
    path = tmp_path / "weights.pth"
    source = tiny_model(num_classes=9, img_size=(96, 48))
    torch.save({"state_dict": source.state_dict()}, path)
    extractors = sys.modules[torchreid_host.utils.FeatureExtractor.__module__]
    for load in (torchreid_host.utils.load_pretrained_weights, extractors.load_pretrained_weights):
        model = tiny_model()
        load(model, path)
        source_tokens, tokens = (m.backbone.transformer.pos_embed for m in (source, model))
        assert torch.equal(tokens[:, 0], source_tokens[:, 0]) and tokens.shape[1] == 33
    torch.save({"state_dict": {"conv1.weight": torch.zeros(3)}}, path)
    with pytest.raises(DPMError, match="fits this DPM"):
        torchreid_host.utils.load_pretrained_weights(model, path)
