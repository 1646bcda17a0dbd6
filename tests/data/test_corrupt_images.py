"""data.corrupt: an unreadable training image is an error that names it, or another of its identity replaces it."""

import json
import traceback
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

import helpers.data
from dpm_plugin.config import load_config
from dpm_plugin.data.skipping import merge_skipped
from dpm_plugin.utils.errors import DPMError
from helpers.data import write_market, write_occluded_duke
from helpers.runs import finished_run

pytestmark = pytest.mark.slow

CORRUPT = ["0003_c1_f0000001.jpg", "0010_c2_f0000001.jpg"]  # the second, and the last of its identity
STANDS_IN = {CORRUPT[0]: "0003_c2_f0000000.jpg", CORRUPT[1]: "0010_c1_f0000000.jpg"}


@pytest.fixture
def train(tmp_path):
    """The folder of 12 training images of three identities, two of them spoilt."""
    folder = write_occluded_duke(tmp_path) / "bounding_box_train"
    for seed, path in enumerate(sorted(folder.iterdir())):
        noise = np.random.default_rng(seed).integers(0, 256, (16, 8, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path, quality=95)
    for name in CORRUPT:
        (folder / name).write_bytes((folder / name).read_bytes()[:300])
    return folder


def manager(root, corrupt="skip", workers=0, start=None, **options):
    options = {"train_sampler": "SequentialSampler", **options}
    data = helpers.data.manager(root, corrupt=corrupt, workers=workers, **options)
    if start:
        data.train_loader.multiprocessing_context = start
        data.train_loader.timeout = 120  # seconds, so that a hang is a failure
    return data


def epoch(data):
    """[(file name, identity, image)] in the order of the epoch."""
    rows = []
    for batch in data.train_loader:
        assert sorted(batch) == ["camid", "dsetid", "img", "impath", "pid"]
        rows += zip([path.rpartition("/")[2] for path in batch["impath"]], batch["pid"].tolist(), batch["img"])
    return rows


@pytest.mark.parametrize(
    "workers, start, persistent",
    [
        (0, None, False),
        (2, "fork", False),
        (2, "fork", True),
        (1, "spawn", False),
        pytest.param(2, "spawn", False, marks=pytest.mark.fuzz),
    ],
)
def test_another_image_of_the_identity_stands_for_a_corrupt_one_wherever_it_is_read(
    workers, start, persistent, train, capsys
):
    data = manager(train.parents[1], workers=workers, start=start, persistent_workers=persistent)
    listed = [(path.rpartition("/")[2], pid) for path, pid, _, _ in data.train_loader.dataset.train]
    found = epoch(data)
    assert [(name, pid) for name, pid, _ in found] == [(STANDS_IN.get(name, name), pid) for name, pid in listed]
    images = {}
    for name, _, image in found:
        assert torch.equal(images.setdefault(name, image), image)
    assert data.skipped == {str(train / name): 1 for name in CORRUPT}
    printed = capsys.readouterr().out
    if start != "spawn":  # whose output goes past capsys
        epoch(data)
        assert data.skipped == {str(train / name): 2 for name in CORRUPT}
        if workers == 0:
            printed += capsys.readouterr().out
            assert all(printed.count(f"image '{train / name}' cannot be read") == 1 for name in CORRUPT)


def test_batches_of_identities_keep_their_identities(train):
    data = manager(train.parents[1], train_sampler="RandomIdentitySampler", num_instances=2)
    for batch in data.train_loader:
        assert sorted(batch["pid"].bincount().tolist())[-2:] == [2, 2]


def test_with_intact_images_skip_changes_nothing(train, capsys):
    for name in CORRUPT:
        (train / name).write_bytes((train / STANDS_IN[name]).read_bytes())
    plain, skipping = (epoch(manager(train.parents[1], corrupt)) for corrupt in ("error", "skip"))
    assert all(a[:2] == b[:2] and torch.equal(a[2], b[2]) for a, b in zip(plain, skipping, strict=True))
    assert "cannot be read" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "workers, start, sources",
    [
        (0, None, "occluded_duke"),
        (0, None, ["market1501", "occluded_duke"]),
        (2, "fork", "occluded_duke"),
        # The harder case for a fresh process: the class of summed data sets is torchreid's own.
        pytest.param(2, "spawn", ["market1501", "occluded_duke"], marks=pytest.mark.fuzz),  # imports everything anew
    ],
)
def test_by_default_it_is_an_error_in_one_line_that_names_the_image(workers, start, sources, train):
    write_market(train.parents[1])
    data = manager(train.parents[1], "error", workers, start, sources=sources)
    assert data.skipped is None
    batches = iter(data.train_loader)
    with pytest.raises(DPMError) as caught:
        list(batches)
    # The traceback keeps the workers waiting in a cycle; breaking it ends them now, not in a later test.
    traceback.clear_frames(caught.tb)
    del batches
    assert str(caught.value).startswith(f"image '{train / CORRUPT[0]}' cannot be read (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_identity_without_any_readable_image_is_an_error(workers, train):
    for path in train.glob("0007*"):
        path.write_bytes(b"nothing")
    data = manager(train.parents[1], workers=workers)
    with pytest.raises(DPMError, match="none of the 4 images of an identity can be read, .*0007_c1_f0000000"):
        epoch(data)


def test_an_image_that_vanishes_and_a_test_image_that_cannot_be_read_are_errors_even_so(train):
    data = manager(train.parents[1])
    (train / "0007_c1_f0000000.jpg").unlink()
    with pytest.raises(DPMError, match="does not exist; was it moved"):
        epoch(data)
    query = train.parent / "query" / "0020_c1_f0000001.jpg"
    query.write_bytes(b"nothing")
    with pytest.raises(DPMError, match=f"image '{query}' cannot be read"):
        list(data.test_loader["occluded_duke"]["query"])


def test_an_unknown_choice_and_video_are_refused(train):
    with pytest.raises(DPMError, match="data.corrupt"):
        manager(train.parents[1], "ignore")
    with pytest.raises(DPMError, match="data.corrupt skip works with data.type image"):
        load_config(overrides={"data.corrupt": "skip", "data.type": "video"})


def test_counts_of_several_processes_are_added():
    assert merge_skipped([Counter(b=1), Counter(a=2, b=1), Counter()]) == {"count": 4, "files": {"a": 2, "b": 2}}


@pytest.mark.filterwarnings("ignore:occluded_duke")
def test_a_run_lists_what_was_skipped_at_its_end_and_in_its_results(train, tmp_path, capsys):
    duke = {"data__sources": ["occluded_duke"], "data__targets": ["occluded_duke"], "data__corrupt": "skip"}
    training = {"sampler__train_sampler": "RandomSampler", "train__max_epoch": 2, "test__ranks": [1]}
    finished_run(tmp_path / "out", train.parents[1], **duke, **training)
    content = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))["run"]
    assert content["skipped_images"] == {"count": 4, "files": {str(train / name): 2 for name in CORRUPT}}
    assert content["config"]["data"]["corrupt"] == "skip"
    said = "4 times an image was replaced by another image of its identity; 2 training images cannot be read"
    assert said in capsys.readouterr().out
