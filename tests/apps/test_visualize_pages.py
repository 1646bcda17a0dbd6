"""What tools/visualize.py writes: a PNG a query, and a page that needs no other file."""

import base64
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpm_plugin.apps.query_page import page
from dpm_plugin.apps.visualize import png, visualize_run
from dpm_plugin.apps.visualize.png import draw_article
from dpm_plugin.apps.visualize.query_article import query_article
from dpm_plugin.apps.visualize.query_view import Channel, QueryView
from dpm_plugin.apps.visualize.ranking import Ranking
from dpm_plugin.apps.visualize.visualize_run import png_name
from dpm_plugin.inference.run_extractor import Extractor
from helpers.forks import run_tool
from helpers.page import Tags, shape
from helpers.visualized import QUERIES, evaluated_run

pytestmark = pytest.mark.slow

TOOL = Path(__file__).resolve().parents[2] / "tools" / "visualize.py"


@pytest.fixture(scope="module")
def drawn(dpm_run):
    """The folder that the tool fills, run as its own process without a display, from another folder."""
    root, options = dpm_run.parent, "--topk 3 --channels 2 --out images --device cpu".split()
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("DISPLAY", raising=False)
        process = run_tool(root, TOOL, dpm_run, "--queries", QUERIES, *options)
    assert process.returncode == 0, process.stderr
    return root / "images"


def test_every_query_has_a_png_that_opens_and_a_place_on_the_page(drawn):
    paths = sorted(drawn.glob("*.png"))
    assert [int(path.name[:5]) for path in paths] == list(range(1, QUERIES + 1))
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert image.width >= 900 and np.ptp(np.asarray(image.convert("L"))) > 100
    parsed = Tags((drawn / "index.html").read_text(encoding="utf-8"))
    articles = [attributes for tag, attributes in parsed.tags if tag == "article"]
    assert [article["id"] for article in articles] == [f"q{number}" for number in range(1, QUERIES + 1)]
    # query, 2 channels, 2 heads and two lists of 3
    assert sum(tag == "img" for tag, _ in parsed.tags) == QUERIES * (1 + 2 + 2 + 2 * 3)
    counts = [re.fullmatch(r"(mask|same).* (\d+)", text) for text in parsed.texts["button"]]
    assert sum(int(found[2]) for found in counts if found) == QUERIES


def test_a_png_shows_the_very_panels_of_the_page():
    article = hostile_article("plain.jpg")
    drawing = np.asarray(draw_article(article))
    for row, panel in enumerate([*article.panels, *article.lists]):
        for column, tile in enumerate(panel.tiles):
            width, height = tile.image.size
            left, top = png.GAP + column * (png.TILE + png.GAP), png.GAP + png.TITLE + png.CAPTION
            top += row * (png.TITLE + png.CAPTION + height + png.GAP)
            inner = np.s_[3:-3, 3:-3]  # within the frame of a match
            assert (drawing[top : top + height, left : left + width][inner] == np.asarray(tile.image)[inner]).all()


def test_the_page_says_how_much_is_hidden_and_by_what(drawn, dpm_run):
    text = (drawn / "index.html").read_text(encoding="utf-8")
    dataset = Extractor(dpm_run).loader("query").dataset
    for path, *_ in dataset.query:
        record = dataset.visibility[path]
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


def test_a_baseline_has_no_mask_panels_and_one_list(dpm_run):
    run = evaluated_run(dpm_run.parent, "vit_baseline_tiny")
    index = visualize_run(run, queries=2, topk=3)
    assert index.parent == run / "visualize"
    parsed = Tags(index.read_text(encoding="utf-8"))
    headings = parsed.texts["h3"]
    assert headings == ["Query", "Class-token attention of the last block", "Ranked gallery"] * 2
    assert not parsed.values("data-filter") and "mask" not in " ".join(parsed.texts["li"])
    assert len(list(index.parent.glob("*.png"))) == 2


TAGS = ["<img src=x onerror=alert(1)>.jpg", '"><script>alert(1)<\\script>.jpg', "a&amp;b'c.jpg"]
HOSTILE = [*TAGS, "$\\frac{1$_$.jpg", "名前 \U0001f600.jpg", "\udcff.jpg", "line\nbreak.jpg"]


def hostile_article(name):
    noise = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    maps = np.linspace(0, 1, 32 * 16).reshape(1, 32, 16).astype(np.float32)
    right, scores = np.array([True, False]), np.array([0.9, 0.1])
    rankings = (Ranking(np.arange(2), scores, each) for each in (right, ~right))
    occlusion, channels = {"hidden": 0.25, "occluder": "<wall>"}, (Channel(0, 0.5, 0.4, maps[0]),)
    view = QueryView(0, f"/data/{name}", 3, 1, occlusion, channels, maps, 10, *rankings)
    image = Image.fromarray(noise)
    return query_article(view, image, lambda position: (view.path, image), 2, "paint")


def hostile_page(name):
    return page([hostile_article(name)], name, name, [(name, 0.5, 0.5)])


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
    article = hostile_article(name)
    target = png_name(article)
    assert re.fullmatch(r"00001_[A-Za-z0-9._-]*\.png", target)
    draw_article(article).save(tmp_path / target)
    Image.open(tmp_path / target).load()


# ---- in a browser ----


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_keys_buttons_and_filter_leaf_through_the_queries(drawn, browser, width):
    browser.open((drawn / "index.html").as_uri(), width, 800)
    assert browser.ask("document.documentElement.scrollWidth") <= width and browser.ask("scrollY") == 0
    assert browser.visible() == "q1"
    browser.press("ArrowRight")
    assert browser.visible() == "q2" and browser.ask("location.hash") == "#q2"
    browser.ask("document.querySelector('#next').click()")
    assert browser.visible() == "q3"
    browser.press("ArrowLeft")
    browser.press("ArrowLeft", modifiers=1)  # Alt: the browser's own way back
    assert browser.visible() == "q2"
    browser.press("ArrowLeft")  # a filter keeps the query that is shown, and begins elsewhere with its first
    for name in ("helped", "hurt", "same"):
        browser.ask(f"document.querySelector('[data-filter={name}]').click()")
        wanted = browser.ask(f"[...document.querySelectorAll('article[data-outcome={name}]')].map(a => a.id).join()")
        seen = []
        for _ in filter(None, wanted.split(",")):
            seen.append(browser.visible())
            browser.press("ArrowRight")
        browser.ask("document.querySelector('[data-filter=all]').click()")
        browser.ask(f"document.querySelector('[data-filter={name}]').click()")
        assert sorted(seen) == sorted(filter(None, wanted.split(",")))
        if not wanted:
            assert browser.ask("document.querySelector('#none').offsetHeight") > 0
    browser.ask("document.querySelector('[data-filter=all]').click()")
    browser.check_quiet()


def test_in_a_browser_an_address_with_a_query_opens_that_query(drawn, browser):
    browser.open((drawn / "index.html").as_uri() + "?linked#q4", 1280, 800)
    assert browser.visible() == "q4"
    assert browser.ask("document.querySelector('#place').textContent") == "4 of 10"
    browser.ask("new Promise(done => addEventListener('hashchange', () => done(1), location.hash = '#q2'))")
    assert browser.visible() == "q2"
