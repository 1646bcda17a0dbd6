"""tools/visualize.py: rankings as in the metric, maps where the patches lie, a page that needs no other."""

import base64
import hashlib
import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpm_plugin import build, evaluate_rank
from dpm_plugin.apps.visualize import visualize_run
from dpm_plugin.apps.visualize.cli import main
from dpm_plugin.apps.visualize.drivers import gradient_drivers, painted_drivers
from dpm_plugin.apps.visualize.figure import draw_query
from dpm_plugin.apps.visualize.gallery import choose_queries, png_name
from dpm_plugin.apps.visualize.grid import PatchGrid, patch_grid
from dpm_plugin.apps.visualize.page import page, query_section
from dpm_plugin.apps.visualize.ranking import Ranking, outcome, rank_gallery
from dpm_plugin.apps.visualize.views import Channel, QueryView, Viewer
from dpm_plugin.config import engine_run_kwargs, load_config
from dpm_plugin.inference.run_extractor import Extractor
from dpm_plugin.method.mask_generator import HierarchicalMaskGenerator
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.weights.files import write_checkpoint
from helpers.forks import run_tool
from helpers.page import Tags

TOOL = Path(__file__).resolve().parents[2] / "tools" / "visualize.py"
QUERIES = 10
SETTINGS = {
    "model.pretrained": False,
    "loss.name": "dpm",
    "data.sources": ["synthetic_occluded"],
    "data.targets": ["synthetic_occluded"],
    "data.height": 32,
    "data.width": 16,
    "data.workers": 0,
    "synthetic.height": 32,
    "synthetic.width": 16,
    "synthetic.train_ids": 4,
    "synthetic.train_images": 4,
    "synthetic.test_ids": 5,
    "synthetic.gallery_images": 3,
    "synthetic.query_images": 2,
    "synthetic.distractor_ids": 1,
    "train.batch_size": 8,
    "test.ranks": [1, 5],
    "test.evaluate": True,
    # Patches of 8 pixels every 6: 5 x 2 of them, which leave two columns of 16 unseen.
    "vit.embed_dim": 16,
    "vit.depth": 2,
    "vit.num_heads": 2,
    "vit.patch_size": 8,
    "vit.stride": 6,
}


def make_run(root, model, feature="after"):
    """A run's folder as tools/main.py leaves it, with an untrained model; its evaluation is the real one."""
    folder = root / f"{model}-{feature}"
    config = load_config(
        overrides={
            **SETTINGS,
            "model.name": model,
            "test.feature": feature,
            "data.root": str(root / "data"),
            "data.save_dir": str(folder),
        }
    )
    torch.manual_seed(0)
    datamanager = build.build_datamanager(config)
    model = build.build_model(config, datamanager)
    if model.has_mask:  # untrained, every mask is 0.5
        torch.nn.init.normal_(model.mask_generator.linear.weight, std=8.0)
    optimizer = build.build_optimizer(config, model)
    scheduler = build.build_scheduler(config, optimizer)
    engine = build.build_engine(config, datamanager, model, optimizer, scheduler)
    engine.run(**engine_run_kwargs(config))
    write_checkpoint({"state_dict": model.state_dict(), "epoch": 1}, folder / "model" / "last.pth.tar")
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("visualize")


@pytest.fixture(scope="module")
def dpm_run(root):
    return make_run(root, "dpm_vit_tiny")


@pytest.fixture(scope="module")
def viewer(dpm_run):
    return Viewer(Extractor(dpm_run), channels=3)


