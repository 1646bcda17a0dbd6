"""tools/search.py: an index that survives every interruption, and rankings as a loop over the formula gives them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from dpm_plugin import DPMError, DPMExtractor
from dpm_plugin.apps.picture_index import store
from dpm_plugin.apps.picture_index.cli import main
from dpm_plugin.apps.picture_index.indexing import index_pictures
from dpm_plugin.apps.picture_index.page import answers_page
from dpm_plugin.apps.picture_index.querying import Answer, Match, search
from dpm_plugin.apps.picture_index.reading import list_pictures, read_picture
from dpm_plugin.apps.picture_index.store import FOLDER, add_batch, find_index, locked, read_index
from dpm_plugin.evaluation.search import blocks
from helpers.page import Tags
from helpers.runs import untrained_run


class MeanColour:
    """An extractor that starts at once: a picture's feature is its mean colour."""

    batch_size = 2

    def __init__(self):
        self.prepared = []

    def prepare(self, picture):
        return torch.tensor(np.asarray(picture, dtype=np.float32).mean(axis=(0, 1)) / 255)

    def __call__(self, images):
        self.prepared += images
        stacked = torch.stack(images)
        return Answered(stacked)


class Answered:
    def __init__(self, embedding):
        self.embedding = embedding


MODEL = {"fingerprint": "a", "name": "mean colour", "feature_dim": 3, "source": None, "config_file": None}


def draw(path, seed=0, size=(12, 20), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def update(root, folder=None, extractor=None, model=MODEL):
    return index_pictures(root, extractor or MeanColour(), model, folder, report=lambda text: None)


def content(folder):
    """What is in an index: (paths, embeddings)."""
    index = read_index(folder)
    return index.paths, index.embedding


# ---- the index ----


def test_an_index_made_in_halves_equals_the_index_made_at_once(run, tmp_path):
    names = [f"{place}/{number}.png" for place in ("b", "a") for number in range(5)]
    for number, name in enumerate(names):
        draw(tmp_path / "all" / name, number)
    for name in names[1::2]:
        (tmp_path / "grows" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(tmp_path / "all" / name, tmp_path / "grows" / name)
    extractor = DPMExtractor(run, device="cpu", batch_size=3)
    assert update(tmp_path / "all", tmp_path / "once", extractor, {**MODEL, "feature_dim": 16}).embedded == 10
    assert update(tmp_path / "grows", tmp_path / "twice", extractor, {**MODEL, "feature_dim": 16}).embedded == 5
    shutil.copytree(
        tmp_path / "all",
        tmp_path / "grows",
        dirs_exist_ok=True,
        copy_function=lambda old, new: None if os.path.exists(new) else shutil.copy(old, new),
    )
    assert update(tmp_path / "grows", tmp_path / "twice", extractor, {**MODEL, "feature_dim": 16}).embedded == 5
    (paths, once), (others, twice) = content(tmp_path / "once"), content(tmp_path / "twice")
    assert paths == others == sorted(names)
    torch.testing.assert_close(once, twice, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        once, extractor([tmp_path / "all" / name for name in paths]).embedding, atol=1e-5, rtol=1e-5
    )


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "lock"}


def test_only_new_and_changed_pictures_are_embedded_and_gone_ones_removed(tmp_path):
    for number in range(5):
        draw(tmp_path / f"{number}.png", number)
    assert update(tmp_path)[1:] == (5, 5, 0, [])
    before = times(tmp_path / FOLDER)
    extractor = MeanColour()
    assert update(tmp_path, extractor=extractor)[1:] == (5, 0, 0, []) and not extractor.prepared
    assert before == times(tmp_path / FOLDER)
    draw(tmp_path / "1.png", 101)
    os.utime(tmp_path / "1.png", ns=(1, 1))
    draw(tmp_path / "new" / "7.png", 7)
    (tmp_path / "3.png").unlink()
    assert update(tmp_path)[1:] == (5, 2, 1, [])
    paths, embedding = content(tmp_path / FOLDER)
    assert paths == ["0.png", "1.png", "2.png", "4.png", "new/7.png"]
    expected = torch.stack([MeanColour().prepare(read_picture(tmp_path / path)) for path in paths])
    assert torch.equal(embedding, expected)
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / FOLDER).iterdir()) == [
        "features",
        "index.json",
        "lock",
    ]


