"""The model zoo: fetched once, whole or not at all, and a way by hand where the network refuses."""
import os
from pathlib import Path

import gdown
import pytest
import torch
from helpers_model import tiny_model, to_released

from dpm_plugin import DPMError, load_weights, zoo
from dpm_plugin.torchreid_host import models


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


class Drive:
    """Stands in for gdown: writes ``content`` and notes each call."""

    def __init__(self, content):
        self.content, self.calls = content, []

    def __call__(self, drive_id, path):
        self.calls.append(drive_id)
        Path(path).write_bytes(self.content)


def test_weights_are_fetched_once_and_load_by_their_name(cache, released, model):
    path, source = released
    drive = Drive(path.read_bytes())
    for _ in range(2):
        assert zoo.fetch("occluded_duke", drive) == cache / "occluded_duke.pth"
    assert drive.calls == ["12rTyilUnwOy-lsaM65Y_ce_6AmOivgm1"]
    assert os.listdir(cache) == ["occluded_duke.pth"]
    report = load_weights(model, "zoo:occluded_duke")
    assert report.layout == "released" and report.skipped == ["classifier.weight"]
    assert torch.equal(model.neck.weight, source.neck.weight)
    zoo.fetch("occluded_reid", drive)
    assert drive.calls[1:] == ["1J86byKnQocDK9XZeQuMvg-qvS_gN_zAd"]


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


def foreign(drive_id, path):
    torch.save(models.build_model("osnet_x0_25", num_classes=4, pretrained=False).state_dict(), path)


@pytest.mark.parametrize("download, reason", [
    (refusing, "Max retries exceeded"),
    (Drive(b"<html>Too many users have viewed or downloaded this file recently</html>"), "cannot be read"),
    (lambda drive_id, path: None, "does not exist"),
    (foreign, "a torchreid checkpoint"),
], ids=["offline", "a page", "nothing", "another network"])
def test_what_cannot_be_downloaded_names_the_page_and_the_place_and_leaves_nothing(cache, download, reason):
    with pytest.raises(DPMError) as error:
        zoo.fetch("occluded_duke", download)
    message = str(error.value)
    assert reason in message and "\n" not in message
    assert "https://drive.google.com/file/d/12rTyilUnwOy-lsaM65Y_ce_6AmOivgm1/view" in message
    assert f"put it at '{cache}/occluded_duke.pth'" in message
    assert os.listdir(cache) == []


def test_half_a_file_does_not_take_the_name(cache, released):
    whole = released[0].read_bytes()
    with pytest.raises(DPMError):
        zoo.fetch("occluded_duke", Drive(whole[: len(whole) // 2]))
    assert os.listdir(cache) == []
    assert zoo.fetch("occluded_duke", Drive(whole)).is_file()


def test_an_interrupted_download_leaves_nothing(cache):
    def interrupted(drive_id, path):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        zoo.fetch("occluded_duke", interrupted)
    assert os.listdir(cache) == []


def test_gdown_without_network_gives_our_error(cache, monkeypatch, model):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    with pytest.raises(DPMError, match="'zoo:occluded_duke' can't be downloaded .* by hand"):
        load_weights(model, "zoo:occluded_duke")
    assert os.listdir(cache) == []


def test_a_refusal_of_older_gdown_versions_is_an_error_too(cache, monkeypatch):
    asked = []
    monkeypatch.setattr(gdown, "download", lambda **options: asked.append(options["id"]))
    with pytest.raises(DPMError, match="Google Drive refused it"):
        zoo.fetch("occluded_reid")
    assert asked == ["1J86byKnQocDK9XZeQuMvg-qvS_gN_zAd"]


def test_a_cache_that_cannot_be_made_is_an_error(cache):
    cache.write_text("a file where the folder should be")
    with pytest.raises(DPMError, match="can't be downloaded"):
        zoo.fetch("occluded_duke", Drive(b""))


def test_an_unknown_name_is_an_error_with_the_nearest_known_one(model):
    with pytest.raises(DPMError, match="the zoo has no weights 'occ_reid'; .* 'zoo:occluded_reid'"):
        load_weights(model, "zoo:occ_reid")


def test_the_cache_lies_in_torchs_hub_folder_unless_said(tmp_path, monkeypatch):
    monkeypatch.delenv("DPM_CACHE", raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert zoo.cache_folder() == tmp_path / "hub" / "dpm_torchreid"
