"""tools/visualize.py: rankings as in the metric, maps where the patches lie."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dpm_plugin import DPMError, evaluate_rank
from dpm_plugin.apps.visualize.attribution import gradient_times_input, occlusion_sensitivity
from dpm_plugin.apps.visualize.heat_maps import PatchGrid, patch_grid
from dpm_plugin.apps.visualize.query_view import Viewer
from dpm_plugin.apps.visualize.ranking import Ranking, outcome, rank_gallery
from dpm_plugin.apps.visualize.visualize_run import choose_queries
from dpm_plugin.commands.visualize import main
from dpm_plugin.inference.run_extractor import Extractor
from dpm_plugin.method.mask_generator import HierarchicalMaskGenerator
from helpers.scripts import check_mistake
from helpers.visualized import QUERIES, evaluated_run


@pytest.fixture(scope="module")
def viewer(dpm_run):
    return Viewer(Extractor(dpm_run), channels=3)


def rows_of(folder):
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    return results["datasets"]["synthetic_occluded"]["rows"]


# ---- ranked galleries ----


@st.composite
def retrieval(draw):
    """(distances (G,), the query's pid and camid, (G,) pids, camids), with an image to find and ties."""
    count = draw(st.integers(3, 12))
    pids = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    camids = draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    target = draw(st.integers(0, count - 1))  # the image to find
    query = pids[target], (camids[target] + 1) % 3
    distance = draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=count, max_size=count))
    return np.array(distance, dtype=np.float32), query, np.array(pids), np.array(camids)


@settings(max_examples=60, deadline=None)
@given(retrieval())
def test_a_ranked_gallery_is_the_metrics_own(case):
    distance, (pid, camid), pids, camids = case
    ranking = rank_gallery(distance, pid, camid, pids, camids)
    kept = [g for g in range(len(pids)) if not (pids[g] == pid and camids[g] == camid)]
    expected = sorted(kept, key=lambda g: (distance[g], g))
    assert ranking.order.tolist() == expected
    assert ranking.right.tolist() == [pids[g] == pid for g in expected]
    assert ranking.similarity.tolist() == [1 - distance[g] for g in expected]
    cmc, mAP = evaluate_rank(distance[None], [pid], pids, [camid], camids, max_rank=len(pids), use_cython=False)
    assert ranking.average_precision == pytest.approx(mAP)
    assert cmc[ranking.first_match - 1] == 1 and cmc[: ranking.first_match - 1].sum() == 0
    assert [ranking.rank_of(g) for g in expected] == list(range(1, len(expected) + 1))


def ranking(*right):
    return Ranking(np.arange(len(right)), np.linspace(0.9, 0.1, len(right)), np.array(right, dtype=bool))


def test_the_mask_helps_or_hurts_by_the_average_precision():
    good, bad = ranking(1, 0, 1), ranking(0, 1, 1)
    assert [outcome(bad, good), outcome(good, bad), outcome(good, good)] == ["helped", "hurt", "same"]


@pytest.mark.parametrize("first, second, said", [(9, 10, "same"), (2, 3, "hurt"), (4, 3, "helped"), (40, 41, "same")])
def test_a_change_that_another_querys_mask_makes_as_well_neither_helps_nor_hurts(first, second, said):
    off, on = (ranking(*[0] * (rank - 1), 1) for rank in (first, second))  # APs of 1/9 and 1/10, 1/2 and 1/3, ...
    assert outcome(off, on) == said


def test_without_mask_or_positive_there_is_no_outcome():
    good, none = ranking(1, 0, 1), ranking(0, 0, 0)
    assert outcome(good, None) is None and outcome(none, none) is None
    assert none.first_match is None and none.average_precision is None


