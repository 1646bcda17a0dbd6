"""Figures 3 and 4 against naive loops over one image and two patches at a time."""

import math
import statistics
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.functional import normalize, resize, to_tensor

from dpm_plugin import DPMError, HeadEnrichLoss
from dpm_plugin.inference.run_extractor import evenly_spaced
from experiments.reproduce.attention import attention_correlation, patch_similarity
from experiments.reproduce.attention_report import figure3, figure4
from helpers.reproduce import read_csv
from helpers.runs import finished_run


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))


def naive_correlation(logits):
    """(N, P) logits of one image -> N x N."""
    maps = []
    for row in logits.double().tolist():
        total = sum(math.exp(value) for value in row)
        maps.append([math.exp(value) / total for value in row])
    return [[cosine(a, b) for b in maps] for a in maps]


def naive_similarities(patch_map):
    """(C, h, w) of one image -> cosines of all pairs of different patches."""
    _, height, width = patch_map.shape
    patches = [patch_map[:, y, x].double().tolist() for y in range(height) for x in range(width)]
    return [cosine(a, b) for i, a in enumerate(patches) for b in patches[i + 1 :]]


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), batch=st.integers(1, 3), heads=st.integers(1, 5), patches=st.integers(1, 12))
def test_the_head_correlation_is_the_naive_cosine_of_attention_maps(seed, batch, heads, patches):
    logits = 2 * torch.randn(batch, heads, patches, generator=torch.Generator().manual_seed(seed))
    for got, image in zip(attention_correlation(logits), logits):
        assert got.tolist() == [pytest.approx(row, abs=1e-5) for row in naive_correlation(image)]


def test_the_head_correlation_is_the_matrix_that_the_head_enrich_loss_pulls_to_the_identity():
    logits = torch.randn(4, 3, 7)
    distance = (attention_correlation(logits) - torch.eye(3)).square().sum(dim=(1, 2)).mean()
    assert distance.item() == pytest.approx(HeadEnrichLoss()(logits).item(), rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), channels=st.integers(1, 6), height=st.integers(1, 4), width=st.integers(2, 4))
def test_patch_similarity_is_the_range_of_the_naive_pairs(seed, channels, height, width):
    maps = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(seed))
    for low, high, image in zip(*patch_similarity(maps), maps):
        expected = naive_similarities(image)
        assert low.item() == pytest.approx(min(expected), abs=1e-5)
        assert high.item() == pytest.approx(max(expected), abs=1e-5)


def test_evenly_spaced_starts_at_the_first_and_never_repeats():
    assert evenly_spaced(10, 4) == [0, 2, 5, 7]
    assert evenly_spaced(3, 200) == [0, 1, 2]
    with pytest.raises(DPMError, match="at least 1, got 0"):
        evenly_spaced(3, 0)


# ---- the figures of a run ----


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def without(root, tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("without") / "run", root, loss__dpm__beta=0)


def queries(root):
    """The query files, sorted, with their 0-based cameras."""
    paths = sorted(Path(root).glob("synthetic_occluded/*/query/*.jpg"))
    return [(path, int(path.name.split("_c")[1][0]) - 1) for path in paths]


def encode(run, path, camera):
    """One image through the trained model, read and scaled by hand."""
    _, model, config = run
    pixels = to_tensor(resize(Image.open(path).convert("RGB"), [32, 16]))
    image = normalize(pixels, config.data.norm_mean, config.data.norm_std)
    with torch.no_grad():
        return model.backbone(image[None], torch.tensor([camera]), blocks=(1, 2), need_heads=True)


@pytest.fixture(scope="module")
def drawn3(without, root, tmp_path_factory):
    out = tmp_path_factory.mktemp("figures") / "new" / "folder"
    return figure3(without[0], out, root=root), out


