"""Part features: stripes are means by share, the mask of a stripe sees that stripe, and all that DPM does they do."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import dpm_plugin
from dpm_plugin import DPMError, DPMLoss
from dpm_plugin.engine.grad_cache import encode_with_cache
from dpm_plugin.inference.export import RetrievalGraph
from dpm_plugin.method.mask_generator import HierarchicalMaskGenerator
from dpm_plugin.method.part_features import PartFeatures, part_masks, stripe_means
from dpm_plugin.method.two_steps import Step
from dpm_plugin.torchreid_host import models
from dpm_plugin.weights.load import load_weights
from helpers.model import batch, engine_for, tiny_model

pytestmark = pytest.mark.torchreid
PARTS = 3


@given(rows=st.integers(1, 25), columns=st.integers(1, 4), parts=st.integers(1, 12))
def test_a_stripe_is_the_mean_of_what_lies_in_it_rows_on_its_edge_by_their_share(rows, columns, parts):
    maps = torch.randn(2, 3, rows, columns)
    fine = maps.repeat_interleave(parts, dim=2)  # each row in as many pieces, so that no piece lies on an edge
    expected = [fine[:, :, rows * part : rows * (part + 1)].mean(dim=(2, 3)) for part in range(parts)]
    torch.testing.assert_close(stripe_means(maps, parts), torch.stack(expected, dim=1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("part_dim", [0, 4, 6])
def test_a_part_feature_is_the_projected_layer_norm_of_its_stripes_mean(part_dim):
    features = PartFeatures(6, PARTS, part_dim)
    torch.nn.init.normal_(features.norm.weight)
    torch.nn.init.normal_(features.norm.bias)
    last_map = torch.randn(2, 6, 9, 5)
    expected = []
    for image in last_map:
        for part in range(PARTS):
            mean = image[:, 3 * part : 3 * part + 3].mean(dim=(1, 2))
            normed = (mean - mean.mean()) / (mean.var(correction=0) + 1e-6).sqrt()
            normed = normed * features.norm.weight + features.norm.bias
            expected.append(normed if part_dim == 6 else features.projection[part].T @ normed)
    torch.testing.assert_close(features(last_map), torch.cat(expected).reshape(2, -1))
    assert features.width == PARTS * (part_dim or 3)


def test_each_stripes_mask_comes_from_the_maps_in_it_and_starts_at_one_half():
    torch.manual_seed(0)
    generator = HierarchicalMaskGenerator(6, num_maps=2, parts=PARTS, part_dim=4).eval()
    maps = [torch.randn(2, 6, 9, 5) for _ in range(2)]
    assert (generator(maps) == 0.5).all() and generator(maps).shape == (2, 6 + PARTS * 4)
    for linear in (generator.linear, generator.part_linear):
        torch.nn.init.normal_(linear.weight)
    x = torch.nn.functional.max_pool2d(generator.conv1(torch.cat(maps, dim=1)), (1, 2))  # all rows stay
    x = generator.conv3(torch.nn.functional.max_pool2d(generator.conv2(x), (1, 2)))
    parts = [generator.part_linear(x[:, :, 3 * part : 3 * part + 3].mean(dim=(2, 3))) for part in range(PARTS)]
    expected = torch.cat([generator.linear(x.mean(dim=(2, 3))), *parts], dim=1).sigmoid()
    torch.testing.assert_close(generator(maps), expected)


@given(images=st.integers(0, 4), dim=st.integers(1, 5), parts=st.integers(1, 6), part_dim=st.integers(1, 4))
def test_a_parts_mask_is_the_mean_of_its_own_channels(images, dim, parts, part_dim):
    mask = torch.rand(images, dim + parts * part_dim)
    found = part_masks(mask, dim, parts)
    assert found.shape == (images, parts)
    for image in range(images):
        for part in range(parts):
            channels = [mask[image, dim + part * part_dim + channel] for channel in range(part_dim)]
            torch.testing.assert_close(found[image, part], sum(channels) / part_dim)


def test_without_parts_nothing_of_the_papers_model_changes():
    plain = tiny_model()
    assert plain.part_features is None and plain.map_blocks == plain.mask_blocks and plain.feature_dim == 24
    assert not [name for name in plain.state_dict() if "part" in name]


def test_every_parameter_is_trained_and_the_two_steps_share_them_out():
    model = tiny_model(parts=PARTS, part_dim=8)
    for linear in (model.mask_generator.linear, model.mask_generator.part_linear):
        torch.nn.init.normal_(linear.weight)  # at its zero start it passes no gradient on
    before = copy.deepcopy(model.state_dict())
    engine = engine_for(model)
    main, mask = ({id(parameter) for parameter in engine.two_steps.parts[part]} for part in ("main", "mask"))
    assert mask == {id(parameter) for parameter in model.mask_generator.parameters()}
    assert main == {id(parameter) for parameter in model.parameters()} - mask
    engine.iterate(batch())
    assert not [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])]


@pytest.mark.parametrize("mask_blocks", [(1, 4), (1, 3), ()])
def test_shapes_hold_from_training_to_retrieval_whether_or_not_the_mask_sees_the_last_block(mask_blocks):
    model = tiny_model(parts=PARTS, part_dim=8, mask_blocks=mask_blocks, loss="triplet")
    data, width = batch(), 24 + PARTS * 8
    logits, features = model.train()(data["img"], data["camid"])
    assert logits.shape == (8, 5) and features.shape == (8, width) == (8, model.feature_dim)
    output = model.heads(model.encode(data["img"], data["camid"]))
    assert DPMLoss()(output, data["pid"]).total.isfinite() and output.prototypes.shape == (5, width)
    with torch.inference_mode():
        found = model.eval().embed(data["img"], data["camid"])
        assert found.cls.shape == found.embedding.shape == (8, width)
        assert model(data["img"], return_featuremaps=True).shape == (8, 24, 8, 4)
        torch.testing.assert_close(model(data["img"], data["camid"]), found.embedding)
        if mask_blocks:
            assert found.mask.shape == (8, width)
            graph = RetrievalGraph(model)(data["img"])
            assert [tuple(out.shape) for out in graph] == [(8, width)] * 2
        else:
            assert found.mask is None


def test_a_hidden_stripe_changes_its_own_part_most():
    torch.manual_seed(0)
    features = PartFeatures(24, PARTS)
    last_map = torch.randn(1, 24, 9, 4)
    changed = last_map.clone()
    changed[:, :, 3:6] = 0.3
    moved = (features(changed) - features(last_map)).reshape(PARTS, 12).norm(dim=1)
    assert moved[1] > 1 and moved[0] == moved[2] == 0


def test_the_gradient_cache_splits_a_batch_with_parts():
    torch.manual_seed(0)
    model = tiny_model(parts=PARTS).train()
    data = batch()
    whole = model.encode(data["img"], data["camid"])
    split = encode_with_cache(model.encode, 3, data["img"], data["camid"])
    for got, expected in zip(split.patch_maps, whole.patch_maps, strict=True):
        torch.testing.assert_close(got, expected)


def test_a_dpm_checkpoint_fills_all_but_what_parts_add(tmp_path, capsys):
    plain, parts = tiny_model(), tiny_model(parts=PARTS)
    torch.save({"state_dict": plain.state_dict()}, tmp_path / "dpm.pth")
    report = load_weights(parts, tmp_path / "dpm.pth")
    added = {f"part_features.{name}" for name in ("norm.weight", "norm.bias", "projection")}
    added |= {f"mask_generator.part_linear.{name}" for name in ("weight", "bias")}
    assert set(report.missing) == added
    wider = {name for name in parts.state_dict() if name.startswith(("neck.", "classifier."))} - {
        "neck.num_batches_tracked"
    }
    assert set(report.skipped) == wider
    torch.testing.assert_close(parts.mask_generator.conv1[0].weight, plain.mask_generator.conv1[0].weight)


def test_the_variants_have_six_parts_unless_told_otherwise_and_a_baseline_may_have_them(monkeypatch):
    monkeypatch.setenv("DPM_PRETRAINED", "none")
    dpm_plugin.register()
    for name, dim in (("dpm_vit_parts", 768), ("dpm_vit_parts_small", 384), ("dpm_vit_parts_tiny", 192)):
        with torch.device("meta"):
            model = models.build_model(name, num_classes=7, loss="triplet", pretrained=True, use_gpu=False)
            fewer = getattr(dpm_plugin, name)(7, pretrained=False, parts=4, part_dim=16)
        assert (
            model.part_features.parts == 6 and model.has_mask and model.classifier.weight.shape[1] == model.feature_dim
        )
        assert fewer.feature_dim == dim + 4 * 16
    baseline = dpm_plugin.vit_baseline_tiny(7, pretrained=False, parts=2)
    assert not baseline.has_mask and baseline.feature_dim == 192 * 2


def test_a_width_of_parts_without_parts_is_refused():
    with pytest.raises(DPMError, match="part_dim 16 would be ignored"):
        tiny_model(part_dim=16)


def test_step_two_leaves_the_part_features_alone():
    model = tiny_model(parts=PARTS)
    engine = engine_for(model, [batch()])
    engine.two_steps.begin(Step(main=False, mask=True))
    assert not any(p.requires_grad for p in model.part_features.parameters())
    assert all(p.requires_grad for p in model.mask_generator.parameters())
