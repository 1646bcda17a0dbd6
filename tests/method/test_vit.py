"""Eq. 1, 2 and 5 on timm's ViT."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpm_plugin import DPMError
from dpm_plugin.method.vit import ViT

pytestmark = pytest.mark.torchreid

SMALL = dict(embed_dim=24, depth=2, num_heads=3)


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(16, 70), width=st.integers(16, 50), vertical=st.integers(3, 20), horizontal=st.integers(3, 20)
)
def test_the_grid_is_equation_1_for_any_size_and_stride(height, width, vertical, horizontal):
    vit = ViT("vit_tiny_patch16_224", img_size=(height, width), stride=(vertical, horizontal), **SMALL)
    expected = ((height - 16 + vertical) // vertical, (width - 16 + horizontal) // horizontal)
    patch_map = vit(torch.zeros(1, 3, height, width), blocks=(1,)).patch_maps[0]
    assert patch_map.shape == (1, 24, *expected)
    assert vit.transformer.pos_embed.shape[1] == expected[0] * expected[1] + 1


@pytest.mark.parametrize("stride, grid", [(11, (22, 11)), (12, (21, 10)), (16, (16, 8))])
def test_the_papers_grids(stride, grid):
    with torch.device("meta"):
        vit = ViT("vit_base_patch16_224", stride=stride)
    assert vit.transformer.patch_embed.grid_size == grid


def test_without_overlap_and_cameras_it_is_timms_own_forward():
    torch.manual_seed(0)
    vit = ViT("vit_tiny_patch16_224", img_size=(64, 32), stride=16, **SMALL).eval()
    plain = timm.create_model("vit_tiny_patch16_224", img_size=(64, 32), num_classes=0, **SMALL).eval()
    plain.load_state_dict(vit.transformer.state_dict())
    images = torch.randn(2, 3, 64, 32)
    with torch.inference_mode():
        output = vit(images, blocks=(1, 2), need_heads=True)
        torch.testing.assert_close(output.cls, plain(images))
        maps = plain.forward_intermediates(images, indices=[0, 1], intermediates_only=True)
    for got, expected in zip(output.patch_maps, maps):
        torch.testing.assert_close(got, expected)


def test_head_logits_are_the_last_blocks_scaled_products():
    torch.manual_seed(0)
    vit = ViT("vit_tiny_patch16_224", img_size=(64, 32), stride=16, **SMALL).eval()
    seen = {}
    attention = vit.transformer.blocks[-1].attn
    attention.qkv.register_forward_hook(lambda module, args, out: seen.update(qkv=out))
    with torch.inference_mode():
        logits = vit(torch.randn(2, 3, 64, 32), need_heads=True).head_logits
    for image in range(2):
        for head in range(3):
            query = seen["qkv"][image, 0, head * 8 : (head + 1) * 8]
            for patch in range(8):
                key = seen["qkv"][image, 1 + patch, 24 + head * 8 : 24 + (head + 1) * 8]
                assert logits[image, head, patch].item() == pytest.approx((query @ key).item() / 8**0.5, abs=1e-5)


def test_cameras_shift_every_token_by_lambda_c_and_unknown_ones_get_the_mean():
    torch.manual_seed(0)
    vit = ViT("vit_tiny_patch16_224", img_size=(64, 32), num_cameras=3, camera_weight=2.5, **SMALL).eval()
    seen = []
    vit.transformer.blocks[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    images = torch.randn(1, 3, 64, 32).expand(6, -1, -1, -1)
    with torch.inference_mode():
        vit(images, torch.tensor([0, 1, 2, 3, -1, 99]))
        vit(images)
    table = vit.camera_embedding.detach()
    shift = seen[0] - seen[0][:1]
    for camera in (1, 2):
        expected = 2.5 * (table[camera] - table[0])
        torch.testing.assert_close(shift[camera], expected.expand_as(shift[camera]), atol=1e-5, rtol=1e-4)
    for unknown in (3, 4, 5):
        expected = 2.5 * (table.mean(0) - table[0])
        torch.testing.assert_close(shift[unknown], expected.expand_as(shift[unknown]), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(seen[1], seen[0][3:4].expand(6, -1, -1))


def test_other_image_sizes_work_at_run_time():
    vit = ViT("vit_tiny_patch16_224", img_size=(64, 32), stride=8, **SMALL).eval()
    with torch.inference_mode():
        assert vit(torch.zeros(1, 3, 96, 48), blocks=(2,)).patch_maps[0].shape == (1, 24, 11, 5)
        with pytest.raises(DPMError, match="smaller than one patch"):
            vit(torch.zeros(1, 3, 12, 32))


@pytest.mark.parametrize(
    "backbone, dim",
    [
        ("vit_small_patch16_224", 384),
        ("vit_small_patch14_dinov2", 384),
        ("vit_small_patch14_reg4_dinov2", 384),
        ("vit_base_patch16_clip_224", 768),
        ("vit_base_patch16_clip_quickgelu_224", 768),
        ("deit_tiny_patch16_224", 192),
        ("deit_tiny_distilled_patch16_224", 192),
        ("vit_large_patch14_clip_224", 1024),
    ],
)
def test_any_timm_vit_with_a_class_token_is_a_backbone(backbone, dim):
    with torch.device("meta"):  # full size without its memory
        vit = ViT(backbone, img_size=(112, 56), stride=10, num_cameras=2)
        output = vit(torch.empty(2, 3, 112, 56), torch.zeros(2, dtype=torch.long), blocks=(1,), need_heads=True)
    assert output.cls.shape == (2, dim)
    assert output.head_logits.shape[-1] == output.patch_maps[0].shape[-2:].numel()


@pytest.mark.parametrize(
    "backbone, reason",
    [
        ("resnet18", "ResNet"),
        ("swin_tiny_patch4_window7_224", "SwinTransformer"),
        ("vit_base_patch16_siglip_224", "no class token"),
        ("vit_base_patch16_xp_224", "class token|blocks are"),
        ("vit_small_r26_s32_224", "HybridEmbed"),
        ("vit_tinny_patch16", "no model 'vit_tinny_patch16'"),
    ],
)
def test_an_unsupported_backbone_is_an_error_that_says_why(backbone, reason):
    with pytest.raises(DPMError, match=reason):
        ViT(backbone)


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(DPMError, match="not divisible"):
        ViT("vit_tiny_patch16_224", embed_dim=32, num_heads=3)
    with pytest.raises(DPMError, match="smaller than the"):
        ViT("vit_tiny_patch16_224", img_size=(64, 8))
    with pytest.raises(DPMError, match="stride"):
        ViT("vit_tiny_patch16_224", stride=-1)
