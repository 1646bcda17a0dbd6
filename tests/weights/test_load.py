"""load_weights and pretrained weights: what is recognised, resized, skipped and refused."""

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpm_plugin import DPMError, load_weights
from dpm_plugin.torchreid_host import models
from dpm_plugin.weights.load import ENCODER
from dpm_plugin.weights.resize import guess_grid
from helpers.model import TINY, tiny_model, to_released
from helpers.payload import Payload

pytestmark = pytest.mark.torchreid


@pytest.fixture(scope="module")
def untouched():
    """(model, copy of its weights) for files that must leave it as it is."""
    model = tiny_model()
    return model, {key: value.clone() for key, value in model.state_dict().items()}


def same(model, state):
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def transreid(state, jigsaw):
    """A TransReID checkpoint with the weights of a model without mask branch."""
    named = {"base.fc.weight": torch.zeros(10, 24), "base.fc.bias": torch.zeros(10), **to_released(state)}
    if jigsaw:  # the whole image's own last block and norm, and a second branch with heads of its own
        for key in [key for key in named if key.startswith(("base.blocks.3.", "base.norm."))]:
            branch = key.replace("base.blocks.3.", "b1.0.").replace("base.norm.", "b1.1.")
            named[branch], named[key] = named[key], torch.full_like(named[key], 7.0)
            named[branch.replace("b1", "b2")] = torch.full_like(named[key], 8.0)
        named.update({"bottleneck_1.weight": torch.ones(24), "classifier_1.weight": torch.ones(5, 24)})
    return named


def osnet(num_classes=4):
    return models.build_model("osnet_x0_25", num_classes=num_classes, pretrained=False)


def plain_vit(**shape):
    shape = {"img_size": 64, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3, "num_classes": 0, **shape}
    return timm.create_model("vit_tiny_patch16_224", **shape)


@pytest.fixture(scope="module")
def known():
    """{kind of file: (its state dict, a model for it, {the model's name: tensor that is to be there})}."""
    own, baseline = tiny_model().state_dict(), tiny_model(mask_blocks=()).state_dict()
    plain, stock = plain_vit(num_classes=7).state_dict(), osnet().state_dict()
    encoder = {ENCODER + key: plain[key] for key in plain if not key.startswith(("head.", "pos_embed"))}
    return {
        "dpm": (own, tiny_model(), own),
        "released": (to_released(own), tiny_model(), own),
        "transreid": (transreid(baseline, jigsaw=False), tiny_model(), baseline),
        "transreid jigsaw": (transreid(baseline, jigsaw=True), tiny_model(), baseline),
        "timm": (plain, tiny_model(), encoder),
        "torchreid": (stock, osnet(), stock),
    }


# Kind of file -> beginnings of the names in it that have no place in the model.
UNUSED = {
    "transreid": ("base.fc.",),
    "transreid jigsaw": ("base.fc.", "b2.", "bottleneck_", "classifier_"),
    "timm": ("head.",),
}
WRAPPERS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"state_dict": state},
    "model": lambda state: {"model": state},
    "both": lambda state: {"model": {"state_dict": state}, "epoch": 3},
    "torchreid's": lambda state: {"state_dict": state, "epoch": 3, "rank1": np.float64(0.25), "optimizer": {}},
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("kind", ["dpm", "released", "transreid", "transreid jigsaw", "timm", "torchreid"])
def test_every_known_naming_loads_with_or_without_wrapper_and_prefix(tmp_path, known, kind, prefix, wrapper):
    state, model, expected = known[kind]
    path = tmp_path / "weights.pth"
    torch.save(WRAPPERS[wrapper]({prefix + key: value for key, value in state.items()}), path)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.zero_()
    report, found = load_weights(model, path), model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert report.naming == kind.split()[0] and not report.skipped
    assert report.resized == ([ENCODER + "pos_embed"] if kind == "timm" else [])
    assert report.missing == [key for key in found if key not in expected and key not in report.resized]
    assert set(report.unused) == {key for key in state if key.startswith(UNUSED.get(kind, ()))}


def saved(state, path):
    torch.save(state, path)
    return path


