"""Published ViTs under their authors' tensor names: what loads, and what is refused by its name."""

import pytest
import timm
import torch
from timm.models.vision_transformer import checkpoint_filter_fn

from dpm_plugin import DPM, DPMError, load_weights
from dpm_plugin.apps.convert_checkpoint import convert
from dpm_plugin.method.vit import ViT
from dpm_plugin.weights.load import ENCODER, load_pretrained
from helpers import published_names as published
from helpers.published_names import DIM, TINY_SHAPE, clip_tower, prefixed, randomised, training_checkpoint

PLAIN, CLIP = "vit_tiny_patch16_224", "vit_base_patch16_clip_quickgelu_224"
V2, REGISTERS, GIANT = (f"vit_{name}_dinov2" for name in ("small_patch14", "small_patch14_reg4", "giant_patch14"))


def plain_vit(backbone):
    return randomised(timm.create_model(backbone, num_classes=0, **TINY_SHAPE))


def from_plain(make, backbone=PLAIN):
    """(timm's model, a published checkpoint of the same tensors)."""

    def pair():
        plain = plain_vit(backbone)
        return plain, make({key: value.clone() for key, value in plain.state_dict().items()})

    return pair


def from_tower(make):
    """(timm's model with CLIP's tensors as timm itself converts them, a published checkpoint of them)."""

    def pair():
        plain, tower = plain_vit(CLIP), clip_tower()
        timms = checkpoint_filter_fn(prefixed(tower, "visual."), plain)
        assert not plain.load_state_dict(timms, strict=False).missing_keys
        return plain, make(tower)

    return pair


def masked(state):
    return {**state, "masked_embed": torch.randn(1, DIM)}


def ibot(state):
    return {"state_dict": {**prefixed(state, "backbone."), **published.dino_head()}}


# What is published -> (naming, backbone, function that makes a pair, a name that is left out)
KINDS = {
    "TransReID-SSL": ("dino", PLAIN, from_plain(training_checkpoint), "head.mlp.0.weight"),
    "PersonViT": (
        "dino",
        PLAIN,
        from_plain(lambda state: training_checkpoint(masked(state), "ibot_loss")),
        "backbone.masked_embed",
    ),
    "a student alone": (
        "dino",
        PLAIN,
        from_plain(lambda state: {"student": prefixed(masked(state), "module.backbone.")}),
        "backbone.masked_embed",
    ),
    "iBOT": ("dino", PLAIN, from_plain(ibot), "head.last_layer.weight_g"),
    "DeepSpeed": (
        "timm",
        PLAIN,
        from_plain(lambda state: {"module": {**state, "head.bias": torch.zeros(9)}}),
        "head.bias",
    ),
    "PASS": (
        "pass",
        PLAIN,
        from_plain(lambda state: training_checkpoint(published.part_tokens(state))),
        "backbone.part_token1",
    ),
    "MAE": ("mae", PLAIN, from_plain(published.mae), "decoder_pos_embed"),
    "DINOv2": ("dinov2", V2, from_plain(published.dinov2, V2), "mask_token"),
    "DINOv2 with registers": ("dinov2", REGISTERS, from_plain(published.dinov2, REGISTERS), "mask_token"),
    "DINOv2's giant": ("dinov2", GIANT, from_plain(published.dinov2, GIANT), "mask_token"),
    "CLIP": ("clip", CLIP, from_tower(published.clip), "visual.proj"),
    "CLIP's image tower": ("clip-tower", CLIP, from_tower(dict), "proj"),
    "CLIP-ReID": ("clip-reid", CLIP, from_tower(published.clip_reid), "image_encoder.proj"),
}


@pytest.fixture
def saved(tmp_path):
    def save(content):
        torch.save(content, tmp_path / "published.pth")
        return tmp_path / "published.pth"

    return save


