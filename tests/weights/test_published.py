"""The model zoo: fetched once, whole or not at all, and a way by hand where the network refuses."""

import hashlib
import io
import os
import shutil
from pathlib import Path

import gdown
import numpy as np
import pytest
import torch
from PIL import Image

from dpm_plugin import DPMError, DPMExtractor, load_weights
from dpm_plugin.build import read_weights
from dpm_plugin.commands.export import main as export
from dpm_plugin.commands.search import main as search
from dpm_plugin.config import load_config, model_kwargs
from dpm_plugin.inference import export as exporting
from dpm_plugin.models import MODELS
from dpm_plugin.torchreid_host import models
from dpm_plugin.weights import published as zoo
from helpers.data import draw
from helpers.model import tiny_model, to_released
from helpers.network import go_offline

pytestmark = pytest.mark.torchreid

TINY_RUN = {"model.name": "dpm_vit_tiny", "model.pretrained": False, "vit.depth": 2, "vit.embed_dim": 24}
CONFIGS = Path(__file__).resolve().parents[2] / "configs"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache folder, not made yet."""
    monkeypatch.setenv("DPM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model():
    """Something to load into."""
    return tiny_model(num_classes=5)


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """A released checkpoint and its model."""
    model = tiny_model(num_classes=7)
    path = tmp_path_factory.mktemp("zoo") / "released.pth"
    torch.save({f"module.{key}": value for key, value in to_released(model.state_dict()).items()}, path)
    return path, model


@pytest.fixture
def drive(monkeypatch):
    """``drive(content)`` stands in for gdown's download of those bytes; returns the list of ids that are asked for."""

    def stand_in(content):
        asked = []

        def download(drive_id, path):
            asked.append(drive_id)
            Path(path).write_bytes(content)

        monkeypatch.setattr(zoo, "download_from_drive", download)
        return asked

    return stand_in


def test_weights_are_fetched_once_and_load_by_their_name(cache, released, model, drive):
    path, source = released
    asked = drive(path.read_bytes())
    for _ in range(2):
        assert zoo.local_file("zoo:occluded_duke") == cache / "occluded_duke.pth"
    assert asked == ["12rTyilUnwOy-lsaM65Y_ce_6AmOivgm1"]
    assert sorted(os.listdir(cache)) == ["occluded_duke.pth", "occluded_duke.pth.sha256"]
    report = load_weights(model, "zoo:occluded_duke")
    assert report.naming == "released" and report.skipped == ["classifier.weight"]
    assert torch.equal(model.neck.weight, source.neck.weight)
    zoo.local_file("zoo:occluded_reid")
    assert asked[1:] == ["1J86byKnQocDK9XZeQuMvg-qvS_gN_zAd"]


def test_the_digest_of_the_first_fetch_is_kept_and_a_change_is_said(cache, released, drive, capsys):
    drive(released[0].read_bytes())
    file, record = zoo.local_file("zoo:occluded_duke"), cache / "occluded_duke.pth.sha256"
    first = hashlib.sha256(file.read_bytes()).hexdigest()
    assert record.read_text() == f"{first}  occluded_duke.pth\n"  # as sha256sum -c reads it
    zoo.local_file("zoo:occluded_duke")
    assert "SHA-256" not in capsys.readouterr().out
    other = io.BytesIO()
    torch.save(to_released(tiny_model(num_classes=6).state_dict()), other)
    for change in (lambda: file.write_bytes(other.getvalue()), lambda: (file.unlink(), drive(other.getvalue()))):
        change()
        assert zoo.local_file("zoo:occluded_duke") == file  # in the cache, then fetched anew
        (said,) = (line for line in capsys.readouterr().out.splitlines() if "SHA-256" in line)
        assert first in said and hashlib.sha256(other.getvalue()).hexdigest() in said
        assert record.read_text()[:64] == first


