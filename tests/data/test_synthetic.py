"""What the synthetic benchmark promises, on a tiny one."""

import dataclasses
import json
import multiprocessing
import os
import re
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dpm_plugin.data.datasets import SyntheticOccluded
from dpm_plugin.data.synthetic import Occluder, SyntheticSpec, generate, occluders, render
from dpm_plugin.data.synthetic.identity import id_ranges, identity, lookalikes
from dpm_plugin.data.synthetic.render import BANDS
from dpm_plugin.utils.errors import DPMError

generating = sys.modules["dpm_plugin.data.synthetic.generate"]
SIZES = dict(train_ids=9, train_images=4, test_ids=9, gallery_images=3, query_images=2, distractor_ids=2)
TINY = SyntheticSpec(seed=3, height=64, width=32, cameras=3, **SIZES)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return SyntheticOccluded(str(tmp_path_factory.mktemp("data")), TINY, verbose=False)


def files(folder):
    found = sorted(p for p in Path(folder).rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


def test_bytes_do_not_depend_on_the_run_or_the_number_of_workers(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(generating, "_WORTH_A_PROCESS", 1)
    again = generate(TINY, tmp_path, workers=3, verbose=False)
    assert files(again) == files(dataset.dataset_dir)


def test_an_image_does_not_depend_on_what_was_drawn_before_it():
    first = render(TINY, "query", 12, 1).pixels
    render(TINY, "train", 2, 0)
    again = render(TINY, "query", 12, 1).pixels
    assert np.array_equal(first, again)


def test_another_seed_draws_other_people_in_another_folder():
    other = dataclasses.replace(TINY, seed=4)
    assert other.digest() != TINY.digest()
    assert identity(other, 1) != identity(TINY, 1)
    assert not np.array_equal(render(other, "train", 1, 0)[0], render(TINY, "train", 1, 0)[0])


def test_every_query_is_hidden_within_the_bounds_and_no_gallery_image_is(dataset):
    for path, *_ in dataset.query:
        record = dataset.visibility[path]
        assert TINY.hidden_min <= record["hidden"] <= TINY.hidden_max
        assert record["occluder"] in occluders.KINDS
    for path, *_ in dataset.gallery:
        record = dataset.visibility[path]
        assert (record["hidden"], record["occluder"], max(record["hidden_bands"])) == (0.0, "none", 0.0)


@settings(max_examples=25, deadline=None)
@given(
    pid=st.integers(10, 18),
    index=st.integers(0, 9999),
    kind=st.sampled_from([None, *occluders.KINDS]),
    low=st.floats(0.05, 0.8),
    width=st.floats(0.06, 0.1),
)
def test_a_prescribed_hidden_share_is_kept_for_every_kind(pid, index, kind, low, width):
    pixels, share, got, *_ = render(TINY, "query", pid, index, occluder=Occluder(kind, low, low + width))
    assert low <= share <= low + width
    assert kind in (None, got) or got == "wall"
    assert pixels.shape == (64, 32, 3) and pixels.dtype == np.uint8


def test_hidden_share_counts_the_covered_pixels_of_the_person():
    rng = np.random.default_rng(0)
    body, cover = rng.random((2, 12, 7)) < 0.5
    for dx, dy in ((0, 0), (2, -3), (-4, 5), (6, 0), (-6, 11)):
        covered = sum(cover[y - dy, x - dx] for y, x in zip(*np.nonzero(body)) if 0 <= y - dy < 12 and 0 <= x - dx < 7)
        assert occluders.hidden_share(body, cover, dx, dy) == pytest.approx(covered / body.sum())


def test_without_its_occluder_a_query_keeps_its_person_and_place():
    changed = []
    for pid in range(10, 19):
        hidden, share, *_ = render(TINY, "query", pid, 0)
        clear, none, kind, *_ = render(TINY, "query", pid, 0, occluder=None)
        assert share > 0 and none == 0 and kind == "none"
        # No JPEG yet: what the occluder leaves free is equal to the last bit, but for blur at its rim.
        changed.append(np.mean(np.any(hidden != clear, axis=2)))
    assert min(changed) > 0 and np.mean(changed) < 0.8


def test_what_is_hidden_in_a_band_is_what_changes_there(dataset):
    record = dataset.visibility[dataset.query[0][0]]
    assert len(record["person_bands"]) == len(record["hidden_bands"]) == BANDS
    for pid in range(10, 19):
        drawn, clear = render(TINY, "query", pid, 0), render(TINY, "query", pid, 0, occluder=None)
        assert sum(drawn.person_bands) == pytest.approx(1) and sum(drawn.hidden_bands) == pytest.approx(drawn.hidden)
        assert all(hidden <= person for hidden, person in zip(drawn.hidden_bands, drawn.person_bands))
        assert drawn.person_bands == clear.person_bands and sum(clear.hidden_bands) == 0
        changed = np.any(drawn.pixels != clear.pixels, axis=2)  # (64, 32); blur carries a change two pixels on
        edges = [64 * band // BANDS for band in range(BANDS + 1)]
        touched = [changed[max(top - 2, 0) : bottom + 3].any() for top, bottom in zip(edges, edges[1:])]
        assert all(there for there, hidden in zip(touched, drawn.hidden_bands) if hidden > 0.002)


def test_the_stated_share_of_training_images_is_occluded(dataset):
    hidden = [dataset.visibility[path]["hidden"] for path, *_ in dataset.train]
    assert sum(h > 0 for h in hidden) == np.ceil(TINY.train_occluded * len(hidden))
    assert all(h == 0 or TINY.hidden_min <= h <= TINY.hidden_max for h in hidden)


def test_defaults_keep_the_benchmark_hard():
    spec = SyntheticSpec()
    assert spec.train_occluded >= 1 / 3 and spec.test_ids >= 150 and spec.lookalike_share > 0
    assert (spec.hidden_min, spec.hidden_max) == (0.2, 0.6)


def test_look_alikes_differ_in_one_or_two_items_and_no_two_identities_in_none():
    spec = SyntheticSpec()
    for pids in list(id_ranges(spec).values())[:2]:
        groups = {lookalikes(spec, pid) for pid in pids}
        in_groups = sum(len(group) for group in groups if len(group) > 1)
        assert in_groups >= 0.9 * spec.lookalike_share * len(pids)
        for group in groups:
            for i, a in enumerate(group):
                for b in group[:i]:
                    one, two = dataclasses.asdict(identity(spec, a)), dataclasses.asdict(identity(spec, b))
                    different = sum(one[name] != two[name] for name in one)
                    assert 1 <= different <= 4  # an item is up to two fields: a kind and its colour
    count = spec.train_ids + spec.test_ids + spec.distractor_ids
    assert len({identity(spec, pid) for pid in range(1, count + 1)}) == count


@settings(max_examples=25, deadline=None)
@given(cameras=st.integers(2, 8), gallery=st.integers(1, 9), query=st.integers(1, 9), pid=st.integers(10, 18))
def test_every_query_has_a_match_in_another_camera(cameras, gallery, query, pid):
    spec = dataclasses.replace(TINY, cameras=cameras, gallery_images=gallery, query_images=query)
    names = [generating.relative_path(spec, "gallery", pid, i) for i in range(gallery)]
    seen = {re.search(r"_c(\d)_", name).group(1) for name in names}
    queries = [generating.relative_path(spec, "query", pid, i) for i in range(query)]
    assert all(seen - {re.search(r"_c(\d)_", name).group(1)} for name in queries)
    assert len(set(names + queries)) == gallery + query


def test_folders_and_sizes_are_as_the_spec_says(dataset):
    folder = Path(dataset.dataset_dir)
    names = "bounding_box_test bounding_box_train query spec.json visibility.json"
    assert sorted(p.name for p in folder.iterdir()) == names.split()
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (36, 18, 31)
    assert {pid for _, pid, *_ in dataset.train} == set(range(9))
    assert {pid for _, pid, *_ in dataset.query} == set(range(10, 19))
    assert {camid for _, _, camid, _ in dataset.train} == {0, 1, 2}
    for rows in (dataset.train, dataset.query, dataset.gallery):
        paths = [path for path, *_ in rows]
        assert paths == sorted(paths)
        assert all(re.fullmatch(r"\d{4}_c[1-3]_f\d{7}\.jpg", Path(path).name) for path in paths)
    assert dataset[0]["img"].size == (32, 64)
    assert json.loads((folder / "spec.json").read_text())["seed"] == 3


def test_it_takes_what_torchreid_hands_to_every_data_set(dataset):
    base = dict(transform=None, k_tfm=1, mode="query", combineall=False, verbose=False)
    others = dict(split_id=0, cuhk03_labeled=False, cuhk03_classic_split=False, market1501_500k=False)
    assert len(SyntheticOccluded(root=dataset.root, spec=TINY, **base, **others)) == 18


def test_a_failure_in_the_middle_leaves_nothing(tmp_path, monkeypatch):
    drawn = []

    def fail(*args, **kwargs):
        drawn.append(args)
        if len(drawn) == 5:
            raise OSError("no space left on device")
        return render(*args, **kwargs)

    monkeypatch.setattr(generating, "render", fail)
    with pytest.raises(DPMError, match="no space left"):
        generate(TINY, tmp_path, workers=1, verbose=False)
    left = [p for p in (tmp_path / "synthetic_occluded").iterdir() if not p.name.endswith(".lock")]
    assert left == []


@pytest.mark.skipif(sys.platform != "linux", reason="forks a process and kills it")
def test_after_a_kill_the_next_run_cleans_up_and_writes_the_whole_set(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(generating, "render", lambda *args: (time.sleep(0.2), render(*args))[1])
    process = multiprocessing.get_context("fork").Process(target=generate, args=(TINY, tmp_path, 1, False))
    process.start()
    parent = tmp_path / "synthetic_occluded"
    deadline = time.monotonic() + 60
    while not list(parent.glob(".*/*/*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    monkeypatch.undo()
    assert list(parent.glob(".*/*/*.jpg")), "the process was to be killed while it drew"
    assert not (parent / TINY.digest()).exists()
    folder = generate(TINY, tmp_path, workers=1, verbose=False)
    assert files(folder) == files(dataset.dataset_dir)
    assert not [p for p in parent.iterdir() if p.is_dir() and p != folder]


def test_a_changed_data_set_is_refused_with_advice(tmp_path):
    folder = generate(TINY, tmp_path, workers=1, verbose=False)
    next((folder / "query").iterdir()).unlink()
    with pytest.raises(DPMError, match="delete that folder"):
        generate(TINY, tmp_path, workers=1, verbose=False)


WRONG = [
    dict(seed=-1, height=8, width=64.5, cameras=1, train_ids=0, train_images="12", train_occluded=1.5, test_ids=True),
    dict(gallery_images=0, query_images=None, distractor_ids=-1, hidden_min=0.58, hidden_max=float("nan")),
    dict(lookalike_share=-0.1, lookalike_group=7, cameras=9, train_ids=9990),
]


@pytest.mark.parametrize("field, value", [pair for values in WRONG for pair in values.items()])
def test_a_wrong_value_is_refused_by_the_name_of_its_field(field, value):
    with pytest.raises(DPMError, match=field):
        SyntheticSpec(**{field: value})


def test_a_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DPMError, match="data.root"):
        generate(TINY, tmp_path / "file", verbose=False)