def test_an_end_at_any_write_loses_nothing_but_its_own_batch(tmp_path, monkeypatch):
    for number in range(7):
        draw(tmp_path / "pictures" / f"{number}.png", number)
    update(tmp_path / "pictures", tmp_path / "expected")
    expected = content(tmp_path / "expected")
    write = store.write_file
    stops = 0
    while True:
        folder, calls = tmp_path / f"stop{stops}", []

        def interrupted(path, data):
            calls.append(path)
            if len(calls) == stops // 2 + 1:
                if stops % 2:  # after the file has its name, else before
                    write(path, data)
                raise KeyboardInterrupt
            write(path, data)

        monkeypatch.setattr(store, "write_file", interrupted)
        try:
            update(tmp_path / "pictures", folder)
            break
        except KeyboardInterrupt:
            pass
        monkeypatch.setattr(store, "write_file", write)
        kept = len(read_index(folder).paths) if find_index(folder) else 0
        finished = sum(path.name.startswith("batch") for path in calls[: stops // 2 + stops % 2])
        assert kept == min(7, 2 * finished)
        again = MeanColour()
        done = update(tmp_path / "pictures", folder, again)
        assert done.embedded == len(again.prepared) == 7 - kept
        assert content(folder)[0] == expected[0] and torch.equal(content(folder)[1], expected[1])
        stops += 1
    assert stops == 2 * 7  # the list at the start, 4 batches, the features, the list at the end


def test_an_index_moves_with_its_pictures_or_follows_them(tmp_path):
    draw(tmp_path / "old" / "a.png")
    update(tmp_path / "old")
    update(tmp_path / "old", tmp_path / "index")
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_index(tmp_path / "new" / FOLDER).root == (tmp_path / "new").resolve()
    assert update(tmp_path / "new", tmp_path / "index").embedded == 0
    assert read_index(tmp_path / "index").root == (tmp_path / "new").resolve()
    draw(tmp_path / "other" / "a.png")
    with pytest.raises(DPMError, match="is of the pictures in .*new', not of those in .*other'"):
        update(tmp_path / "other", tmp_path / "index")


def test_two_processes_do_not_write_one_index(tmp_path):
    pytest.importorskip("fcntl")
    draw(tmp_path / "a.png")
    with locked(tmp_path / FOLDER), pytest.raises(DPMError, match="another process"):
        update(tmp_path)
    assert not (tmp_path / FOLDER).exists() and update(tmp_path).count == 1


def test_an_index_of_another_model_is_refused_and_kept(tmp_path):
    draw(tmp_path / "a.png")
    update(tmp_path)
    draw(tmp_path / "b.png")
    with pytest.raises(DPMError, match="another model.*mean colour"):
        update(tmp_path, model={**MODEL, "fingerprint": "b"})
    assert content(tmp_path / FOLDER)[0] == ["a.png"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def list_twice(path):
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, "pictures": content["pictures"] * 2}), encoding="utf-8")


def narrower(path):
    save_file({"embedding": torch.zeros(1, 2)}, path)


@pytest.mark.parametrize(
    "name, harm",
    [
        ("features-00000001.safetensors", narrower),
        ("features-00000001.safetensors", cut),
        ("features-00000001.safetensors", os.unlink),
        ("index.json", cut),
        ("index.json", lambda path: path.write_text("[1]")),
        ("index.json", list_twice),
    ],
)
def test_a_damaged_index_is_one_line(tmp_path, name, harm):
    draw(tmp_path / "a.png")
    update(tmp_path)
    harm(tmp_path / FOLDER / name)
    with pytest.raises(DPMError, match="index '.*is damaged") as caught:
        read_index(tmp_path / FOLDER)
    assert "\n" not in str(caught.value)