def test_the_rankings_of_all_queries_are_the_evaluation_of_the_run(viewer, dpm_run):
    views = [viewer.view(position) for position in range(QUERIES)]
    rows = rows_of(dpm_run)
    for name, side in (("after/off", "off"), ("after/on", "on")):
        found = [getattr(view, side) for view in views]
        assert np.mean([one.average_precision for one in found]) == pytest.approx(rows[name]["mAP"], abs=1e-6)
        rank1 = np.mean([one.first_match == 1 for one in found])
        assert rank1 == pytest.approx(rows[name]["rank1"], abs=1e-6)
    assert rows["after/on"]["mAP"] != rows["after/off"]["mAP"]  # the case tells the two apart
    assert {name: row.mAP for name, row in viewer.result.rows.items()} == pytest.approx(
        {name: row["mAP"] for name, row in rows.items()}, abs=1e-6
    )


def test_the_headlines_feature_is_the_one_that_is_ranked(dpm_run):
    folder = evaluated_run(dpm_run.parent, "dpm_vit_tiny", feature="before")
    before = Viewer(Extractor(folder), channels=1)
    mean = np.mean([before.view(position).on.average_precision for position in range(QUERIES)])
    assert mean == pytest.approx(rows_of(folder)["before/on"]["mAP"], abs=1e-6)


# ---- maps ----


def test_pixels_are_the_mean_of_the_patches_that_see_them(viewer):
    grid = patch_grid(viewer.run.model, (32, 16))
    assert grid.shape == (5, 2) and grid.patches == 10
    values = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    pixels = grid.mean(values)
    for y in range(32):
        for x in range(16):
            seen = [2 * i + j for i in range(5) for j in range(2) if 6 * i <= y < 6 * i + 8 and 6 * j <= x < 6 * j + 8]
            expected = values[:, seen].mean(dim=1) if seen else torch.full((3,), float("nan"))
            torch.testing.assert_close(pixels[:, y, x], expected, equal_nan=True)
    assert pixels[0].isnan().sum() == 32 * 2
    boxes = grid.boxes(torch.arange(10))
    assert boxes.flatten(1).sum(dim=1).tolist() == [64] * 10
    assert boxes[3, 6:14, 6:14].all() and torch.equal(grid.boxes(torch.tensor([3])), boxes[3:4])


def test_the_grid_is_that_of_the_models_patch_map(viewer):
    model = viewer.run.model
    for size in ((32, 16), (33, 40), (8, 8)):
        patch_map = model(torch.zeros(1, 3, *size), return_featuremaps=True)
        assert patch_map.shape[-2:] == patch_grid(model, size).shape


def test_attention_is_that_of_equation_5_laid_on_the_image(viewer):
    view = viewer.view(4)
    item, model = viewer.dataset[4], viewer.run.model
    camids = torch.tensor([item["camid"]])  # the model was trained on this data set, so its cameras are the model's
    with torch.no_grad():
        attention = model.backbone(item["img"][None], camids, need_heads=True).head_logits[0].softmax(dim=-1)  # (N, P)
    expected = patch_grid(model, (32, 16)).mean(attention).numpy()
    np.testing.assert_allclose(view.attention, expected, atol=1e-6)
    assert view.patches == 10 and view.attention.shape == (2, 32, 16)


def test_the_shown_channels_are_the_masks_highest(viewer):
    view, mask = viewer.view(2), viewer.query.mask
    best = sorted(range(mask.shape[1]), key=lambda channel: -mask[2, channel])[:3]
    assert [channel.number for channel in view.channels] == best
    for channel in view.channels:
        assert channel.value == pytest.approx(float(mask[2, channel.number]))
        assert channel.mean == pytest.approx(float(mask[:, channel.number].mean()))
        assert np.isfinite(channel.drivers[:, :14]).all() and np.ptp(channel.drivers[:, :14]) > 0


def test_occlusion_sensitivity_is_what_a_patch_gives_to_a_channel():
    grid = PatchGrid((4, 6), (2, 4), (2, 2))  # 2 x 2 patches, overlapping sideways
    image = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(5, 3 * 4 * 6, generator=torch.Generator().manual_seed(1))

    def logits_of(images):
        return images.flatten(1) @ weight.T

    drivers = occlusion_sensitivity(logits_of, image, grid, torch.tensor([4, 1]), batch_size=3)
    for k, channel in enumerate((4, 1)):
        for p, (top, left) in enumerate([(0, 0), (0, 2), (2, 0), (2, 2)]):
            covered = weight[channel].view(3, 4, 6)[:, top : top + 2, left : left + 4]
            expected = (covered * image[:, top : top + 2, left : left + 4]).sum()
            torch.testing.assert_close(drivers[k, p], expected, atol=1e-5, rtol=1e-5)