@pytest.fixture(scope="module")
def drawn(dpm_run, root):
    """The folder that the tool fills, run as its own process without a display, from another folder."""
    command = [
        str(dpm_run),
        "--queries",
        str(QUERIES),
        "--topk",
        "3",
        "--channels",
        "2",
        "--out",
        "pictures",
        "--device",
        "cpu",
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DISPLAY", raising=False)
        process = run_tool(root, TOOL, *command)
    assert process.returncode == 0, process.stderr
    return root / "pictures"


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
    good, bad, none = ranking(1, 0, 1), ranking(0, 1, 1), ranking(0, 0, 0)
    assert [outcome(bad, good), outcome(good, bad), outcome(good, good)] == ["helped", "hurt", "same"]
    late, later = ranking(*[0] * 40, 1), ranking(*[0] * 41, 1)  # 1/41 and 1/42: none that can be read
    assert outcome(later, late) == "same"
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


def test_the_headlines_feature_is_the_one_that_is_ranked(root):
    folder = make_run(root, "dpm_vit_tiny", feature="before")
    before = Viewer(Extractor(folder), channels=1)
    mean = np.mean([before.view(position).on.average_precision for position in range(QUERIES)])
    assert mean == pytest.approx(rows_of(folder)["before/on"]["mAP"], abs=1e-6)


# ---- maps ----


def test_pixels_are_the_mean_of_the_patches_that_see_them(viewer):
    grid = patch_grid(viewer.run.model, (32, 16))
    assert (grid.rows.shape, grid.columns.shape, len(grid)) == ((5, 32), (2, 16), 10)
    values = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    pixels = grid.to_pixels(values)
    for y in range(32):
        for x in range(16):
            seen = [2 * i + j for i in range(5) for j in range(2) if 6 * i <= y < 6 * i + 8 and 6 * j <= x < 6 * j + 8]
            expected = values[:, seen].mean(dim=1) if seen else torch.full((3,), float("nan"))
            torch.testing.assert_close(pixels[:, y, x], expected, equal_nan=True)
    assert pixels[0].isnan().sum() == 32 * 2
    assert grid.boxes().flatten(1).sum(dim=1).tolist() == [64] * 10
    assert grid.boxes()[3, 6:14, 6:14].all()


def test_the_grid_is_that_of_the_models_patch_map(viewer):
    model = viewer.run.model
    for size in ((32, 16), (33, 40), (8, 8)):
        patch_map = model(torch.zeros(1, 3, *size), return_featuremaps=True)
        grid = patch_grid(model, size)
        assert patch_map.shape[-2:] == (len(grid.rows), len(grid.columns))


def test_attention_is_that_of_equation_5_laid_on_the_image(viewer):
    view = viewer.view(4)
    item = viewer.dataset[4]
    camids = viewer.run.cameras("query")(torch.tensor([item["camid"]]))
    with torch.no_grad():
        attention = (
            viewer.run.model.embed(item["img"][None], camids, need_heads=True).head_logits[0].softmax(dim=-1)
        )  # (N, P)
    expected = patch_grid(viewer.run.model, (32, 16)).to_pixels(attention).numpy()
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


def test_painting_finds_what_a_patch_gives_to_a_channel():
    rows, columns = torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2, 6, dtype=torch.bool)
    rows[0, :2] = rows[1, 2:] = columns[0, :4] = columns[1, 2:] = True  # 2 x 2 patches, overlapping sideways
    image = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(5, 3 * 4 * 6, generator=torch.Generator().manual_seed(1))

    def logits_of(images):
        return images.flatten(1) @ weight.T

    drivers = painted_drivers(logits_of, image, PatchGrid(rows, columns), torch.tensor([4, 1]), batch_size=3)
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


def test_gradient_drivers_of_a_linear_generator_sum_to_the_logits_distance_from_the_mean_map():
    torch.manual_seed(0)
    generator = LinearGenerator(2 * 4 * 6, 5)
    maps, means = [torch.randn(1, 4, 3, 2) for _ in range(2)], [torch.randn(4, 3, 2) for _ in range(2)]
    drivers = gradient_drivers(generator, maps, means, torch.tensor([3, 0]))
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
    gradient_drivers(generator, maps, [one[0] for one in maps], torch.tensor([1]))
    assert all(parameter.grad is None for parameter in generator.parameters())
    assert not generator.linear._forward_hooks
    torch.testing.assert_close(generator.logits(maps).sigmoid(), generator(maps))