@pytest.mark.parametrize("kind", KINDS)
def test_a_published_vit_computes_what_timms_model_of_the_same_tensors_does(saved, capsys, kind):
    naming, backbone, pair, left_out = KINDS[kind]
    plain, content = pair()
    path, images = saved(content), torch.randn(2, 3, 64, 32)
    vit = ViT(backbone, stride=8, drop_path=0.0, **TINY_SHAPE).eval()
    capsys.readouterr()
    load_pretrained(vit, path)
    with torch.inference_mode():
        torch.testing.assert_close(vit(images).cls, plain.forward_features(images)[:, 0])
    line = capsys.readouterr().out
    assert line.startswith(f"=> backbone weights from '{path}', {naming} checkpoint: {len(plain.state_dict())} tensors")
    assert "unused" in line and line.count("\n") == 1
    model = DPM(5, backbone=backbone, stride=8, drop_path=0.0, mask_blocks=(), num_cameras=0, **TINY_SHAPE)
    report = load_weights(model, path)
    assert report.naming == naming and left_out in report.unused and not report.skipped and not report.resized
    assert not [key for key in report.missing if key.startswith(ENCODER)]
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[ENCODER + key], value)


@pytest.mark.parametrize("backbone", [V2, REGISTERS, GIANT])
def test_dinov2_is_read_as_timm_itself_reads_it(saved, backbone):
    content = published.dinov2(plain_vit(backbone).state_dict())
    plain, vit = plain_vit(backbone), ViT(backbone, stride=8, **TINY_SHAPE)
    load_pretrained(vit, saved(content))
    plain.load_state_dict(checkpoint_filter_fn(dict(content), plain))
    for key, value in plain.state_dict().items():
        assert torch.equal(vit.transformer.state_dict()[key], value)


def test_a_tower_in_float16_is_resized_and_becomes_the_models_float32(saved):
    path = saved({key: value.half() for key, value in published.clip(clip_tower()).items()})
    vit = ViT(CLIP, stride=8, **{**TINY_SHAPE, "img_size": (96, 48)})
    load_pretrained(vit, path)
    assert {value.dtype for value in vit.state_dict().values()} == {torch.float32}
    assert vit.transformer.pos_embed.shape == (1, 1 + 12 * 6, DIM)


def test_neck_and_classifier_of_clip_reid_load_too(saved):
    content = published.clip_reid(clip_tower())
    model = DPM(5, backbone=CLIP, stride=8, mask_blocks=(), **TINY_SHAPE)
    assert not load_weights(model, saved(content)).missing
    assert torch.equal(model.neck.running_var, content["module.bottleneck.running_var"])
    assert torch.equal(model.classifier.weight, content["module.classifier.weight"])


def test_a_person_vit_is_resized_to_other_images_and_the_line_says_so(saved, capsys):
    path = saved(KINDS["PersonViT"][2]()[1])
    vit = ViT(PLAIN, stride=6, **{**TINY_SHAPE, "img_size": (96, 48), "patch_size": 12})
    capsys.readouterr()
    load_pretrained(vit, path)
    assert capsys.readouterr().out == (
        f"=> backbone weights from '{path}', dino checkpoint: 30 tensors loaded; "
        "2 resized (pos_embed: 8x4 to 15x7 patches, patch_embed.proj.weight: 8x8 to 12x12 pixels); "
        "7 unused (backbone.masked_embed, head.mlp.0.weight, head.mlp.0.bias, head.mlp.2.weight, ...)\n"
    )


@pytest.mark.parametrize(
    "kind, backbone, says",
    [
        ("CLIP", PLAIN, f"such as {CLIP}"),
        ("TransReID-SSL", CLIP, "'norm_pre.weight': missing.*such as vit_base_patch16_224"),
        ("DINOv2", PLAIN, "4 tensors .* no place in it, the first is 'blocks.0.ls1.gamma'.*patch14_dinov2"),
        ("DINOv2 with registers", V2, "the first is '(reg_token|pos_embed)'.*vit_base_patch14_reg4_dinov2"),
        ("DINOv2", REGISTERS, "the first is 'reg_token': missing"),
    ],
)
def test_a_file_for_another_kind_of_vit_is_refused_with_a_backbone_that_it_fits(saved, kind, backbone, says):
    path = saved(KINDS[kind][2]()[1])
    with pytest.raises(DPMError, match=says):
        load_pretrained(ViT(backbone, stride=8, **TINY_SHAPE), path)
    with pytest.raises(DPMError, match="is of another encoder.* files are made for backbones such as"):
        load_weights(DPM(5, backbone=backbone, stride=8, **TINY_SHAPE), path)


