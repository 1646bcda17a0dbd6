"""tools/search.py query: rankings as a loop over the formula gives them, on the screen, as JSON and as a page."""

import base64
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dpm_plugin import DPMExtractor
from dpm_plugin.apps.image_index.page import answers_page
from dpm_plugin.apps.image_index.searching import Answer, Match, search
from dpm_plugin.apps.image_index.store import Index, read_index
from dpm_plugin.commands.search import main
from dpm_plugin.evaluation.search import blocks
from helpers.images import cut, draw_noise
from helpers.page import Tags, shape
from helpers.runs import untrained_run
from helpers.scripts import check_mistake


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("search") / "run")[0]


@pytest.fixture(scope="module")
def place(run, tmp_path_factory):
    """A folder with 9 gallery images, their index, and two queries, as the synthetic benchmark lays them."""
    root = tmp_path_factory.mktemp("search") / "people"
    for number in range(9):
        draw_noise(root / "gallery" / f"{number}.png", number)
    for number in (20, 21):
        draw_noise(root / "query" / f"{number}.jpg", number)
    known = {"query/20.jpg": {"hidden": 0.25, "occluder": "wall"}, "gallery/3.png": {"hidden": 0.0}}
    (root / "visibility.json").write_text(json.dumps(known), encoding="utf-8")
    assert main(["index", str(root / "gallery"), "--model", str(run), "--device", "cpu"]) == 0
    return root


def queries(place):
    return [str(place / "query" / name) for name in ("20.jpg", "21.jpg")]


def test_rankings_are_those_of_a_loop_over_the_formula(run, place):
    extractor = DPMExtractor(run, device="cpu")
    index = read_index(place / "gallery")
    answers, unreadable = search(queries(place), index, extractor, top=5)
    assert unreadable == [] and [str(answer.path) for answer in answers] == queries(place)
    found = extractor(queries(place))
    for answer, q, m in zip(answers, found.embedding.double().numpy(), found.mask.double().numpy()):
        for name, mask in (("mask on", m), ("mask off", np.ones_like(m))):
            scores = []
            for path in index.paths:
                g = mask * extractor(place / "gallery" / path).embedding[0].double().numpy()
                scores.append(q @ g / np.linalg.norm(q) / np.linalg.norm(g))
            best = np.argsort(-np.array(scores))
            ranks = {index.paths[row]: rank for rank, row in enumerate(best, start=1)}
            matches = answer.lists[name]
            assert [match.name for match in matches] == list(ranks)[:5]
            assert [match.rank for match in matches] == [1, 2, 3, 4, 5]
            np.testing.assert_allclose([match.score for match in matches], np.array(scores)[best[:5]], atol=1e-5)
            other = answer.lists["mask off" if name == "mask on" else "mask on"]
            assert [match.other_rank for match in other] == [ranks[match.name] for match in other]
    assert [match.name for match in answers[0].lists["mask on"]] != [
        match.name for match in answers[0].lists["mask off"]
    ]


def test_an_index_is_searched_chunk_by_chunk_with_the_same_results(run, place, monkeypatch):
    extractor, index = DPMExtractor(run, device="cpu"), read_index(place / "gallery")
    expected, _ = search(queries(place), index, extractor, top=4)
    shapes = []

    def watched(queries, gallery, rows):
        shapes.append((len(queries), len(gallery)))
        return block(queries, gallery, rows)

    block = blocks.distance_block
    monkeypatch.setattr(blocks, "distance_block", watched)
    monkeypatch.setitem(blocks.CHUNK_SIZES, "cpu", 2)
    found, _ = search(queries(place), index, extractor, top=4)
    assert max(shapes) == (2, 2)  # of 9 images
    for answer, wanted in zip(found, expected, strict=True):
        for matches, others in zip(answer.lists.values(), wanted.lists.values(), strict=True):
            assert [match._replace(score=0) for match in matches] == [match._replace(score=0) for match in others]
            scores = [[match.score for match in each] for each in (matches, others)]
            np.testing.assert_allclose(*scores, atol=1e-6)


