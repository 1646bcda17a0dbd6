"""Transforms: torchreid's own when only they are asked for, the recipe's order, and real pixels."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing
from torchvision.transforms import ColorJitter, InterpolationMode, RandomCrop, Resize

from dpm_plugin import torchreid_host
from dpm_plugin.data.transforms import OUR_NAMES, TORCHREID_NAMES, build_transforms
from dpm_plugin.utils.errors import DPMError

pytestmark = pytest.mark.torchreid

HALF = [0.5, 0.5, 0.5]


def steps(transform):
    return [type(step).__name__ for step in transform.transforms]


def noise_image(seed=0, height=40, width=20):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("names", [None, [], "random_flip", list(TORCHREID_NAMES), ["random_erase"]])
def test_torchreids_names_alone_give_torchreids_own_transforms(names, monkeypatch):
    own, built = torchreid_host.build_transforms, []

    def spy(*args, **kwargs):
        built.append(own(*args, **kwargs))
        return built[-1]

    monkeypatch.setattr(torchreid_host, "build_transforms", spy)
    train, test = build_transforms(32, 16, names)
    assert train is built[0][0] and test is built[0][1] and len(built) == 1


def test_the_recipe_has_its_published_order_and_settings():
    train, test = build_transforms(
        256, 128, ["erase_pixel", "pad_crop", "random_flip", "jitter"], HALF, HALF, interpolation="bicubic"
    )
    order = "Resize ColorJitter RandomHorizontalFlip RandomCrop ToTensor Normalize RandomErasing"
    assert steps(train) == order.split()
    resize, jitter, flip, crop, _, normalize, erase = train.transforms
    assert resize.interpolation is InterpolationMode.BICUBIC and tuple(resize.size) == (256, 128)
    assert (jitter.brightness, jitter.contrast) == ((0.7, 1.3), (0.7, 1.3))
    assert (jitter.saturation, jitter.hue) == ((0.8, 1.2), (-0.2, 0.2))
    assert flip.p == 0.5
    assert (crop.padding, crop.fill, tuple(crop.size)) == (10, 0, (256, 128))
    assert (list(normalize.mean), list(normalize.std)) == (HALF, HALF)
    assert isinstance(erase, RandomErasing)
    assert (erase.probability, erase.per_pixel, erase.max_count, erase.device) == (0.5, True, 1, "cpu")
    assert steps(test) == ["Resize", "ToTensor", "Normalize"]
    assert test.transforms[0].interpolation is InterpolationMode.BILINEAR


def test_torchreids_names_mix_with_ours_and_keep_their_places():
    train, _ = build_transforms(32, 16, [*TORCHREID_NAMES, *OUR_NAMES])
    order = "Resize ColorJitter RandomHorizontalFlip Random2DTranslation RandomPatch ColorJitter RandomCrop ToTensor"
    assert steps(train) == [*order.split(), "Normalize", "RandomErasing", "RandomErasing"]
    assert isinstance(train.transforms[-1], RandomErasing) and train.transforms[1].hue == (-0.2, 0.2)


def test_bicubic_alone_changes_the_training_resize_and_nothing_else():
    ours, _ = build_transforms(32, 16, [], HALF, HALF, interpolation="bicubic")
    theirs, _ = build_transforms(32, 16, [], HALF, HALF)
    assert steps(ours) == steps(theirs)
    wanted = np.asarray(noise_image().resize((16, 32), Image.BICUBIC), np.float32).transpose(2, 0, 1) / 127.5 - 1
    np.testing.assert_allclose(ours(noise_image()).numpy(), wanted, atol=1e-6)
    assert not torch.equal(ours(noise_image()), theirs(noise_image()))


def test_a_padded_crop_is_a_shift_over_black():
    train, _ = build_transforms(32, 16, ["pad_crop"], [0, 0, 0], [1, 1, 1])
    image = noise_image(height=32, width=16)
    padded = np.zeros((52, 36, 3), np.uint8)
    padded[10:42, 10:26] = np.asarray(image)
    torch.manual_seed(3)
    shifts = set()
    for _ in range(8):
        got = np.rint(train(image).numpy().transpose(1, 2, 0) * 255).astype(np.uint8)
        found = [(y, x) for y in range(21) for x in range(21) if np.array_equal(padded[y : y + 32, x : x + 16], got)]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) > 1


def test_erase_pixel_draws_one_box_of_noise_on_about_half_of_the_images():
    train, _ = build_transforms(32, 16, ["erase_pixel"], HALF, HALF)
    gray = Image.new("RGB", (16, 32), (128, 128, 128))
    random.seed(0)
    torch.manual_seed(0)
    erased = 0
    for _ in range(60):
        changed = (train(gray) - (128 / 127.5 - 1)).abs().amax(0) > 1e-3  # (H, W)
        if changed.any():
            erased += 1
            rows, columns = changed.any(1).nonzero(), changed.any(0).nonzero()
            box = changed[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert box.float().mean() > 0.98
    assert 15 < erased < 45


@pytest.mark.parametrize(
    "name, near", [("random_flop", "random_flip"), ("pad-crop", "pad_crop"), ("erase", "erase_pixel")]
)
def test_an_unknown_name_or_interpolation_is_an_error_with_the_nearest_one(name, near):
    with pytest.raises(DPMError, match=f"'{name}'; did you mean '{near}'"):
        build_transforms(32, 16, ["random_flip", name])
    with pytest.raises(DPMError, match="'cubic'; did you mean 'bicubic'"):
        build_transforms(32, 16, [], interpolation="cubic")


def test_tuples_and_capitals_are_accepted():
    train, _ = build_transforms(32, 16, ("Pad_Crop", "JITTER"))
    assert [type(s) for s in train.transforms[:3]] == [Resize, ColorJitter, RandomCrop]