class LinearGenerator(torch.nn.Module):
    """A mask generator whose logits are linear in its maps: there a first-order account is exact."""

    def __init__(self, inputs, channels):
        super().__init__()
        self.linear = torch.nn.Linear(inputs, channels)

    def logits(self, patch_maps):
        return self.linear(torch.cat([one.flatten(1) for one in patch_maps], dim=1))


def test_gradient_times_input_of_a_linear_generator_sum_to_the_logits_distance_from_the_mean_map():
    torch.manual_seed(0)
    generator = LinearGenerator(2 * 4 * 6, 5)
    maps, means = [torch.randn(1, 4, 3, 2) for _ in range(2)], [torch.randn(4, 3, 2) for _ in range(2)]
    drivers = gradient_times_input(generator, maps, means, torch.tensor([3, 0]))
    assert drivers.shape == (2, 6)
    gap = generator.logits(maps) - generator.logits([mean[None] for mean in means])
    torch.testing.assert_close(drivers.sum(dim=1), gap[0, [3, 0]], atol=1e-5, rtol=1e-5)
    replaced = [one.clone() for one in maps]
    for one, mean in zip(replaced, means):
        one[0, :, 1, 0] = mean[:, 1, 0]  # patch 2
    fall = generator.logits(maps) - generator.logits(replaced)
    torch.testing.assert_close(drivers[:, 2], fall[0, [3, 0]], atol=1e-5, rtol=1e-5)


def test_gradients_are_left_on_no_parameter_and_the_logits_are_the_masks_own():
    generator = HierarchicalMaskGenerator(4, 2).eval()
    torch.nn.init.normal_(generator.linear.weight)
    maps = [torch.randn(1, 4, 3, 2) for _ in range(2)]
    gradient_times_input(generator, maps, [one[0] for one in maps], torch.tensor([1]))
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert not generator.linear._forward_hooks
    torch.testing.assert_close(generator.logits(maps).sigmoid(), generator(maps))


def test_gradient_times_input_is_drawn_too(dpm_run):
    view = Viewer(Extractor(dpm_run), channels=2, drivers="gradient").view(0)
    assert all(np.ptp(channel.drivers[:, :14]) > 0 for channel in view.channels)


# ---- choices and mistakes ----


def test_queries_are_chosen_evenly_by_number_or_by_name():
    paths = ["/d/001/a.jpg", "/d/002/a.jpg", "/d/002/b.jpg", "/d/003/7.jpg"]
    assert choose_queries(paths, 2) == [0, 2] and choose_queries(paths, 99) == [0, 1, 2, 3]
    assert choose_queries(paths, ["a.jpg"]) == [0, 1]
    assert choose_queries(paths, ["b", "002/a.jpg", "b.jpg"]) == [2, 1]
    with pytest.raises(DPMError, match="'c.jpg'.*nearest.*'[ab].jpg'"):
        choose_queries(paths, ["c.jpg"])
    for wrong in (0, -1, []):
        with pytest.raises(DPMError):
            choose_queries(paths, wrong)


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (["{gone}"], "no finished run"),
        (["{run}", "--queries", "nobody.jpg"], "nobody.jpg"),
        (["{run}", "--queries", "0"], "at least 1"),
        (["{run}", "--topk", "0"], "topk"),
        (["{run}", "--channels", "0"], "channels"),
        (["{run}", "--target", "market1501"], "synthetic_occluded"),
        (["{run}", "--device", "abacus"], "device 'abacus'"),
        (["{run}", "--queries", "1", "--out", "{run}/results.json"], "results.json"),
        (["{run}", "--drivers", "guess"], "guess"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(dpm_run, capsys, arguments, expected):
    names = {"run": dpm_run, "gone": dpm_run / "gone"}
    check_mistake(main, [argument.format(**names) for argument in arguments], capsys, expected)
