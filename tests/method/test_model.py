"""The assembled model and the mask generator."""

import pytest
import torch

import dpm_plugin
from dpm_plugin import DPMError, DPMLoss
from dpm_plugin.method.mask_generator import HierarchicalMaskGenerator, default_blocks
from dpm_plugin.torchreid_host import models
from helpers.model import batch, tiny_model

pytestmark = pytest.mark.torchreid


def test_every_parameter_gets_a_gradient_from_one_training_forward():
    model = tiny_model().train()
    torch.nn.init.normal_(model.mask_generator.linear.weight)  # at its zero start it passes no gradient on
    data = batch()
    DPMLoss()(model.heads(model.encode(data["img"], data["camid"])), data["pid"]).total.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@pytest.mark.parametrize("pool", ["avg", "max"])
def test_the_mask_starts_at_one_half_and_follows_equation_3(pool):
    torch.manual_seed(0)
    generator = HierarchicalMaskGenerator(6, num_maps=2, pool=pool).eval()
    maps = [torch.randn(3, 6, 9, 5) for _ in range(2)]
    assert (generator(maps) == 0.5).all()
    torch.nn.init.normal_(generator.linear.weight)
    x = torch.cat(maps, 1)
    x = torch.nn.functional.max_pool2d(generator.conv1(x), 2)
    x = generator.conv3(torch.nn.functional.max_pool2d(generator.conv2(x), 2)).flatten(2)
    pooled = x.mean(-1) if pool == "avg" else x.max(-1).values
    torch.testing.assert_close(generator(maps), torch.sigmoid(generator.linear(pooled)))


def test_the_gate_chooses_the_blocks():
    last_only = tiny_model(mask_blocks=(4,))
    assert last_only.mask_generator.conv1[0].in_channels == 24
    chosen = tiny_model(mask_blocks=(3, 1))
    assert chosen.mask_blocks == (1, 3) and chosen.mask_generator.conv1[0].in_channels == 48
    assert default_blocks(12) == (2, 4, 10, 12) and default_blocks(6) == (1, 2, 5, 6) and default_blocks(1) == (1,)
    for wrong in ((0, 1), (5,), (2, 2)):
        with pytest.raises(DPMError, match="between 1 and 4"):
            tiny_model(mask_blocks=wrong)


@pytest.mark.parametrize("img_size, stride", [((64, 32), 8), ((40, 24), 5), ((16, 8), 8), ((8, 8), 8)])
def test_any_image_size_and_stride_down_to_one_patch(img_size, stride):
    model = tiny_model(img_size=img_size, stride=stride).eval()
    with torch.inference_mode():
        output = model.embed(torch.randn(1, 3, *img_size))  # a batch of one keeps its axis
    assert output.mask.shape == output.cls.shape == output.embedding.shape == (1, 24)
    assert ((output.mask > 0) & (output.mask < 1)).all()


def test_embed_separates_before_and_after_the_neck():
    model = tiny_model().eval()
    model.neck.running_mean.fill_(0.3)
    with torch.inference_mode():
        output = model.embed(batch()["img"], need_heads=True)
        torch.testing.assert_close(output.embedding, model.neck(output.cls))
        torch.testing.assert_close(output.embedding, model(batch()["img"]))
        assert output.head_logits.shape == (8, 3, 8 * 4)
        bare = tiny_model(neck=False).eval().embed(batch()["img"])
    assert torch.equal(bare.cls, bare.embedding)


@pytest.mark.parametrize("init, std", [("normal", 0.02), ("xavier", (2 / (702 + 24)) ** 0.5)])
def test_the_prototypes_start_as_told(init, std):
    torch.manual_seed(0)
    weight = tiny_model(num_classes=702, prototype_init=init).classifier.weight.detach()
    assert float(weight.std()) == pytest.approx(std, rel=0.02)
    assert (weight.abs().max() <= 3**0.5 * std * 1.001) == (init == "xavier")  # uniform, hence bounded
    with pytest.raises(DPMError, match="normal or xavier"):
        tiny_model(prototype_init="zeros")


def test_the_necks_bias_is_no_parameter_so_no_engine_can_move_it():
    names = dict(tiny_model().named_parameters())
    assert "neck.weight" in names and "neck.bias" not in names and "neck.bias" in tiny_model().state_dict()


def test_torchreids_contract_for_stock_engines_and_actmaps():
    model = tiny_model(loss="triplet")
    images = batch()["img"]
    logits, features = model.train()(images)
    assert logits.shape == (8, 5) and features.shape == (8, 24)
    assert tiny_model(loss="softmax").train()(images).shape == (8, 5)
    with torch.inference_mode():
        output = model.eval()(images)
        assert output.dtype == torch.float32 and output.shape == (8, 24)
        assert model(images, return_featuremaps=True).shape == (8, 24, 8, 4)
    assert isinstance(model.classifier, torch.nn.Module)


def test_build_model_knows_every_variant_after_registering_twice(monkeypatch):
    monkeypatch.setenv("DPM_PRETRAINED", "none")
    dpm_plugin.register()
    dpm_plugin.register()
    for name in ("dpm_vit", "dpm_vit_small", "dpm_vit_tiny", "vit_baseline", "vit_baseline_small", "vit_baseline_tiny"):
        with torch.device("meta"):  # ViT-B without its memory
            model = models.build_model(name, num_classes=7, loss="triplet", pretrained=True, use_gpu=False)
        assert model.num_classes == 7 and model.has_mask == name.startswith("dpm")


def test_a_variants_typo_is_a_type_error_not_a_default():
    with pytest.raises(TypeError, match="strid"):
        dpm_plugin.dpm_vit_tiny(3, pretrained=False, strid=11)


def test_losses_engine_and_data_sets_are_torchreids():
    from torchreid import data, engine, losses

    for name in ("MaskedArcFace", "HeadEnrichLoss", "SoftMarginTripletLoss", "DPMLoss"):
        assert getattr(losses, name) is getattr(dpm_plugin, name)
    assert engine.ImageDPMEngine is dpm_plugin.ImageDPMEngine
    assert issubclass(dpm_plugin.ImageDPMEngine, engine.Engine) and data is not None