def test_a_search_prints_and_writes_its_results(place, tmp_path, capsys):
    spoilt = tmp_path / "spoilt.jpg"
    spoilt.write_text("no image", encoding="utf-8")
    out = tmp_path / "out" / "results.json"
    options = ["--index", str(place / "gallery"), "--top", "4", "--device", "cpu", "--json", str(out)]
    assert main(["query", *queries(place), str(spoilt), *options]) == 0
    printed = capsys.readouterr()
    results = json.loads(out.read_text(encoding="utf-8"))
    assert [each["query"] for each in results["queries"]] == queries(place)
    assert [each["hidden"] for each in results["queries"]] == [0.25, None]
    assert "20.jpg  (25% hidden)" in printed.out
    assert "spoilt.jpg' cannot be read" in printed.err and "spoilt.jpg" in results["unreadable"][0]
    for each in results["queries"]:
        assert len(each["mask_on"]) == len(each["mask_off"]) == 4
        for match in each["mask_on"]:
            assert f"{match['rank']:>4}  {match['score']:>6.3f}" in printed.out
            assert match["hidden"] == (0.0 if match["picture"] == "3.png" else None)
    assert results["pictures"] == str((place / "gallery").resolve())


def test_a_page_holds_neither_the_comments_of_its_images_nor_their_folder(run, place, tmp_path):
    image = Image.open(queries(place)[0])
    exif = Image.Exif()
    exif[0x010E] = "secret exif"
    image.save(tmp_path / "private.jpg", comment=b"secret comment", exif=exif, icc_profile=b"secret profile")
    answers, _ = search([tmp_path / "private.jpg"], read_index(place / "gallery"), DPMExtractor(run, device="cpu"))
    text = answers_page(answers, read_index(place / "gallery"))
    pictures = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]+)", text)]
    assert len(pictures) == 19 and not any(b"secret" in data for data in pictures)
    assert str(place) not in text and str(tmp_path) not in text


def test_a_baseline_is_searched_without_mask(place, tmp_path, capsys):
    folder, *_ = untrained_run(tmp_path / "run", model__name="vit_baseline_tiny")
    index = ["--index", str(tmp_path / "index")]
    assert main(["index", str(place / "gallery"), "--model", str(folder), "--device", "cpu", *index]) == 0
    out = [tmp_path / "a.json", tmp_path / "a.html"]
    written = ["--json", str(out[0]), "--html", str(out[1])]
    assert main(["query", queries(place)[0], "--device", "cpu", *index, *written]) == 0
    (query,) = json.loads(out[0].read_text(encoding="utf-8"))["queries"]
    assert "mask_on" not in query and len(query["mask_off"]) == 9
    assert Tags(out[1].read_text(encoding="utf-8")).texts["h3"] == ["Query", "Without mask"]
    assert "without mask" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def runs(run):
    """The folder of ``run``, with one of another model and one whose checkpoint is truncated."""
    untrained_run(run.parent / "other", seed=1)
    shutil.copytree(run, run.parent / "cut")
    cut(run.parent / "cut" / "model" / "last.pth.tar")
    return run.parent