# ---- pictures ----


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_every_format_is_read_as_rgb_the_right_way_up(tmp_path):
    grey = np.full((20, 12), 0.5)
    Image.fromarray(np.uint16(grey * 65535)).save(tmp_path / "deep.png")
    Image.fromarray(np.uint8(grey * 255)).save(tmp_path / "grey.PNG")
    Image.fromarray(np.uint8(grey * 255)).convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(np.uint8(grey * 255)).convert("P").save(tmp_path / "palette.gif", transparency=0)
    Image.fromarray(np.uint8(grey * 255)).convert("RGBA").save(tmp_path / "alpha.tif")
    for ending in ("bmp", "webp", "ppm", "tga", "jp2", "ico"):
        Image.fromarray(np.uint8(np.stack([grey * 255] * 3, axis=2))).save(tmp_path / f"colour.{ending}")
    (tmp_path / "notes.txt").write_text("no picture", encoding="utf-8")
    draw(tmp_path / ".hidden" / "a.png")
    names = list_pictures(tmp_path)
    assert len(names) == 11 and names == sorted(names)
    for name in names:
        picture = read_picture(tmp_path / name)
        assert picture.mode == "RGB" and abs(np.asarray(picture).mean() - 127) < 3, name
    exif = Image.Exif()
    exif[0x0112] = 8
    draw(tmp_path / "turned.jpg", exif=exif, size=(30, 10))
    draw(tmp_path / "plain.jpg", size=(30, 10))
    turned = np.rot90(np.asarray(read_picture(tmp_path / "plain.jpg")))
    assert (np.asarray(read_picture(tmp_path / "turned.jpg")) == turned).all()
    draw(tmp_path / "broken.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", size=(30, 10))
    assert read_picture(tmp_path / "broken.jpg").size == (30, 10)


def test_unreadable_files_are_listed_and_passed_over_until_they_can_be_read(tmp_path):
    draw(tmp_path / "good.png")
    (tmp_path / "text.jpg").write_text("no picture", encoding="utf-8")
    (tmp_path / "empty.png").touch()
    draw(tmp_path / "cut.png", 1)
    cut(tmp_path / "cut.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    done = update(tmp_path)
    assert done.count == done.embedded == 1
    assert [line.split("'")[1].rsplit("/")[-1] for line in done.unreadable] == [
        "cut.png",
        "empty.png",
        "gone.png",
        "text.jpg",
    ]
    assert not any("\n" in line for line in done.unreadable)
    draw(tmp_path / "text.jpg")
    assert update(tmp_path)[1:3] == (2, 1)
    (tmp_path / "good.png").write_text("spoilt", encoding="utf-8")
    update(tmp_path)
    assert content(tmp_path / FOLDER)[0] == ["text.jpg"]  # what good.png was is no longer known


@pytest.mark.parametrize("files", [{}, {"a.txt": "text"}, {"a.jpg": "text"}, {".a.jpg": "text"}])
def test_a_folder_without_readable_picture_is_an_error_that_leaves_nothing(tmp_path, files):
    (tmp_path / "pictures").mkdir()
    for name, text in files.items():
        (tmp_path / "pictures" / name).write_text(text, encoding="utf-8")
    for folder in (None, tmp_path / "index"):
        with pytest.raises(DPMError, match="no picture|none of the 1 pictures"):
            update(tmp_path / "pictures", folder)
    assert {path.name for path in tmp_path.rglob("*")} == {"pictures", *files}


# ---- the search ----


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("search") / "run")[0]


@pytest.fixture(scope="module")
def place(run, tmp_path_factory):
    """A folder with 9 gallery pictures, their index, and two queries, as the synthetic benchmark lays them."""
    root = tmp_path_factory.mktemp("search") / "people"
    for number in range(9):
        draw(root / "gallery" / f"{number}.png", number)
    for number in (20, 21):
        draw(root / "query" / f"{number}.jpg", number)
    known = {"query/20.jpg": {"hidden": 0.25, "occluder": "wall"}, "gallery/3.png": {"hidden": 0.0}}
    (root / "visibility.json").write_text(json.dumps(known), encoding="utf-8")
    assert main(["index", str(root / "gallery"), "--model", str(run), "--device", "cpu"]) == 0
    return root


def queries(place):
    return [str(place / "query" / name) for name in ("20.jpg", "21.jpg")]


