"""Parts of a run that cannot be built are refused in one line."""

from types import SimpleNamespace

import pytest

from dpm_plugin.build import build_model
from dpm_plugin.config import load_config
from dpm_plugin.utils.errors import DPMError
from helpers.network import go_offline

STOCK = {"loss.name": "softmax", "model.pretrained": False, "train.batch_size": 1}
PEOPLE = SimpleNamespace(num_train_pids=4, num_cameras=3)


def built(**changes):
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    return build_model(load_config(overrides={"use_gpu": False, **STOCK, **changes}), PEOPLE)


@pytest.mark.parametrize(
    "changes, is_refused",
    [
        (dict(model__name="resnet18"), False),  # every BatchNorm sees more than one place
        (dict(model__name="resnet18", data__height=32, data__width=16), True),
        (dict(model__name="osnet_x0_25"), True),
        (dict(model__name="osnet_x0_25", train__batch_size=2), False),
        (dict(model__name="osnet_x0_25", test__evaluate=True), False),
        (dict(model__name="dpm_vit_tiny", loss__name="dpm", vit__depth=2, vit__mask_blocks=[1]), True),
    ],
)
def test_one_image_a_batch_is_refused_only_where_batchnorm_cannot_take_it(changes, is_refused):
    if is_refused:
        with pytest.raises(DPMError, match="1 leaves BatchNorm one image to average over; give at least 2$"):
            built(**changes)
    else:
        assert built(**changes).training


@pytest.mark.parametrize("name", ["osnet_x0_25", "resnet50"])  # from Google Drive and from torch's server
def test_torchreids_weights_that_cannot_be_fetched_are_one_line(name, monkeypatch, tmp_path):
    go_offline(monkeypatch)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(DPMError, match=f"the ImageNet weights of '{name}' can't be had .*; go online once") as caught:
        built(model__name=name, model__pretrained=True, train__batch_size=8)
    assert "\n" not in str(caught.value)