def test_a_safetensors_file_is_told_by_its_content_whatever_its_name(tmp_path):
    source, target, path = tiny_model(), tiny_model(), tmp_path / "weights.bin"
    safetensors.torch.save_file({f"module.{key}": value for key, value in source.state_dict().items()}, path)
    load_weights(target, path)
    assert same(target, source.state_dict())


def test_other_classes_cameras_and_sizes_are_skipped_or_resized_and_reported(tmp_path):
    source, target = tiny_model(num_classes=9, num_cameras=6, img_size=(96, 48)), tiny_model()
    path = tmp_path / "weights.pth"
    report = load_weights(target, saved(source.state_dict(), path))
    assert set(report.skipped) == {"classifier.weight", "backbone.camera_embedding"}
    assert report.resized == ["backbone.transformer.pos_embed"]
    # 12x6 patches to 8x4: away from the border, bilinear resizing keeps a linear ramp
    ramp = torch.arange(12.0).view(12, 1).expand(12, 6).reshape(1, 72, 1)
    source.backbone.transformer.pos_embed.data[:, 1:] = ramp
    load_weights(target, saved(source.state_dict(), path))
    rows = target.backbone.transformer.pos_embed.data[0, 1:, 0].view(8, 4)
    torch.testing.assert_close(rows[:, 0], (torch.arange(8) + 0.5) * 1.5 - 0.5)


def test_a_patch_embedding_of_another_patch_size_is_resized(tmp_path):
    source = tiny_model(patch_size=16, stride=8, img_size=(72, 40))  # 8x4 patches, as the model
    report = load_weights(tiny_model(), saved(source.state_dict(), tmp_path / "weights.pth"))
    assert report.resized == ["backbone.transformer.patch_embed.proj.weight"]
    assert report.sizes == {report.resized[0]: "16x16 to 8x8 pixels"} and not report.skipped


def test_the_report_says_what_happened_in_one_line(tmp_path, capsys):
    source, target = tiny_model(num_classes=9, img_size=(96, 48)), tiny_model(num_cameras=0)
    path = saved({**source.state_dict(), "extra": torch.zeros(1)}, tmp_path / "weights.pth")
    capsys.readouterr()
    report = load_weights(target, path)
    assert capsys.readouterr().out == (
        f"=> '{path}': dpm checkpoint: {len(target.state_dict()) - 1} tensors loaded; "
        "1 resized (backbone.transformer.pos_embed: 12x6 to 8x4 patches); 1 skipped (classifier.weight); "
        "2 unused (backbone.camera_embedding, extra)\n"
    )
    assert sorted(report.loaded + report.skipped + report.missing) == sorted(target.state_dict())


@pytest.mark.parametrize(
    "other, says",
    [
        (dict(depth=3), "blocks.3.norm1.weight' (none in the file, (24,) in the model)"),
        (dict(depth=5), "blocks.4.norm1.weight' ((24,) in the file, none in the model)"),
        (dict(embed_dim=36), "blocks.0.norm1.weight' ((36,) in the file, (24,) in the model)"),
    ],
)
def test_a_file_of_another_encoder_is_refused_and_the_model_stays(tmp_path, untouched, other, says):
    path, (model, before) = saved(to_released(tiny_model(**other).state_dict()), tmp_path / "weights.pth"), untouched
    with pytest.raises(DPMError) as error:
        load_weights(model, path)
    assert says in str(error.value) and "\n" not in str(error.value) and same(model, before)


@pytest.mark.parametrize("kind", ["damaged zip", "damaged safetensors", "text", "code", "numbers for names"])
def test_files_that_are_no_weights_are_one_line_errors_and_the_model_stays(tmp_path, untouched, kind):
    path, (model, before) = tmp_path / "weights.pth", untouched
    if kind == "text":
        path.write_text("{'weights': 1}")
    elif kind == "code":
        torch.save({**before, "x": Payload(tmp_path / "executed")}, path)
    elif kind == "numbers for names":
        torch.save({0: torch.zeros(1)}, path)
    else:
        (torch.save if kind == "damaged zip" else safetensors.torch.save_file)(before, path)
        path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(DPMError) as error:
        load_weights(model, path)
    assert str(path) in str(error.value) and "\n" not in str(error.value) and same(model, before)
    assert not (tmp_path / "executed").exists()