def test_rankings_are_those_of_a_loop_over_the_formula(run, place):
    extractor = DPMExtractor(run, device="cpu")
    index = read_index(find_index(place / "gallery"))
    answers, unreadable = search(queries(place), index, extractor, top=5)
    assert unreadable == [] and [str(answer.path) for answer in answers] == queries(place)
    found = extractor(queries(place))
    for answer, q, m in zip(answers, found.embedding.double().numpy(), found.mask.double().numpy()):
        for name, mask in (("on", m), ("off", np.ones_like(m))):
            scores = []
            for path in index.paths:
                g = mask * extractor(place / "gallery" / path).embedding[0].double().numpy()
                scores.append(q @ g / np.linalg.norm(q) / np.linalg.norm(g))
            best = np.argsort(-np.array(scores))
            ranks = {index.paths[row]: rank for rank, row in enumerate(best, start=1)}
            matches = getattr(answer, name)
            assert [match.name for match in matches] == list(ranks)[:5]
            assert [match.rank for match in matches] == [1, 2, 3, 4, 5]
            np.testing.assert_allclose([match.score for match in matches], np.array(scores)[best[:5]], atol=1e-5)
            other = answer.off if name == "on" else answer.on
            assert [match.other_rank for match in other] == [ranks[match.name] for match in other]
    assert [match.name for match in answers[0].on] != [match.name for match in answers[0].off]


def test_an_index_is_searched_chunk_by_chunk_with_the_same_results(run, place, monkeypatch):
    extractor, index = DPMExtractor(run, device="cpu"), read_index(find_index(place / "gallery"))
    expected, _ = search(queries(place), index, extractor, top=4)
    shapes = []

    def watched(queries, gallery, rows):
        shapes.append((len(queries), len(gallery)))
        return block(queries, gallery, rows)

    block = blocks.distance_block
    monkeypatch.setattr(blocks, "distance_block", watched)
    monkeypatch.setitem(blocks.CHUNK_SIZES, "cpu", 2)
    found, _ = search(queries(place), index, extractor, top=4)
    assert max(shapes) == (2, 2)  # of 9 pictures
    for answer, wanted in zip(found, expected, strict=True):
        for (_name, matches), (_, others) in zip(answer.lists, wanted.lists, strict=True):
            assert [match._replace(score=0) for match in matches] == [match._replace(score=0) for match in others]
            scores = [[match.score for match in each] for each in (matches, others)]
            np.testing.assert_allclose(*scores, atol=1e-6)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="a process's mapped files are seen on Linux only")
def test_an_index_is_memory_mapped_and_joined_with_batches_that_are_not_merged_yet(tmp_path):
    for number in range(3):
        draw(tmp_path / f"{number}.png", number)
    update(tmp_path)
    index = read_index(tmp_path / FOLDER)
    assert str(tmp_path / FOLDER / index.features) in Path("/proc/self/maps").read_text()
    add_batch(tmp_path / FOLDER, ["1.png"], [(1, 1)], torch.full((1, 3), 0.5))  # "1.png" anew, after an interruption
    joined = read_index(tmp_path / FOLDER)
    assert joined.paths == index.paths and joined.stamps[1] == (1, 1)
    assert torch.equal(joined.embedding[[0, 2]], index.embedding[[0, 2]]) and (joined.embedding[1] == 0.5).all()