def test_weights_of_another_digest_than_asked_for_are_refused_before_they_are_read(cache, released, model):
    path, _ = released
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_weights(model, path, digest.upper()).loaded
    config = load_config(overrides={**TINY_RUN, "model.load_weights": str(path), "model.load_sha256": "0" * 64})
    with pytest.raises(DPMError, match=f"has the SHA-256 {digest}, not {'0' * 64}"):
        read_weights(config)
    with pytest.raises(DPMError, match="model.load_sha256 needs model.load_weights"):
        load_config(overrides={"model.load_sha256": digest})


def test_a_file_placed_by_hand_is_used_and_named_where_it_is_damaged(cache, released, model):
    cache.mkdir()
    (cache / "occluded_reid.pth").write_bytes(released[0].read_bytes())
    assert not load_weights(model, "zoo:occluded_reid").missing
    (cache / "occluded_reid.pth").write_bytes(b"<html>quota</html>")
    with pytest.raises(DPMError, match=f"{cache}/occluded_reid.pth' cannot be read as plain weights"):
        load_weights(model, "zoo:occluded_reid")


def refusing(drive_id, path):
    Path(path).write_bytes(b"half of i")
    raise ConnectionError("\nMax retries exceeded\nwith many lines")


def other_network(drive_id, path):
    torch.save(models.build_model("osnet_x0_25", num_classes=4, pretrained=False).state_dict(), path)


PAGE = b"<html>Too many users have viewed or downloaded this file recently</html>"
FAILURES = {
    "Max retries exceeded": refusing,
    "cannot be read": lambda drive_id, path: Path(path).write_bytes(PAGE),
    "does not exist": lambda drive_id, path: None,
    "a torchreid checkpoint": other_network,
}


@pytest.mark.parametrize("reason, download", FAILURES.items())
def test_a_failed_download_names_the_page_and_the_place_and_leaves_nothing(cache, monkeypatch, download, reason):
    monkeypatch.setattr(zoo, "download_from_drive", download)
    with pytest.raises(DPMError) as error:
        zoo.local_file("zoo:occluded_duke")
    message = str(error.value)
    assert reason in message and "\n" not in message
    assert "https://drive.google.com/file/d/12rTyilUnwOy-lsaM65Y_ce_6AmOivgm1/view" in message
    assert f"put it at '{cache}/occluded_duke.pth'" in message
    assert os.listdir(cache) == []