FOREIGN = {
    "SOLIDER": ({"teacher": {"backbone.stages.0.blocks.1.attn.w_msa.qkv.weight": 3}}, "Swin"),
    "Swin of timm": ({"layers.0.blocks.0.attn.relative_position_bias_table": 3, "patch_embed.proj.weight": 3}, "Swin"),
    "ICS stem": (
        {"teacher": {"backbone.patch_embed.conv.0.weight": 3, "backbone.patch_embed.proj.weight": 3}},
        "convolutional stem",
    ),
    "a ReID model with it": (
        {"base.patch_embed.conv.1.IN.weight": 3, "base.blocks.0.norm1.weight": 3},
        "convolutional stem",
    ),
    "DINOv3": ({"storage_tokens": 3, "rope_embed.periods": 3, "patch_embed.proj.weight": 3}, "DINOv3"),
    "DINOv3 of timm": ({"blocks.0.gamma_1": 3, "reg_token": 3, "patch_embed.proj.weight": 3}, "DINOv3, EVA"),
    "EVA-02": ({"blocks.0.attn.q_proj.weight": 3, "patch_embed.proj.weight": 3}, "EVA"),
    "BEiT": ({"blocks.0.attn.relative_position_bias_table": 3, "patch_embed.proj.weight": 3}, "BEiT"),
    "CLIP's ResNet": ({"visual.layer1.0.conv1.weight": 3, "visual.conv1.weight": 3}, "ResNet"),
    "transformers": ({"vision_model.embeddings.patch_embedding.weight": 3}, "transformers"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_encoders_of_another_kind_are_refused_by_their_name(saved, tmp_path, kind):
    content, says = FOREIGN[kind]
    inner = content.get("teacher", content)
    state = {key: torch.zeros(shape) for key, shape in inner.items()}
    path, model = (
        saved({"teacher": state} if "teacher" in content else state),
        DPM(5, backbone=PLAIN, stride=8, **TINY_SHAPE),
    )
    for refuse in (
        lambda: load_pretrained(model.backbone, path),
        lambda: load_weights(model, path),
        lambda: convert(path, tmp_path / "out.pth"),
    ):
        with pytest.raises(DPMError, match=says) as error:
            refuse()
        assert str(path) in str(error.value) and next(iter(state)) in str(error.value)


@pytest.mark.parametrize(
    "rename, says",
    [
        (
            lambda tower: prefixed(tower, "model.net."),
            "'clip-tower': 29 of its 29 .* 'conv1.weight' is named 'model.net.c",
        ),
        (lambda tower: prefixed(tower, "module.vision."), "nearest known naming is 'clip-tower'"),
        (lambda tower: {"a.b": torch.zeros(1)}, "no name in it is that of a known ViT's tensor, the first is 'a.b'"),
    ],
)
def test_an_unknown_naming_is_refused_by_naming_the_nearest(saved, rename, says):
    path, model = saved(rename(clip_tower())), DPM(5, backbone=CLIP, stride=8, **TINY_SHAPE)
    for load in (lambda: load_pretrained(model.backbone, path), lambda: load_weights(model, path)):
        with pytest.raises(DPMError, match=says):
            load()


@pytest.mark.filterwarnings("ignore")  # torch's, that TorchScript is deprecated
def test_a_torchscript_file_is_refused_with_the_way_to_its_tensors(tmp_path):
    path = tmp_path / "ViT-B-16.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), path)
    with pytest.raises(DPMError, match=r"TorchScript program.*torch.save\(torch.jit.load\(FILE, 'cpu'\).state_dict"):
        load_weights(DPM(5, backbone=PLAIN, stride=8, **TINY_SHAPE), path)
