"""load_weights and pretrained weights: what is recognised, resized, skipped and refused."""
import timm
import pytest
import torch
from helpers_model import TINY, tiny_model

from dpm_plugin import DPMError, load_weights
from dpm_plugin.torchreid_host import models
from dpm_plugin.weights import RELEASED_NAMES


def to_released(state):
    """Our names to the released implementation's: the inverse of the table under test."""
    renamed = {}
    for key, value in state.items():
        old, new = next((old, new) for old, new in RELEASED_NAMES if new is not None and key.startswith(new))
        renamed[old + key[len(new):]] = value.unsqueeze(1) if new == "backbone.camera_embedding" else value
    return renamed


def same(model, state):
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": s}])
@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("rename", [lambda s: s, to_released], ids=["own", "released"])
def test_known_layouts_load_whole_with_or_without_wrapper_and_prefix(tmp_path, wrap, prefix, rename):
    source = tiny_model()
    path = tmp_path / "weights.pth"
    torch.save(wrap({prefix + key: value for key, value in rename(source.state_dict()).items()}), path)
    target = tiny_model()
    report = load_weights(target, path)
    assert same(target, source.state_dict())
    assert not (report.missing or report.skipped or report.resized or report.unused)


def test_other_classes_cameras_and_sizes_are_skipped_or_resized_and_reported(tmp_path):
    source = tiny_model(num_classes=9, num_cameras=6, img_size=(96, 48))
    path = tmp_path / "weights.pth"
    torch.save(source.state_dict(), path)
    target = tiny_model()
    report = load_weights(target, path)
    assert set(report.skipped) == {"classifier.weight", "backbone.camera_embedding"}
    assert report.resized == ["backbone.transformer.pos_embed"]
    # 12x6 patches to 8x4: away from the border, bilinear resizing keeps a linear ramp
    ramp = torch.arange(12.0).view(12, 1).expand(12, 6).reshape(1, 72, 1)
    source.backbone.transformer.pos_embed.data[:, 1:] = ramp
    torch.save(source.state_dict(), path)
    load_weights(target, path)
    rows = target.backbone.transformer.pos_embed.data[0, 1:, 0].view(8, 4)
    torch.testing.assert_close(rows[:, 0], (torch.arange(8) + 0.5) * 1.5 - 0.5)


def test_a_timm_file_fills_the_backbone_and_reports_the_rest_missing(tmp_path):
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=64, patch_size=8, embed_dim=24, depth=4,
                              num_heads=3)
    path = tmp_path / "timm.pth"
    torch.save(plain.state_dict(), path)
    model = tiny_model()
    report = load_weights(model, path)
    assert report.layout == "timm" and "backbone.transformer.pos_embed" in report.resized
    assert torch.equal(model.backbone.transformer.blocks[3].mlp.fc1.weight, plain.blocks[3].mlp.fc1.weight)
    assert "mask_generator.conv1.0.weight" in report.missing and any("head.weight" in key for key in report.unused)


def test_a_stock_torchreid_model_loads_its_own_file(tmp_path):
    source = models.build_model("osnet_x0_25", num_classes=4, pretrained=False)
    path = tmp_path / "osnet.pth"
    torch.save({"state_dict": source.state_dict()}, path)
    target = models.build_model("osnet_x0_25", num_classes=6, pretrained=False)
    report = load_weights(target, path)
    assert set(report.skipped) == {"classifier.weight", "classifier.bias"}
    assert torch.equal(target.conv1.conv.weight, source.conv1.conv.weight)


def test_a_file_that_fits_nothing_is_an_error(tmp_path):
    path = tmp_path / "osnet.pth"
    torch.save(models.build_model("osnet_x0_25", num_classes=4, pretrained=False).state_dict(), path)
    with pytest.raises(DPMError, match="fits this DPM"):
        load_weights(tiny_model(), path)
    torch.save({"epoch": 3, "list": [1, 2]}, path)
    with pytest.raises(DPMError, match="no state dict"):
        load_weights(tiny_model(), path)


def local_timm_file(tmp_path, **shape):
    shape = {"img_size": 64, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3, **shape}
    plain = timm.create_model("vit_tiny_patch16_224", num_classes=0, **shape)
    torch.save(plain.state_dict(), tmp_path / "pretrained.pth")
    return plain, str(tmp_path / "pretrained.pth")


def test_pretrained_weights_come_from_a_local_file_by_argument_or_environment(tmp_path, monkeypatch):
    plain, path = local_timm_file(tmp_path)
    by_argument = tiny_model(pretrained=path)
    monkeypatch.setenv("DPM_PRETRAINED", path)
    by_environment = tiny_model(pretrained=True)
    for model in (by_argument, by_environment):
        assert torch.equal(model.backbone.transformer.blocks[0].attn.qkv.weight, plain.blocks[0].attn.qkv.weight)
        assert model.backbone.transformer.pos_embed.shape[1] == 33


def test_an_npz_file_of_the_original_weights_is_read_by_timm(tmp_path, monkeypatch):
    called = []
    path = tmp_path / "original.npz"
    path.write_bytes(b"PK")
    monkeypatch.setattr(
        timm.models.VisionTransformer, "load_pretrained", lambda self, file: called.append(file), raising=True
    )
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


def test_a_pretrained_file_of_another_shape_is_an_error(tmp_path):
    _, path = local_timm_file(tmp_path, embed_dim=36)
    with pytest.raises(DPMError, match="expected"):
        tiny_model(pretrained=path)
    _, path = local_timm_file(tmp_path, depth=3)
    with pytest.raises(DPMError, match="tensors are missing"):
        tiny_model(pretrained=path)