@given(st.integers(1, 40), st.integers(1, 40))
def test_a_grid_is_guessed_right_where_the_model_has_the_same_or_where_it_is_a_timm_square(height, width):
    assert guess_grid(height * width, (height, width), square=False) == (height, width)
    assert guess_grid(height * height, (height, width), square=True) == (height, height)


@pytest.mark.parametrize(
    "patches, grid, expected",
    [
        (128, (22, 11), (16, 8)),
        (210, (16, 8), (21, 10)),
        (242, (21, 10), (22, 11)),
        (192, (16, 8), (24, 8)),
        (196, (22, 11), (14, 14)),
        (256, (21, 10), (16, 16)),
        (197, (16, 8), None),
        (0, (16, 8), None),
    ],
)
def test_grids_of_the_sizes_in_use_are_told_from_the_number_of_patches(patches, grid, expected):
    assert guess_grid(patches, grid, square=False) == expected


def test_a_stock_torchreid_model_skips_another_number_of_classes(tmp_path):
    source, target = osnet(), osnet(num_classes=6)
    path = saved({"state_dict": source.state_dict()}, tmp_path / "osnet.pth")
    assert set(load_weights(target, path).skipped) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(target.conv1.conv.weight, source.conv1.conv.weight)


def test_a_file_that_fits_nothing_is_an_error(tmp_path, untouched):
    path = tmp_path / "osnet.pth"
    for content, says in ((osnet().state_dict(), "fits this DPM"), ({"epoch": 3, "list": [1, 2]}, "no state dict")):
        with pytest.raises(DPMError, match=says):
            load_weights(untouched[0], saved(content, path))


# ---- pretrained encoders ----


@pytest.fixture
def pretrained(tmp_path):
    """``pretrained(**shape)``: (a timm ViT, path of its weights)."""

    def save(**shape):
        plain = plain_vit(**shape)
        return plain, str(saved(plain.state_dict(), tmp_path / "pretrained.pth"))

    return save


def test_pretrained_weights_come_from_a_local_file_by_argument_or_environment(pretrained, monkeypatch):
    plain, path = pretrained()
    monkeypatch.setenv("DPM_PRETRAINED", path)
    for model in (tiny_model(pretrained=path), tiny_model(pretrained=True)):
        assert torch.equal(model.backbone.transformer.blocks[0].attn.qkv.weight, plain.blocks[0].attn.qkv.weight)
        assert model.backbone.transformer.pos_embed.shape[1] == 33


def test_an_npz_file_of_the_original_weights_is_read_by_timm(tmp_path, monkeypatch):
    called, path = [], tmp_path / "original.npz"
    path.write_bytes(b"PK")
    monkeypatch.setattr(timm.models.VisionTransformer, "load_pretrained", lambda self, file: called.append(file))
    tiny = {key: value for key, value in TINY.items() if key in ("backbone", "img_size")}
    tiny_model(pretrained=str(path), **tiny, stride=16, patch_size=None, embed_dim=None, depth=None, num_heads=None)
    assert called == [str(path)]


def test_pretrained_weights_that_cannot_be_had_are_an_error_never_random(tmp_path, monkeypatch):
    monkeypatch.delenv("DPM_PRETRAINED", raising=False)
    with pytest.raises(DPMError, match="does not exist"):
        tiny_model(pretrained=str(tmp_path / "none.pth"))

    def offline(*args, **kwargs):
        if kwargs.get("pretrained"):
            raise ConnectionError("no network")
        return real(*args, **kwargs)

    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(DPMError, match="no network.*DPM_PRETRAINED"):
        tiny_model(pretrained=True)
    monkeypatch.setenv("DPM_PRETRAINED", "none")
    tiny_model(pretrained=True)  # knowingly random


@pytest.mark.parametrize("shape, says", [({"embed_dim": 36}, "expected"), ({"depth": 3}, "tensors are missing")])
def test_a_pretrained_file_of_another_shape_is_an_error(pretrained, shape, says):
    with pytest.raises(DPMError, match=says):
        tiny_model(pretrained=pretrained(**shape)[1])
