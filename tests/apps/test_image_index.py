"""tools/search.py index: an index that survives every interruption and holds what its images are."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dpm_plugin import DPMError, DPMExtractor
from dpm_plugin.apps.image_index import store
from dpm_plugin.apps.image_index.indexing import list_images
from dpm_plugin.apps.image_index.store import FOLDER, add_batch, read_index, writing
from dpm_plugin.utils.images import read_image
from helpers.image_index import MODEL, MeanColour, content, draw_images, update
from helpers.images import cut, draw_noise
from helpers.runs import untrained_run

pytestmark = pytest.mark.torchreid


def test_an_index_made_in_halves_equals_the_index_made_at_once(tmp_path):
    names = [f"{place}/{number}.png" for place in ("b", "a") for number in range(5)]
    for number, name in enumerate(names):
        for top in ("all", "grows")[: 1 + number % 2]:
            draw_noise(tmp_path / top / name, number)
    extractor = DPMExtractor(untrained_run(tmp_path / "run")[0], device="cpu", batch_size=3)
    model = {**MODEL, "feature_dim": 16}
    assert update(tmp_path / "all", tmp_path / "once", extractor, model).embedded == 10
    assert update(tmp_path / "grows", tmp_path / "twice", extractor, model).embedded == 5
    for name in names[::2]:
        shutil.copy(tmp_path / "all" / name, tmp_path / "grows" / name)
    assert update(tmp_path / "grows", tmp_path / "twice", extractor, model).embedded == 5
    (paths, once), (others, twice) = content(tmp_path / "once"), content(tmp_path / "twice")
    assert paths == others == sorted(names)
    torch.testing.assert_close(once, twice, atol=1e-5, rtol=1e-5)
    expected = extractor([tmp_path / "all" / name for name in paths]).embedding
    torch.testing.assert_close(once, expected, atol=1e-5, rtol=1e-5)


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "lock"}


def test_only_new_and_changed_images_are_embedded_and_gone_ones_removed(tmp_path):
    draw_images(tmp_path, 5)
    assert update(tmp_path)[1:] == (5, 5, 0, [])
    before = times(tmp_path / FOLDER)
    extractor = MeanColour()
    assert update(tmp_path, extractor=extractor)[1:] == (5, 0, 0, []) and not extractor.prepared
    assert before == times(tmp_path / FOLDER)
    draw_noise(tmp_path / "1.png", 101)
    os.utime(tmp_path / "1.png", ns=(1, 1))
    draw_noise(tmp_path / "new" / "7.png", 7)
    (tmp_path / "3.png").unlink()
    assert update(tmp_path)[1:] == (5, 2, 1, [])
    paths, embedding = content(tmp_path / FOLDER)
    assert paths == ["0.png", "1.png", "2.png", "4.png", "new/7.png"]
    expected = torch.stack([MeanColour().prepare(tmp_path / path) for path in paths])
    assert torch.equal(embedding, expected)
    kinds = sorted(path.name.partition("-")[0] for path in (tmp_path / FOLDER).iterdir())
    assert kinds == ["features", "index.json", "lock"]


def test_an_end_at_any_write_loses_nothing_but_its_own_batch(tmp_path, monkeypatch):
    draw_images(tmp_path / "images", 7)
    update(tmp_path / "images", tmp_path / "expected")
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
            update(tmp_path / "images", folder)
            break
        except KeyboardInterrupt:
            pass
        monkeypatch.setattr(store, "write_file", write)
        kept = len(read_index(folder).paths) if (folder / "index.json").exists() else 0
        finished = sum(path.name.startswith("batch") for path in calls[: stops // 2 + stops % 2])
        assert kept == min(7, 2 * finished)
        again = MeanColour()
        done = update(tmp_path / "images", folder, again)
        assert done.embedded == len(again.prepared) == 7 - kept
        assert content(folder)[0] == expected[0] and torch.equal(content(folder)[1], expected[1])
        stops += 1
    assert stops == 2 * 7  # the list at the start, 4 batches, the features, the list at the end


def test_an_index_moves_with_its_images_or_follows_them(tmp_path):
    draw_noise(tmp_path / "old" / "a.png")
    update(tmp_path / "old")
    update(tmp_path / "old", tmp_path / "index")
    (tmp_path / "old").rename(tmp_path / "new")
    assert read_index(tmp_path / "new" / FOLDER).root == (tmp_path / "new").resolve()
    assert update(tmp_path / "new", tmp_path / "index").embedded == 0
    assert read_index(tmp_path / "index").root == (tmp_path / "new").resolve()
    draw_noise(tmp_path / "other" / "a.png")
    with pytest.raises(DPMError, match="is of the images in .*new', not of those in .*other'"):
        update(tmp_path / "other", tmp_path / "index")


def test_two_processes_do_not_write_one_index(tmp_path):
    pytest.importorskip("fcntl")
    draw_noise(tmp_path / "a.png")
    with writing(tmp_path / FOLDER), pytest.raises(DPMError, match="another process"):
        update(tmp_path)
    assert not (tmp_path / FOLDER).exists() and update(tmp_path).total == 1


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="a process's mapped files are seen on Linux only")
def test_an_index_is_memory_mapped_and_joined_with_batches_that_are_not_merged_yet(tmp_path):
    draw_images(tmp_path, 3)
    update(tmp_path)
    index = read_index(tmp_path / FOLDER)
    (features,) = (tmp_path / FOLDER).glob("features-*")
    assert str(features) in Path("/proc/self/maps").read_text()
    add_batch(tmp_path / FOLDER, 1, {"1.png": (1, 1)}, torch.full((1, 3), 0.5))  # "1.png" anew, after an interruption
    joined = read_index(tmp_path / FOLDER)
    assert joined.paths == index.paths and joined.stamps[1] == (1, 1)
    assert torch.equal(joined.embedding[[0, 2]], index.embedding[[0, 2]]) and (joined.embedding[1] == 0.5).all()


# ---- images ----


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
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    draw_noise(tmp_path / ".hidden" / "a.png")
    names = list_images(tmp_path)
    assert len(names) == 11 and names == sorted(names)
    for name in names:
        image = read_image(tmp_path / name, upright=True)
        assert image.mode == "RGB" and abs(np.asarray(image).mean() - 127) < 3, name
    exif = Image.Exif()
    exif[0x0112] = 8
    draw_noise(tmp_path / "turned.jpg", exif=exif, size=(30, 10))
    draw_noise(tmp_path / "plain.jpg", size=(30, 10))
    turned = np.rot90(np.asarray(read_image(tmp_path / "plain.jpg", upright=True)))
    assert (np.asarray(read_image(tmp_path / "turned.jpg", upright=True)) == turned).all()
    draw_noise(tmp_path / "broken.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff", size=(30, 10))
    assert read_image(tmp_path / "broken.jpg", upright=True).size == (30, 10)


def test_unreadable_files_are_listed_and_passed_over_until_they_can_be_read(tmp_path):
    draw_noise(tmp_path / "good.png")
    (tmp_path / "text.jpg").write_text("no image", encoding="utf-8")
    (tmp_path / "empty.png").touch()
    draw_noise(tmp_path / "cut.png", 1)
    cut(tmp_path / "cut.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    done = update(tmp_path)
    assert done.total == done.embedded == 1
    files = [line.split("'")[1].rsplit("/")[-1] for line in done.unreadable]
    assert files == ["cut.png", "empty.png", "gone.png", "text.jpg"]
    assert not any("\n" in line for line in done.unreadable)
    draw_noise(tmp_path / "text.jpg")
    assert update(tmp_path)[1:3] == (2, 1)
    (tmp_path / "good.png").write_text("spoilt", encoding="utf-8")
    update(tmp_path)
    assert content(tmp_path / FOLDER)[0] == ["text.jpg"]  # what good.png was is no longer known


@pytest.mark.parametrize("files", [{}, {"a.txt": "text"}, {"a.jpg": "text"}, {".a.jpg": "text"}])
def test_a_folder_without_readable_image_is_an_error_that_leaves_nothing(tmp_path, files):
    (tmp_path / "images").mkdir()
    for name, text in files.items():
        (tmp_path / "images" / name).write_text(text, encoding="utf-8")
    for folder in (None, tmp_path / "index"):
        with pytest.raises(DPMError, match="no image|none of the 1 images"):
            update(tmp_path / "images", folder)
    assert {path.name for path in tmp_path.rglob("*")} == {"images", *files}