QUERY = ["query", "{place}/query/20.jpg", "--index", "{place}/gallery"]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["index", "{tmp}/empty", "--model", "{runs}/run"], "no image in"),
        (["index", "{tmp}/nowhere", "--model", "{runs}/run"], "nowhere' is no folder"),
        (["index", "{tmp}/text", "--model", "{runs}/run"], "none of the 1 images"),
        (["index", "{place}/query", "--model", "{runs}/cut"], "cannot be read as plain weights"),
        (["index", "{place}/query", "--model", "{runs}/gone"], "gone' does not exist"),
        (["index", "{place}/query", "--model", "{runs}/run", "--index", "{tmp}/text/a.jpg"], "a.jpg"),
        (["index", "{place}/gallery", "--model", "{runs}/other"], "made by another model"),
        (["query", "{place}/query/20.jpg", "--index", "{tmp}/text"], "no index in"),
        ([*QUERY, "--model", "{runs}/other"], "made by another model"),
        ([*QUERY, "--top", "0"], "at least 1"),
        (["query", "{tmp}/text/a.jpg", "{tmp}/b.jpg", "--index", "{place}/gallery"], "no query can be read"),
        ([*QUERY, "--html", "{tmp}/text"], "text' cannot be written"),
        ([*QUERY, "--json", "."], "'.' cannot be written: Is a directory"),
        ([*QUERY, "--json", "{place}/query/20.jpg"], "is the input too"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(runs, place, tmp_path, capsys, arguments, said):
    for name in ("empty", "text"):
        (tmp_path / name).mkdir()
    (tmp_path / "text" / "a.jpg").write_text("text", encoding="utf-8")
    before = sorted(tmp_path.rglob("*")) + sorted(place.rglob("*"))
    words = [argument.format(tmp=tmp_path, runs=runs, place=place) for argument in arguments]
    check_mistake(main, [*words, "--device", "cpu"], capsys, said)
    assert sorted(tmp_path.rglob("*")) + sorted(place.rglob("*")) == before


# ---- the page ----


def hostile_page(name):
    matches = [Match(rank, f"<b>/{name}", f"/gone/{name}", 0.5, 3 - rank, 0.25) for rank in (1, 2)]
    index = Index(Path("/index"), Path("/gone") / name, {"name": name}, [], [], None, [])
    return answers_page([Answer(Path("/gone") / name, 0.5, {"mask on": matches, "mask off": matches})], index)


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_characters="/", codec=None), min_size=1, max_size=30))
def test_no_file_name_adds_a_tag_or_an_attribute(name):
    assert shape(hostile_page(name)) == shape(hostile_page("plain.jpg"))


@pytest.fixture(scope="module")
def written_page(place, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "found <b>.html"
    index = ["--index", str(place / "gallery")]
    assert main(["query", *queries(place), *index, "--device", "cpu", "--html", str(path)]) == 0
    return path


def test_the_page_shows_both_lists_with_names_and_scores_and_needs_no_other_file(written_page, place):
    text = written_page.read_text(encoding="utf-8")
    parsed = Tags(text)
    assert parsed.texts["h3"] == ["Query", "With the query's mask", "Without mask"] * 2
    assert sum(tag == "img" for tag, _ in parsed.tags) == 2 * (1 + 9 + 9)
    assert all(source.startswith("data:image/jpeg;base64,") for source in parsed.values("src"))
    captions = [caption.split("\n") for caption in parsed.texts["figcaption"]]
    assert sorted(name for name, _ in captions) == sorted(4 * read_index(place / "gallery").paths)
    assert all(float(second[:5]) <= 1 for _, second in captions)
    assert "<li>25% hidden</li>" in text and ", 0% hidden</figcaption>" in text and "(was " in text
    assert "http" not in text.replace("http-equiv", "") and "<table>" not in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_lists_stand_side_by_side_and_keys_leaf_through_queries(written_page, browser, width):
    browser.open(written_page.as_uri(), width, 800)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.visible() == "q1"
    left, right = (f"document.querySelectorAll('#q1 .list')[{number}].getBoundingClientRect().x" for number in (0, 1))
    assert browser.ask(left) < browser.ask(right)
    shown = "[...document.querySelectorAll('#q1 img')].every(i => i.naturalWidth > 0 && i.offsetWidth > 0)"
    assert browser.ask(shown) is True
    browser.press("ArrowRight")
    assert browser.visible() == "q2" and browser.ask("location.hash") == "#q2"
    browser.check_quiet()
