"""An index that is damaged, moved, from elsewhere or in use: one line, and nothing lost."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from dpm_plugin import DPMError
from dpm_plugin.apps.image_index import store
from dpm_plugin.apps.image_index.store import FOLDER, add_batch, read_index
from helpers.image_index import MODEL, content, draw_images, update
from helpers.images import cut, draw_noise

pytestmark = pytest.mark.torchreid


def test_an_index_of_another_model_is_refused_and_kept(tmp_path):
    draw_noise(tmp_path / "a.png")
    update(tmp_path)
    draw_noise(tmp_path / "b.png")
    with pytest.raises(DPMError, match="another model.*mean colour"):
        update(tmp_path, model={**MODEL, "fingerprint": "b"})
    assert content(tmp_path / FOLDER)[0] == ["a.png"]


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
        ("index.json", cut),
        ("index.json", lambda path: path.write_text("[1]")),
        ("index.json", list_twice),
    ],
)
def test_a_damaged_index_is_one_line(tmp_path, name, harm):
    draw_noise(tmp_path / "a.png")
    update(tmp_path)
    harm(tmp_path / FOLDER / name)
    with pytest.raises(DPMError, match="index '.*is damaged") as caught:
        read_index(tmp_path / FOLDER)
    assert "\n" not in str(caught.value)


def rewrite(folder, **changes):
    content = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    (folder / "index.json").write_text(json.dumps({**content, **changes}), encoding="utf-8")


@pytest.mark.parametrize("name", ["../secret.png", "/secret.png", "a/../../secret.png", "", "..", "a\0.png", 7])
def test_an_index_from_elsewhere_names_no_file_outside_of_its_folder(tmp_path, name):
    draw_noise(tmp_path / "images" / "a.png")
    update(tmp_path / "images")
    rewrite(tmp_path / "images" / FOLDER, pictures=[[name, [1, 1]]])
    with pytest.raises(DPMError, match="is damaged"):
        read_index(tmp_path / "images")


def test_an_index_that_is_merged_meanwhile_is_read_whole(tmp_path):
    draw_noise(tmp_path / "a.png")
    folder, stop = update(tmp_path).folder, multiprocessing.get_context("fork").Event()

    def write():
        for number in range(10**6):
            add_batch(folder, 1, {f"{number}.png": (1, 1)}, torch.ones(1, 3))
            index = read_index(folder)
            store.merge(index, range(len(index.paths))[-20:], tmp_path)
            if stop.is_set():
                break

    writer = multiprocessing.get_context("fork").Process(target=write)
    writer.start()
    try:
        lengths = {len(read_index(folder).paths) for _ in range(700)}
    finally:
        stop.set()
        writer.join()
    assert writer.exitcode == 0 and lengths - {1} and not lengths & {0}


def test_a_file_that_is_missing_is_named_and_nobody_is_told_to_delete(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "TRIES", 2)
    draw_noise(tmp_path / "a.png")
    update(tmp_path)
    (tmp_path / FOLDER / "features-00000001.safetensors").unlink()
    with pytest.raises(DPMError, match="incomplete: .*features-00000001.safetensors' is missing") as caught:
        read_index(tmp_path)
    assert "delete" not in str(caught.value)


def test_images_that_were_swapped_are_embedded_again_whatever_their_size_and_time(tmp_path):
    for name, colour in (("a.bmp", 10), ("b.bmp", 200)):
        Image.new("RGB", (4, 4), (colour,) * 3).save(tmp_path / name)
        os.utime(tmp_path / name, ns=(1, 1))
    update(tmp_path)
    for old, new in (("a.bmp", "c"), ("b.bmp", "a.bmp"), ("c", "b.bmp")):
        (tmp_path / old).rename(tmp_path / new)
    assert update(tmp_path).embedded == 2
    assert content(tmp_path)[1][0, 0] * 255 == 200
    stamps = [[name, [54 + 48, 1]] for name in ("a.bmp", "b.bmp")]  # as indexes of before have them
    rewrite(tmp_path / FOLDER, pictures=stamps)
    assert update(tmp_path).embedded == 0


def test_an_index_holds_no_absolute_folder_and_finds_its_model_and_images(tmp_path):
    draw_noise(tmp_path / "images" / "a.png")
    model = {**MODEL, "source": str(tmp_path / "run"), "config_file": str(tmp_path / "run.yaml")}
    for folder in (None, tmp_path / "index"):
        folder = update(tmp_path / "images", folder, model=model).folder
        assert str(tmp_path) not in (folder / "index.json").read_text(encoding="utf-8")
        index = read_index(folder)
        assert index.root == (tmp_path / "images").resolve() and index.model == model
    assert read_index(update(tmp_path / "images", tmp_path / "zoo", model={**MODEL, "source": "zoo:a"}).folder)[2] == {
        **MODEL,
        "source": "zoo:a",
    }


def test_the_folder_is_listed_no_oftener_for_more_batches(tmp_path, monkeypatch):
    listed, own = [], Path.glob
    monkeypatch.setattr(Path, "glob", lambda self, pattern: listed.append(pattern) or own(self, pattern))
    counts = []
    for place, images in (("few", 2), ("many", 12)):
        draw_images(tmp_path / place, images)
        update(tmp_path / place)
        counts.append(len(listed))
        listed.clear()
    assert counts[0] == counts[1]
