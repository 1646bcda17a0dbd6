"""How much each part of a query counts: the numbers, what is drawn of them, and the index that they are measured by."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from search import main

from dpm_plugin import DPMError, DPMExtractor
from dpm_plugin.apps.image_index.fingerprint import describe
from dpm_plugin.apps.image_index.indexing import index_images
from dpm_plugin.apps.image_index.searching import search
from dpm_plugin.apps.image_index.store import FOLDER, read_index
from dpm_plugin.apps.query_page import Article, Panel, Tile, parts_panel, percentages
from dpm_plugin.apps.visualize import png, visualize_run
from dpm_plugin.apps.visualize.png import draw_article
from dpm_plugin.apps.visualize.query_view import Viewer
from dpm_plugin.inference.run_extractor import Extractor
from helpers.images import draw_noise
from helpers.page import Tags
from helpers.runs import untrained_run
from helpers.visualized import QUERIES, evaluated_run

pytestmark = pytest.mark.torchreid
DIM = 16  # of a token, in these tiny models
TITLE = "What the mask counts"


def mean_masks(masks, parts, width):
    """The formula as a loop: (n, parts)."""
    channels = [range(DIM + part * width, DIM + (part + 1) * width) for part in range(parts)]
    return np.array([[np.mean([float(mask[each]) for each in own]) for own in channels] for mask in masks])


def expected_weights(masks, gallery, parts, width):
    return mean_masks(masks, parts, width) / mean_masks(gallery, parts, width).mean(axis=0)


# ---- visualize ----


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("parts")


@pytest.fixture(scope="module")
def trained(root):
    return evaluated_run(root, "dpm_vit_parts_tiny", vit__parts=3, vit__part_dim=4)


@pytest.fixture(scope="module")
def viewer(trained):
    return Viewer(Extractor(trained), channels=DIM + 3 * 4, drivers="gradient")


def test_a_querys_parts_count_relative_to_their_mean_in_the_gallery(viewer):
    found = np.array([viewer.view(position).parts for position in range(QUERIES)])
    expected = expected_weights(viewer.query.mask, viewer.gallery.mask, 3, 4)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.ptp(found, axis=0).min() > 0.01  # the case tells queries apart


def test_a_channel_is_named_by_its_place_in_its_part(viewer):
    channels = viewer.view(1).channels
    for each in channels:
        place = each.number if each.part is None else DIM + 4 * (each.part - 1) + each.number
        assert each.value == float(viewer.query.mask[1, place])
    named = {(each.part, each.number) for each in channels}
    assert named == {(None, n) for n in range(DIM)} | {(part, n) for part in (1, 2, 3) for n in range(4)}


@pytest.mark.slow
def test_the_page_shows_the_parts_beside_the_query(viewer, trained, root):
    index = visualize_run(trained, root / "page", queries=2, topk=2, channels=DIM + 3 * 4, drivers="gradient")
    parsed = Tags(index.read_text(encoding="utf-8"))
    assert parsed.texts["h3"][:3] == ["Query", TITLE, "The mask's highest channels"]
    shown = [viewer.view(position) for position in (0, QUERIES // 2)]
    captions = parsed.texts["figcaption"]
    assert all(percentages(view.parts) in captions for view in shown)
    names = {caption.split(":")[0] for caption in captions}
    assert {"channel 15", "part 1, channel 0", "part 3, channel 3"} <= names and "part 4, channel 0" not in names
    assert len(list(index.parent.glob("*.png"))) == 2


def test_without_masks_nothing_is_said_of_parts(root):
    run = evaluated_run(root, "vit_baseline_tiny", vit__parts=3)
    assert Viewer(Extractor(run)).view(0).parts == ()
    assert "parts" not in describe(DPMExtractor(run, device="cpu"))


@given(weights=st.lists(st.floats(0, 3), min_size=1, max_size=8), height=st.integers(8, 60))
def test_a_stripe_is_as_dark_as_it_counts_less(weights, height):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, 70, 3), dtype=np.uint8))
    panel = parts_panel(image, weights)
    (tile,) = panel.tiles
    assert tile.image.size == image.size and tile.caption.split(", ") == [f"{weight:.0%}" for weight in weights]
    right = np.s_[:, 45:]  # the shares are written at the left
    before, after = (np.asarray(each)[right].astype(float) for each in (image, tile.image))
    grey = np.asarray(image.convert("L"))[right].astype(float)[..., None]
    for row in range(height):
        share = min(1, weights[row * len(weights) // height])
        expected = share * before[row] + (1 - share) * 0.12 * grey[row]
        assert np.abs(after[row] - expected).max() < 2


def test_a_png_has_the_parts_beside_the_query():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (192, 96, 3), dtype=np.uint8))
    panel, facts = parts_panel(noise, (1, 0.3, 0)), ["identity 5"]
    panels = [Panel("query", "Query", [Tile(noise, "a")]), panel, Panel("maps", "Maps", [Tile(noise, "b")])]
    drawn = draw_article(Article(1, "a.jpg", facts, panels, []))
    assert drawn.height == png.GAP + 2 * (png.GAP + png.TITLE + png.CAPTION + 192)
    top, step = png.GAP + png.TITLE + png.CAPTION, png.TILE + png.GAP
    for column, image in enumerate((noise, panel.tiles[0].image)):
        left = png.GAP + column * step
        assert drawn.crop((left, top, left + 96, top + 192)).tobytes() == image.tobytes()
    above = np.asarray(drawn.crop((png.GAP + step, png.GAP + png.TITLE, 900, top)))
    right = np.asarray(drawn.crop((png.GAP + 2 * step, top, 900, top + 192)))
    assert above.min() < 50 and right.min() < 50  # the panel's title and shares; the facts


# ---- search ----


@pytest.fixture(scope="module")
def extractor(root):
    folder, *_ = untrained_run(root / "run", model__name="dpm_vit_parts_tiny", vit__parts=3, vit__part_dim=4)
    return DPMExtractor(folder, device="cpu", batch_size=2)


def update(images, extractor, folder=None):
    return index_images(images, extractor, describe(extractor), folder)


def check(index, extractor):
    masks = extractor([index.root / path for path in index.paths]).mask
    np.testing.assert_allclose(index.part_masks, mean_masks(masks, 3, 4), atol=1e-5)
    assert len(index.part_masks) == len(index.embedding) == len(index.paths)


def test_an_index_keeps_the_part_masks_of_its_images_through_an_interruption_changes_and_removal(
    tmp_path, extractor, monkeypatch
):
    for number in range(5):
        draw_noise(tmp_path / f"{number}.png", number)
    calls, own = [], DPMExtractor.__call__

    def interrupted(self, images, cameras=None):
        calls.append(images)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return own(self, images, cameras)

    monkeypatch.setattr(DPMExtractor, "__call__", interrupted)
    with pytest.raises(KeyboardInterrupt):
        update(tmp_path, extractor)
    index = read_index(tmp_path)
    assert index.paths == ["0.png", "1.png", "2.png", "3.png"] and len(index.batches) == 2
    check(index, extractor)
    assert update(tmp_path, extractor).embedded == 1
    check(read_index(tmp_path), extractor)
    (tmp_path / "2.png").unlink()
    draw_noise(tmp_path / "1.png", 101)
    draw_noise(tmp_path / "0a.png", 102)
    assert update(tmp_path, extractor)[1:4] == (5, 2, 1)
    index = read_index(tmp_path)
    assert index.paths == ["0.png", "0a.png", "1.png", "3.png", "4.png"] and not index.batches
    check(index, extractor)


def features_file(folder):
    (path,) = (folder / FOLDER).glob("features-*")
    return path


def without_parts(folder):
    """Make an index what a version without part masks wrote."""
    path = features_file(folder)
    save_file({"embedding": load_file(path)["embedding"]}, path)
    content = json.loads((folder / FOLDER / "index.json").read_text(encoding="utf-8"))
    assert content["model"].pop("parts") == 3
    (folder / FOLDER / "index.json").write_text(json.dumps(content), encoding="utf-8")


def test_an_index_without_part_masks_still_opens_grows_and_is_searched(tmp_path, extractor):
    draw_noise(tmp_path / "a.png", 1)
    update(tmp_path, extractor)
    without_parts(tmp_path)
    draw_noise(tmp_path / "b.png", 2)
    assert update(tmp_path, extractor).embedded == 1
    index = read_index(tmp_path)
    assert index.part_masks is None and len(index.paths) == 2
    (answer,), _ = search([tmp_path / "a.png"], index, extractor)
    assert answer.parts == () and answer.lists["mask on"][0].name == "a.png"


@pytest.mark.parametrize(
    "harm",
    [
        lambda tensors: tensors.pop("part_masks"),
        lambda tensors: tensors.update(part_masks=torch.ones(1, 3)),
        lambda tensors: tensors.update(part_masks=torch.ones(2, 4)),
        lambda tensors: tensors["part_masks"].fill_(float("nan")),
    ],
)
def test_damaged_part_masks_are_one_line(tmp_path, extractor, harm):
    for number in range(2):
        draw_noise(tmp_path / f"{number}.png", number)
    update(tmp_path, extractor)
    path = features_file(tmp_path)
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    harm(tensors)
    save_file(tensors, path)
    with pytest.raises(DPMError, match="index '.*is damaged") as caught:
        read_index(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_search_says_on_screen_as_json_and_on_the_page_how_much_each_part_counts(tmp_path, extractor, root, capsys):
    for number in range(7):
        draw_noise(tmp_path / "images" / f"{number}.png", number)
    queries = [tmp_path / f"{number}.png" for number in (20, 21)]
    for number, path in enumerate(queries, start=20):
        draw_noise(path, number)
    options = ["--device", "cpu", "--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
    assert main(["index", str(tmp_path / "images"), "--model", str(root / "run"), "--device", "cpu"]) == 0
    assert main(["query", *map(str, queries), "--index", str(tmp_path / "images"), *options]) == 0
    gallery = extractor([tmp_path / "images" / f"{number}.png" for number in range(7)]).mask
    expected = expected_weights(extractor(queries).mask, gallery, 3, 4)
    found = [each["parts"] for each in json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["queries"]]
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert np.ptp(found, axis=0).min() > 0.01
    printed = capsys.readouterr().out
    assert all(f"   parts count {percentages(each)} of usual, from the top\n" in printed for each in found)
    parsed = Tags((tmp_path / "a.html").read_text(encoding="utf-8"))
    assert parsed.texts["h3"] == ["Query", TITLE, "With the query's mask", "Without mask"] * 2
    assert all(percentages(each) in parsed.texts["figcaption"] for each in found)


def test_nothing_of_parts_is_in_the_index_or_the_answers_of_a_model_without(tmp_path):
    draw_noise(tmp_path / "a.png")
    extractor = DPMExtractor(untrained_run(tmp_path / "run")[0], device="cpu")
    update(tmp_path, extractor)
    assert "parts" not in read_index(tmp_path).model
    with safe_open(features_file(tmp_path), framework="pt") as file:
        assert list(file.keys()) == ["embedding"]
    arguments = ["--index", str(tmp_path), "--model", str(tmp_path / "run"), "--json", str(tmp_path / "a.json")]
    assert main(["query", str(tmp_path / "a.png"), *arguments, "--device", "cpu"]) == 0
    (query,) = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["queries"]
    assert list(query) == ["query", "hidden", "mask_on", "mask_off"]