def test_gradient_drivers_are_drawn_too(dpm_run):
    view = Viewer(Extractor(dpm_run), channels=2, drivers="gradient").view(0)
    assert all(np.ptp(channel.drivers[:, :14]) > 0 for channel in view.channels)


# ---- what is written ----


def test_every_query_has_a_png_that_opens_and_a_place_on_the_page(drawn):
    pictures = sorted(drawn.glob("*.png"))
    assert [int(path.name[:5]) for path in pictures] == list(range(1, QUERIES + 1))
    for path in pictures:
        with Image.open(path) as picture:
            picture.load()
            assert picture.width >= 900 and np.ptp(np.asarray(picture.convert("L"))) > 100
    parsed = Tags((drawn / "index.html").read_text(encoding="utf-8"))
    articles = [attributes for tag, attributes in parsed.tags if tag == "article"]
    assert [article["id"] for article in articles] == [f"q{number}" for number in range(1, QUERIES + 1)]
    # query, 2 channels, 2 heads and two lists of 3
    assert sum(tag == "img" for tag, _ in parsed.tags) == QUERIES * (1 + 2 + 2 + 2 * 3)
    labels = [text for text in parsed.texts["button"] if re.fullmatch(r"(mask|same).* \d+", text)]
    counted = sum(int(label.split()[-1]) for label in labels)
    assert counted == QUERIES


def test_the_page_says_how_much_is_hidden_and_by_what(drawn, viewer):
    text = (drawn / "index.html").read_text(encoding="utf-8")
    for position in range(QUERIES):
        record = viewer.dataset.visibility[viewer.query.paths[position]]
        assert f"<li>{record['hidden']:.0%} hidden by {record['occluder']}</li>" in text


