"""DPMExtractor and torchreid's own FeatureExtractor: any image in, the evaluation's features out."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import dpm_plugin
from dpm_plugin import DPMError, DPMExtractor
from dpm_plugin.config import load_config
from dpm_plugin.data.transforms import build_transforms
from dpm_plugin.inference.run_extractor import Extractor
from dpm_plugin.torchreid_host import models, utils
from helpers.images import noise
from helpers.model import to_released
from helpers.runs import SETTINGS, untrained_run

pytestmark = pytest.mark.torchreid

# Nothing of this is what torchreid's factory would build: stride, cameras, width, pooling, normalisation.
RECIPE = Path(__file__).resolve().parents[2] / "configs" / "dpm_occduke.yaml"
MEAN, STD = [0.5, 0.4, 0.3], [0.5, 0.6, 0.7]
CHANGES = dict(vit__stride=[6, 4], vit__mask_pool="max", data__norm_mean=MEAN, data__norm_std=STD)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("extractor")
    return untrained_run(folder / "run", folder / "data", **CHANGES)


@pytest.fixture(scope="module")
def extractor(run):
    return DPMExtractor(run[0], device="cpu")


def same(one, other, tolerance=1e-5):
    for got, expected in zip(one, other, strict=True):
        torch.testing.assert_close(got, expected, atol=tolerance, rtol=tolerance)


def test_an_image_has_the_features_of_the_runs_own_evaluation(run, extractor):
    evaluation = Extractor(run[0])
    expected = evaluation.features(evaluation.loader("query"), "query")
    found = extractor(expected.paths, cameras=expected.camids)
    same(found, (expected.embedding, expected.mask, expected.cls))
    assert found.embedding.std(dim=0).min() > 0.01  # so the images counted
    neutral = extractor(expected.paths)
    assert (neutral.cls - found.cls).abs().max() > 0.1  # so the cameras above counted
    assert found.mask.std(dim=0).mean() > 0.01
    _, transform = build_transforms(32, 16, norm_mean=MEAN, norm_std=STD)
    assert torch.equal(extractor.prepare(expected.paths[0]), transform(Image.open(expected.paths[0])))


def test_every_kind_of_image_gives_the_same_features(run, extractor, tmp_path):
    image = noise()
    image.save(tmp_path / "a.png")
    array = np.array(image)
    expected = extractor(image)
    tensor = torch.from_numpy(array).permute(2, 0, 1)
    path = tmp_path / "a.png"
    kinds = [str(path), path, array, array[None], tensor, tensor[None], extractor.prepare(image)]
    for kind in kinds:
        assert all(map(torch.equal, extractor(kind), expected))
    assert (extractor(noise(1)).embedding - expected.embedding).abs().max() > 0.01
    mixed = extractor([kinds[0], array, kinds[4], kinds[6]])
    same(mixed, [value.expand(4, -1) for value in expected])
    opencv = DPMExtractor(run[0], device="cpu", bgr=True)
    assert all(map(torch.equal, opencv(array[..., ::-1]), expected))
    assert all(map(torch.equal, opencv(tmp_path / "a.png"), expected))  # only arrays are blue first


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_a_pil_image_of_any_mode_is_what_its_file_is(extractor, tmp_path, mode):
    image = noise().convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.array(image).astype(np.uint16) * 257)
    image.save(tmp_path / "a.tif")
    with Image.open(tmp_path / "a.tif") as opened:
        assert opened.mode == mode
        assert torch.equal(extractor.prepare(opened), extractor.prepare(tmp_path / "a.tif"))


def test_a_file_is_turned_as_its_exif_tag_says(extractor, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    noise(size=(50, 20)).save(tmp_path / "a.jpg", exif=exif)
    with Image.open(tmp_path / "a.jpg") as lying:
        upright = lying.convert("RGB").transpose(Image.Transpose.ROTATE_270)
    assert torch.equal(extractor.prepare(tmp_path / "a.jpg"), extractor.prepare(upright))


def test_batches_and_order_do_not_matter(run):
    images = [noise(seed) for seed in range(7)]
    small, whole = DPMExtractor(run[0], device="cpu", batch_size=3), DPMExtractor(run[0], device="cpu")
    found = small(images, cameras=[0, 1, 2, 0, 1, 2, 9])
    same(found, whole(images, cameras=torch.tensor([0, 1, 2, 0, 1, 2, 9])))
    for place in range(7):
        alone = whole(images[place], cameras=[0, 1, 2, 0, 1, 2, None][place])
        same(alone, [value[place : place + 1] for value in found])
    none = small([])
    assert none.embedding.shape == none.mask.shape == none.cls.shape == (0, 16)


def test_a_model_with_its_preparation_is_the_same_as_its_run(run, extractor):
    model = run[1].train()
    own = DPMExtractor(model, image_size=(32, 16), mean=MEAN, std=STD, device="cpu")
    assert not model.training
    assert all(map(torch.equal, own(noise()), extractor(noise())))


def test_another_checkpoint_of_the_run_and_one_with_a_config_file_open(run, extractor, tmp_path):
    shutil.copy(run[0] / "model" / "last.pth.tar", run[0] / "model" / "model.pth.tar-1")
    other = DPMExtractor(run[0] / "model" / "model.pth.tar-1", device="cpu")
    assert all(map(torch.equal, other(noise()), extractor(noise())))
    shutil.copy(run[0] / "model" / "last.pth.tar", tmp_path / "alone.pth")
    (tmp_path / "settings.yaml").write_text(run[2].dump(), encoding="utf-8")
    alone = DPMExtractor(tmp_path / "alone.pth", config_file=tmp_path / "settings.yaml", device="cpu")
    assert all(map(torch.equal, alone(noise()), extractor(noise())))
    wrong = load_config(overrides={**SETTINGS, "vit.embed_dim": 32})
    (tmp_path / "settings.yaml").write_text(wrong.dump(), encoding="utf-8")
    with pytest.raises(DPMError, match="of another encoder"):
        DPMExtractor(tmp_path / "alone.pth", config_file=tmp_path / "settings.yaml", device="cpu")


@pytest.mark.parametrize("name", ["dpm_vit_tiny", "vit_baseline_tiny"])  # key names of DPM's release and of TransReID
def test_a_file_of_any_key_names_opens_with_a_config_file(tmp_path, name):
    folder, model, config = untrained_run(tmp_path / "run", model__name=name)
    (tmp_path / "settings.yaml").write_text(config.dump(), encoding="utf-8")
    theirs = {f"module.{key}": value for key, value in to_released(model.state_dict()).items()}
    torch.save({"model": theirs}, tmp_path / "released.pth")
    save_file(model.state_dict(), tmp_path / "ours.safetensors")
    expected = DPMExtractor(folder, device="cpu")(noise(), cameras=1).embedding
    for file in ("released.pth", "ours.safetensors"):
        opened = DPMExtractor(tmp_path / file, config_file=tmp_path / "settings.yaml", device="cpu")
        assert torch.equal(opened(noise(), cameras=1).embedding, expected)
    encoder = {key: value for key, value in model.state_dict().items() if key.startswith("backbone.")}
    torch.save(encoder, tmp_path / "encoder.pth")
    with pytest.raises(DPMError, match="is no checkpoint of '.*': it lacks 'classifier.weight'"):
        DPMExtractor(tmp_path / "encoder.pth", config_file=tmp_path / "settings.yaml", device="cpu")


def test_a_baseline_has_no_mask(tmp_path):
    folder, *_ = untrained_run(tmp_path / "run", model__name="vit_baseline_tiny")
    extractor = DPMExtractor(folder, device="cpu")
    assert extractor(noise()).mask is None and extractor([]).mask is None


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"source": "gone"}, "'gone' does not exist"),
        ({"source": "{run}/model/gone.pth.tar"}, "gone.pth.tar' does not exist"),
        ({"source": "gone.pth", "config_file": RECIPE}, "'gone.pth' does not exist"),
        ({"source": "{tmp}/cut.pth"}, "cannot be read as plain weights"),
        ({"source": "{tmp}/cut/model/last.pth.tar"}, "cannot be read as plain weights"),
        ({"source": "{run}/results.json"}, "cannot be read as plain weights"),
        ({"source": "{tmp}/old.pth"}, "lies in no finished run"),
        ({"source": "{run}/model/last.pth.tar", "checkpoint": "best"}, "which '.*last.pth.tar' is not"),
        ({"source": "{run}", "checkpoint": "first"}, "choose one of last, best"),
        ({"source": "{run}", "mean": [0.5] * 3}, "mean belong to a model"),
        ({"source": "{run}", "device": "abacus"}, "device 'abacus'"),
        ({"source": "{run}", "batch_size": 0}, "batch_size"),
        ({"source": torch.nn.Linear(1, 1)}, "Linear has no masks"),
    ],
)
def test_a_wrong_source_is_one_line(run, tmp_path, arguments, said):
    whole = (run[0] / "model" / "last.pth.tar").read_bytes()
    shutil.copytree(run[0], tmp_path / "cut")
    for path in (tmp_path / "cut.pth", tmp_path / "cut" / "model" / "last.pth.tar"):
        path.write_bytes(whole[: len(whole) // 2])
    (tmp_path / "old.pth").write_bytes(whole)  # of a version that did not record the settings
    source = arguments.pop("source")
    if isinstance(source, str):
        source = source.format(tmp=tmp_path, run=run[0])
    with pytest.raises(DPMError, match=said) as caught:
        DPMExtractor(source, **{"device": "cpu", **arguments})
    assert "\n" not in str(caught.value)


def test_a_model_alone_asks_for_its_preparation(run):
    with pytest.raises(DPMError, match="give mean, std"):
        DPMExtractor(run[1], image_size=(32, 16), device="cpu")


@pytest.mark.parametrize(
    "wrong, said",
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), np.uint8), r"\(4, 4\)"),
        (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
        (torch.zeros(3, 9, 9), r"\(3, 32, 16\)"),
        (torch.full((3, 32, 16), torch.nan), "NaN or infinity"),
        (torch.full((3, 32, 16), 1e39, dtype=torch.float64), "NaN or infinity"),
        (Image.new("F", (16, 32)), "mode F have no range"),
        (Image.new("I", (16, 32)), "mode I have no range"),
        (7, "7 is no image"),
        ("gone.jpg", "'gone.jpg' does not exist"),
        ("{tmp}/text.jpg", "text.jpg' cannot be read"),
        ("opened, cut", "truncated"),
    ],
)
def test_a_wrong_image_is_named_by_its_place(extractor, tmp_path, wrong, said):
    (tmp_path / "text.jpg").write_text("no image", encoding="utf-8")
    noise().save(tmp_path / "cut.bmp")
    os.truncate(tmp_path / "cut.bmp", 500)
    if isinstance(wrong, str):
        wrong = Image.open(tmp_path / "cut.bmp") if wrong == "opened, cut" else wrong.format(tmp=tmp_path)
    with pytest.raises(DPMError, match=f"image 2 of 2: .*{said}"):
        extractor([noise(), wrong])


@pytest.mark.parametrize("cameras", [[0], [0, 1, 2], "left", [[0, 1]]])
def test_cameras_that_do_not_fit_the_images_are_refused(extractor, cameras):
    with pytest.raises(DPMError, match="cameras"):
        extractor([noise(), noise()], cameras)


# ---- torchreid's own ----


def feature_extractor(path, **options):
    settings = dict(image_size=(32, 16), pixel_mean=MEAN, pixel_std=STD)
    return utils.FeatureExtractor("dpm_vit_tiny", model_path=str(path), device="cpu", **{**settings, **options})


def test_torchreids_extractor_gives_the_features_of_a_runs_checkpoint(run, extractor):
    own = feature_extractor(run[0] / "model" / "last.pth.tar")
    images = [np.array(noise(seed)) for seed in range(3)]
    torch.testing.assert_close(own(images), extractor(images).embedding, atol=1e-5, rtol=1e-5)
    assert own.model.num_classes == 1  # as torchreid asked


def test_torchreids_extractor_without_weight_file_asks_for_pretrained_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("DPM_PRETRAINED", str(tmp_path / "nothing.pth"))
    with pytest.warns(UserWarning, match="No file found"), pytest.raises(DPMError, match="nothing.pth"):
        feature_extractor(tmp_path / "gone.pth.tar")


def test_torchreids_extractor_refuses_a_checkpoint_of_another_model(tmp_path):
    folder, *_ = untrained_run(tmp_path / "run", model__name="vit_baseline_tiny")
    with pytest.raises(DPMError, match="of 'vit_baseline_tiny', not of the model that was built"):
        feature_extractor(folder / "model" / "last.pth.tar", verbose=False)


def test_a_shape_that_was_asked_for_is_kept(run):
    shape = dict(img_size=(32, 16), stride=8, patch_size=8, embed_dim=16, depth=2, num_heads=2, mask_blocks=(1, 2))
    model = dpm_plugin.dpm_vit_tiny(4, pretrained=False, **shape)
    utils.load_pretrained_weights(model, str(run[0] / "model" / "last.pth.tar"))
    assert model.backbone.transformer.patch_embed.stride == (8, 8) and model.num_cameras == 0
    assert torch.equal(model.neck.weight, run[1].neck.weight)


def test_torchreids_own_models_keep_torchreids_loader(tmp_path):
    first, second = (models.build_model("osnet_x0_25", num_classes=3, pretrained=False) for _ in range(2))
    state = {f"module.{key}": value for key, value in first.state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    utils.load_pretrained_weights(second, str(tmp_path / "a.pth"))
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