def test_a_search_prints_and_writes_its_results(place, tmp_path, capsys):
    spoilt = tmp_path / "spoilt.jpg"
    spoilt.write_text("no picture", encoding="utf-8")
    out = tmp_path / "out" / "results.json"
    assert (
        main(
            [
                "query",
                *queries(place),
                str(spoilt),
                "--index",
                str(place / "gallery"),
                "--top",
                "4",
                "--device",
                "cpu",
                "--json",
                str(out),
            ]
        )
        == 0
    )
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
        (["index", "{tmp}/empty", "--model", "{runs}/run"], "no picture in"),
        (["index", "{tmp}/nowhere", "--model", "{runs}/run"], "nowhere' is no folder"),
        (["index", "{tmp}/text", "--model", "{runs}/run"], "none of the 1 pictures"),
        (["index", "{place}/query", "--model", "{runs}/cut"], "cannot be read as plain weights"),
        (["index", "{place}/query", "--model", "{runs}/gone"], "gone' does not exist"),
        (["index", "{place}/query", "--model", "{runs}/run", "--index", "{tmp}/text/a.jpg"], "a.jpg"),
        (["index", "{place}/gallery", "--model", "{runs}/other"], "made by another model"),
        (["query", "{place}/query/20.jpg", "--index", "{tmp}/text"], "no index in"),
        ([*QUERY, "--model", "{runs}/other"], "made by another model"),
        ([*QUERY, "--top", "0"], "at least 1"),
        (["query", "{tmp}/text/a.jpg", "{tmp}/b.jpg", "--index", "{place}/gallery"], "no query can be read"),
        ([*QUERY, "--html", "{tmp}/text"], "text' cannot be written"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2_and_leaves_nothing(runs, place, tmp_path, capsys, arguments, said):
    for name in ("empty", "text"):
        (tmp_path / name).mkdir()
    (tmp_path / "text" / "a.jpg").write_text("text", encoding="utf-8")
    before = sorted(tmp_path.rglob("*")) + sorted(place.rglob("*"))
    words = [argument.format(tmp=tmp_path, runs=runs, place=place) for argument in arguments]
    assert main([*words, "--device", "cpu"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error
    assert sorted(tmp_path.rglob("*")) + sorted(place.rglob("*")) == before


# ---- the page ----


def hostile_page(name):
    matches = [Match(rank, f"<b>/{name}", f"/gone/{name}", 0.5, 3 - rank, 0.25) for rank in (1, 2)]
    index = store.Index(Path("/index"), Path("/gone") / name, {"name": name}, [], [], None, None, [])
    return answers_page([Answer(Path("/gone") / name, 0.5, matches, matches)], index)


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(exclude_characters="/", codec=None), min_size=1, max_size=30))
def test_no_file_name_adds_a_tag_or_an_attribute(name):
    found, plain = (Tags(hostile_page(text)) for text in (name, "plain.jpg"))
    assert [(tag, sorted(attributes)) for tag, attributes in found.tags] == [
        (tag, sorted(attributes)) for tag, attributes in plain.tags
    ]


VISIBLE = "[...document.querySelectorAll('article')].filter(a => a.offsetHeight > 0).map(a => a.id).join()"


@pytest.fixture(scope="module")
def written_page(place, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "found <b>.html"
    index = ["--index", str(place / "gallery")]
    assert main(["query", *queries(place), *index, "--device", "cpu", "--html", str(path)]) == 0
    return path


def test_the_page_shows_both_lists_with_scores_and_needs_no_other_file(written_page):
    text = written_page.read_text(encoding="utf-8")
    parsed = Tags(text)
    assert parsed.texts["h3"] == ["Query", "With the query's mask", "Without mask"] * 2
    assert sum(tag == "img" for tag, _ in parsed.tags) == 2 * (1 + 9 + 9)
    assert all(source.startswith("data:image/jpeg;base64,") for source in parsed.values("src"))
    assert "<li>25% hidden</li>" in text and ", 0% hidden</figcaption>" in text and "(was " in text
    assert "http" not in text.replace("http-equiv", "") and "<table>" not in text
    assert "default-src 'none'" in text


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_lists_stand_side_by_side_and_keys_leaf_through_queries(written_page, browser, width):
    browser.open(written_page.as_uri(), width, 800)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    assert browser.ask(VISIBLE) == "q1"
    left, right = (
        browser.ask(f"document.querySelectorAll('#q1 .list')[{number}].getBoundingClientRect().x") for number in (0, 1)
    )
    assert left < right
    shown = "[...document.querySelectorAll('#q1 img')].every(i => i.naturalWidth > 0 && i.offsetWidth > 0)"
    assert browser.ask(shown) is True
    browser.press("ArrowRight")
    assert browser.ask(VISIBLE) == "q2" and browser.ask("location.hash") == "#q2"
    requests = [
        event["params"]["request"]["url"][:5]
        for event in browser.events
        if event.get("method") == "Network.requestWillBeSent"
    ]
    assert requests and set(requests) <= {"file:", "data:"}
    assert not [
        event for event in browser.events if event.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded")
    ]