def test_the_page_holds_all_it_needs_and_its_policy_allows_nothing_else(drawn):
    text = (drawn / "index.html").read_text(encoding="utf-8")
    parsed = Tags(text)
    assert not {"link", "iframe", "object", "base", "form"} & {tag for tag, _ in parsed.tags}
    sources = parsed.values("src")
    assert sources and all(source.startswith("data:image/jpeg;base64,") for source in sources)
    assert not parsed.values("href") and not parsed.values("style") and "http://" not in text
    assert "https://" not in text and "url(" not in text and "@import" not in text
    (policy,) = (a["content"] for t, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy and "unsafe" not in policy
    for tag in ("script", "style"):
        own = "".join(parsed.texts[tag])
        digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy


def test_a_baseline_has_no_mask_panels_and_one_list(root):
    run = make_run(root, "vit_baseline_tiny")
    index = visualize_run(run, queries=2, topk=3)
    assert index.parent == run / "visualize"
    parsed = Tags(index.read_text(encoding="utf-8"))
    headings = parsed.texts["h3"]
    assert headings == ["Query", "Class-token attention of the last block", "Ranked gallery"] * 2
    assert not parsed.values("data-filter") and "mask" not in " ".join(parsed.texts["li"])
    assert len(list(index.parent.glob("*.png"))) == 2


HOSTILE = [
    "<img src=x onerror=alert(1)>.jpg",
    '"><script>alert(1)<\\script>.jpg',
    "a&amp;b'c.jpg",
    "$\\frac{1$_$.jpg",
    "名前 \U0001f600.jpg",
    "\udcff.jpg",
    "line\nbreak.jpg",
]


def hostile_view(name):
    maps = np.linspace(0, 1, 32 * 16).reshape(1, 32, 16).astype(np.float32)
    return QueryView(
        0,
        f"/data/{name}",
        3,
        1,
        {"hidden": 0.25, "occluder": "<wall>"},
        (Channel(0, 0.5, 0.4, maps[0]),),
        maps,
        10,
        ranking(1, 0),
        ranking(0, 1),
    )


def hostile_page(name):
    picture = Image.new("RGB", (20, 40))
    view = hostile_view(name)
    section = query_section(view, picture, lambda position: (view.path, picture), 2, "paint")
    shown = name.encode("utf-8", "replace").decode()
    return page([section], [view.outcome], shown, shown, [(shown, 0.5, 0.5)])


def shape(text):
    return [(tag, sorted(attributes)) for tag, attributes in Tags(text).tags]


names = st.text(st.characters(exclude_characters="/\0\r"), min_size=1, max_size=30)


@settings(max_examples=40, deadline=None)
@given(names.filter(lambda name: name not in (".", "..")))
def test_no_file_name_adds_a_tag_or_an_attribute_and_each_is_shown_as_it_is(name):
    text = hostile_page(name)
    assert shape(text) == shape(hostile_page("plain.jpg"))
    parsed = Tags(text)
    shown = name.encode("utf-8", "replace").decode()
    assert "".join(parsed.texts["file"]) == shown
    assert parsed.values("title") == [shown] * 4


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_name_harms_neither_page_nor_png_nor_disk(name, tmp_path):
    text = hostile_page(name)
    assert shape(text) == shape(hostile_page("plain.jpg"))
    (tmp_path / "index.html").write_text(text, encoding="utf-8")
    view, picture = hostile_view(name), Image.new("RGB", (20, 40))
    target = png_name(view)
    assert re.fullmatch(r"00001_[A-Za-z0-9._-]*\.png", target)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a letter that the font lacks is a warning
        figure = draw_query(view, picture, lambda position: (view.path, picture), 2, "paint")
        figure.savefig(tmp_path / target)
    Image.open(tmp_path / target).load()


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
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(dpm_run, capsys, arguments, expected):
    names = {"run": dpm_run, "gone": dpm_run / "gone"}
    assert main([argument.format(**names) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and expected in error


def test_an_unknown_option_is_one_line_and_exit_code_2(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["run", "--drivers", "guess"])
    assert caught.value.code == 2 and capsys.readouterr().err.count("\n") == 1


# ---- in a browser ----

VISIBLE = "[...document.querySelectorAll('article')].filter(a => a.offsetHeight > 0).map(a => a.id).join()"


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_keys_buttons_and_filter_leaf_through_the_queries(drawn, browser, width):
    browser.open((drawn / "index.html").as_uri(), width, 800)
    assert browser.ask("document.documentElement.scrollWidth") <= width and browser.ask("scrollY") == 0
    assert browser.ask(VISIBLE) == "q1"
    browser.press("ArrowRight")
    assert browser.ask(VISIBLE) == "q2" and browser.ask("location.hash") == "#q2"
    browser.ask("document.querySelector('#next').click()")
    assert browser.ask(VISIBLE) == "q3"
    browser.press("ArrowLeft")
    browser.press("ArrowLeft", modifiers=1)  # Alt: the browser's own way back
    assert browser.ask(VISIBLE) == "q2"
    for name in ("helped", "hurt", "same"):
        browser.ask(f"document.querySelector('[data-filter={name}]').click()")
        wanted = browser.ask(f"[...document.querySelectorAll('article[data-outcome={name}]')].map(a => a.id).join()")
        seen = []
        for _ in filter(None, wanted.split(",")):
            seen.append(browser.ask(VISIBLE))
            browser.press("ArrowRight")
        browser.ask("document.querySelector('[data-filter=all]').click()")
        browser.ask(f"document.querySelector('[data-filter={name}]').click()")
        assert sorted(seen) == sorted(filter(None, wanted.split(",")))
        if not wanted:
            assert browser.ask("document.querySelector('#none').offsetHeight") > 0
    browser.ask("document.querySelector('[data-filter=all]').click()")
    requests = [
        event["params"]["request"]["url"][:5]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert requests and set(requests) <= {"file:", "data:"}
    assert not [
        event for event in browser.events if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")
    ]


def test_in_a_browser_an_address_with_a_query_opens_that_query(drawn, browser):
    browser.open((drawn / "index.html").as_uri() + "?linked#q4", 1280, 800)
    assert browser.ask(VISIBLE) == "q4"
    assert browser.ask("document.querySelector('#place').textContent") == "4 of 10"
    browser.ask("new Promise(done => addEventListener('hashchange', () => done(1), location.hash = '#q2'))")
    assert browser.ask(VISIBLE) == "q2"