def test_half_a_file_does_not_take_the_name(cache, released, drive):
    whole = released[0].read_bytes()
    drive(whole[: len(whole) // 2])
    with pytest.raises(DPMError):
        zoo.local_file("zoo:occluded_duke")
    assert os.listdir(cache) == []
    drive(whole)
    assert zoo.local_file("zoo:occluded_duke").is_file()


def test_an_interrupted_download_leaves_nothing(cache, monkeypatch):
    def interrupted(drive_id, path):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(zoo, "download_from_drive", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo.local_file("zoo:occluded_duke")
    assert os.listdir(cache) == []


def test_gdown_without_network_gives_our_error(cache, monkeypatch, model):
    go_offline(monkeypatch)
    with pytest.raises(DPMError, match="'zoo:occluded_duke' can't be downloaded .* by hand"):
        load_weights(model, "zoo:occluded_duke")
    assert os.listdir(cache) == []


def test_a_refusal_of_older_gdown_versions_is_an_error_too(cache, monkeypatch):
    asked = []
    monkeypatch.setattr(gdown, "download", lambda **options: asked.append(options["id"]))
    with pytest.raises(DPMError, match="Google Drive refused it"):
        zoo.local_file("zoo:occluded_reid")
    assert asked == ["1J86byKnQocDK9XZeQuMvg-qvS_gN_zAd"]


def test_a_cache_that_cannot_be_made_is_an_error(cache, drive):
    cache.write_text("a file where the folder should be")
    drive(b"")
    with pytest.raises(DPMError, match="can't be downloaded"):
        zoo.local_file("zoo:occluded_duke")


def test_an_unknown_name_is_an_error_with_the_nearest_known_one(model):
    with pytest.raises(DPMError, match="unknown published weights 'zoo:occ_reid'; did you mean 'zoo:occluded_reid'"):
        load_weights(model, "zoo:occ_reid")


# ---- opened as a trained model ----


@pytest.mark.parametrize("name, file", [("occluded_duke", "dpm_occduke.yaml"), ("occluded_reid", "dpm_occreid.yaml")])
def test_a_name_brings_the_settings_of_its_released_config(name, file):
    own, config = load_config(overrides=zoo.ZOO[name].settings), load_config(str(CONFIGS / "released" / file))
    assert model_kwargs(own, 5, 3) == model_kwargs(config, 5, 3) and own.model.name == config.model.name
    for key in ("height", "width", "norm_mean", "norm_std"):
        assert own.data[key] == config.data[key]
    assert own.train.amp == config.train.amp


@pytest.fixture
def small(cache, monkeypatch):
    """zoo:occluded_duke in the cache, of a size for tests; (file, config file) of the same from elsewhere."""
    entry = zoo.ZOO["occluded_duke"]
    sizes = {"vit.embed_dim": 24, "vit.depth": 4, "vit.num_heads": 3, "vit.patch_size": 32, "vit.stride": 32}
    monkeypatch.setitem(zoo.ZOO, "occluded_duke", entry._replace(settings={**entry.settings, **sizes}))
    config = load_config(overrides=zoo.ZOO["occluded_duke"].settings)
    model = MODELS["dpm_vit"](**{**model_kwargs(config, 7, 8), "pretrained": False})
    cache.mkdir()
    torch.save(to_released(model.state_dict()), cache / "occluded_duke.pth")
    shutil.copy(cache / "occluded_duke.pth", cache.parent / "alone.pth")
    (cache.parent / "settings.yaml").write_text(config.dump(), encoding="utf-8")
    return cache.parent / "alone.pth", cache.parent / "settings.yaml"


def test_an_extractor_opens_a_name_as_it_opens_the_file_with_its_config(small):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 20, 3), dtype=np.uint8))
    by_name = DPMExtractor("zoo:occluded_duke", device="cpu")
    by_file = DPMExtractor(small[0], config_file=small[1], device="cpu")
    assert by_name.image_size == (256, 128) and by_name.model.mask_generator.pool == "max"
    assert all(map(torch.equal, by_name(picture, cameras=3), by_file(picture, cameras=3)))
    again = DPMExtractor("zoo:occluded_duke", config_file=small[1], device="cpu")
    assert torch.equal(again(picture).embedding, by_name(picture).embedding)


def test_a_search_by_name_remembers_the_name_and_an_export_takes_it(small, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    draw("pictures/a.png")
    assert search(["index", "pictures", "--model", "zoo:occluded_duke", "--device", "cpu"]) == 0
    monkeypatch.chdir("pictures")  # a name is no path
    assert search(["query", "a.png", "--index", ".", "--device", "cpu"]) == 0
    assert "a.png" in capsys.readouterr().out
    monkeypatch.setattr(exporting, "_torch", lambda graph, *options: (b"content", graph))
    assert export(["zoo:occluded_duke", "out.pt2"]) == 0 and Path("out.pt2").read_bytes() == b"content"


def test_weights_of_other_settings_are_refused_by_name(small, cache, monkeypatch):
    entry = zoo.ZOO["occluded_duke"]
    monkeypatch.setitem(zoo.ZOO, "occluded_duke", entry._replace(settings={**entry.settings, "vit.depth": 3}))
    with pytest.raises(DPMError, match="occluded_duke.pth' .* another encoder"):
        DPMExtractor("zoo:occluded_duke", device="cpu")


def test_the_cache_lies_in_torchs_hub_folder_unless_said(tmp_path, monkeypatch, drive, released):
    monkeypatch.delenv("DPM_CACHE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    drive(released[0].read_bytes())
    assert zoo.local_file("zoo:occluded_duke") == tmp_path / "hub" / "dpm_torchreid" / "occluded_duke.pth"