def test_figure3_shows_the_first_query_and_the_mean_over_all(drawn3, without, root):
    numbers, _ = drawn3
    files = queries(root)
    matrices = [naive_correlation(encode(without, *file).head_logits[0]) for file in files]
    assert numbers["image"] == files[0][0].name and numbers["images"] == len(files) == 8
    assert numbers["setting"] == "without HEM"
    assert numbers["one"] == [pytest.approx(row, abs=1e-5) for row in matrices[0]]
    mean = [[sum(m[i][j] for m in matrices) / 8 for j in range(2)] for i in range(2)]
    assert numbers["mean"] == [pytest.approx(row, abs=1e-5) for row in mean]
    off = [m[0][1] for m in matrices]
    assert numbers["off_diagonal"]["mean"] == pytest.approx(statistics.mean(off), abs=1e-5)
    assert numbers["off_diagonal"]["std"] == pytest.approx(statistics.pstdev(off), abs=1e-5)


def test_figure3_gives_the_gap_of_every_block_averaged_over_the_images(drawn3, without, root):
    numbers, _ = drawn3
    assert [block["block"] for block in numbers["blocks"]] == [1, 2]
    for position, block in enumerate(numbers["blocks"]):
        pairs = [naive_similarities(encode(without, *file).patch_maps[position][0]) for file in queries(root)]
        gaps = [1 - min(values) for values in pairs]
        assert block["gap"] == pytest.approx(statistics.mean(gaps), abs=1e-4)
        assert block["gap_std"] == pytest.approx(statistics.pstdev(gaps), abs=1e-4)
        assert block["largest"] == pytest.approx(sum(map(max, pairs)) / 8, abs=1e-4)


def test_figure3_writes_a_plot_a_table_and_every_number(drawn3):
    numbers, out = drawn3
    with Image.open(out / "figure3.png") as plot:
        assert plot.width > 1000
    rows = read_csv(out / "figure3.csv")
    means = [float(row["value"]) for row in rows if row["quantity"] == "correlation, mean"]
    assert means == pytest.approx([value for line in numbers["mean"] for value in line])
    gaps = [float(row["value"]) for row in rows if row["quantity"] == "gap"]
    assert gaps == pytest.approx([block["gap"] for block in numbers["blocks"]])
    text = (out / "figure3.md").read_text(encoding="utf-8")
    assert f"| without HEM | {numbers['off_diagonal']['one']:.3f} |" in text and str(out) not in text


def test_figure4_compares_two_runs_on_the_same_images(without, root, tmp_path):
    full, out = finished_run(tmp_path / "run", root, loss__dpm__beta=0.5, train__seed=2), tmp_path / "out"
    numbers = figure4(without[0], full[0], out, root=root, images=3)
    file = queries(root)[0]
    for name, run, setting in (("without", without, "without HEM"), ("with", full, "with HEM (β = 0.5)")):
        expected = naive_correlation(encode(run, *file).head_logits[0])
        assert numbers[name]["one"] == [pytest.approx(row, abs=1e-5) for row in expected]
        assert (numbers[name]["setting"], numbers[name]["images"]) == (setting, 3)
        assert numbers[name]["image"] == file[0].name
    assert {path.name for path in out.iterdir()} == {"figure4.png", "figure4.csv", "figure4.md"}


def test_figure4_refuses_runs_on_different_images(without, root, tmp_path):
    other = finished_run(tmp_path / "run", tmp_path / "data", synthetic__seed=9)
    with pytest.raises(DPMError, match="were tested on different queries"):
        figure4(without[0], other[0], tmp_path / "out", root=None)


def test_mistakes_are_one_clear_error(without, root, tmp_path):
    with pytest.raises(DPMError, match="is no finished run"):
        figure3(tmp_path, tmp_path / "out", root=root)
    with pytest.raises(DPMError, match="at least 1, got 0"):
        figure3(without[0], tmp_path / "out", root=root, images=0)
    (tmp_path / "file").touch()
    with pytest.raises(DPMError, match="file' cannot be written: .*; name another output folder"):
        figure3(without[0], tmp_path / "file", root=root, images=1)
