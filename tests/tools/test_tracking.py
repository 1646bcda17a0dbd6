"""deep-sort-realtime with our features: through its own torchreid embedder, and as tools/track_example.py does it."""

import importlib
import os

import cv2
import numpy as np
import pytest
import torch
import track_example
from PIL import Image

from dpm_plugin import DPMExtractor
from helpers.runs import untrained_run
from helpers.scripts import check_mistake

pytest.importorskip("deep_sort_realtime", reason="deep-sort-realtime is not installed")
from deep_sort_realtime.deepsort_tracker import DeepSort

pytestmark = pytest.mark.torchreid

COUNT = 14
OUTSIDE = [[500, 500, 9, 9], [5, 5, 0, 9]]  # boxes without a pixel
# As its torchreid embedder prepares images: 256 x 128 pixels, ImageNet's mean (both are also our defaults).
CHANGES = dict(data__height=256, data__width=128, vit__patch_size=32, vit__stride=32)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return untrained_run(tmp_path_factory.mktemp("tracking") / "run", **CHANGES)[0]


def people():
    """Two persons of coloured stripes (48, 24, 3), BGR."""
    rows = np.arange(48)[:, None, None] // 6
    return [np.broadcast_to(np.uint8((rows * step + [90, 20, 160]) % 256), (48, 24, 3)) for step in (31, 77)]


def film():
    """(frames, their boxes): the persons walk towards each other and past each other."""
    rng = np.random.default_rng(0)
    ground = rng.integers(100, 140, (80, 200, 3), dtype=np.uint8)
    frames, boxes = [], []
    for time in range(COUNT):
        frame, here = ground.copy(), []
        for person, (top, left) in zip(people(), [(4, 10 + 8 * time), (28, 114 - 8 * time)]):
            frame[top : top + 48, left : left + 24] = person
            here.append([left, top, 24, 48])
        frames.append(frame)
        boxes.append(here)
    return frames, boxes


def check_tracks(lines):
    """Of (frame, number, left, top): each person, known by its row, has one number the whole time."""
    upper, lower = ({number for _, number, _, top in lines if top == row} for row in (4, 28))
    assert len(upper) == len(lower) == 1 and upper != lower
    assert {frame for frame, *_ in lines} == set(range(3, COUNT + 1))  # DeepSort confirms after 3 frames


def test_the_example_follows_each_person_by_one_number(run, tmp_path):
    frames, boxes = film()
    for number, frame in enumerate(frames):
        Image.fromarray(frame[..., ::-1]).save(tmp_path / f"{number:03d}.png")
    found = ((number, box) for number, here in enumerate(boxes, start=1) for box in [*here, *OUTSIDE])
    text = "".join(f"{number},-1,{','.join(map(str, box))},0.9\n" for number, box in found)
    (tmp_path / "boxes.txt").write_text(text, encoding="utf-8")
    out = tmp_path / "out" / "tracks.txt"
    arguments = [str(tmp_path / "%03d.png"), str(tmp_path / "boxes.txt"), "--model", str(run), "--out", str(out)]
    assert track_example.main(arguments) == 0
    rows = [line.split(",") for line in out.read_text(encoding="utf-8").splitlines()]
    check_tracks([(int(row[0]), row[1], float(row[2]), float(row[3])) for row in rows])


@pytest.mark.parametrize("name", ["out/seen.mp4", "out/seen.avi"])
def test_the_example_draws_boxes_and_numbers_into_a_video(run, tmp_path, name):
    frames, boxes = film()
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (200, 80))
    for frame in frames:
        writer.write(frame)
    writer.release()
    found = ((number, box) for number, here in enumerate(boxes, start=1) for box in here)
    text = "".join(f"{number},-1,{','.join(map(str, box))},0.9\n" for number, box in found)
    (tmp_path / "boxes.txt").write_text(text, encoding="utf-8")
    arguments = [str(tmp_path / "film.avi"), str(tmp_path / "boxes.txt"), "--model", str(run)]
    assert track_example.main([*arguments, "--out", str(tmp_path / "t.txt"), "--video-out", str(tmp_path / name)]) == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name.removeprefix("out/")]
    seen, given = (list(track_example.read_frames(path)) for path in (tmp_path / name, tmp_path / "film.avi"))
    assert len(seen) == COUNT and seen[0].shape == frames[0].shape
    assert track_example.rate_of(tmp_path / name) == 10
    changes = [np.abs(np.int32(now) - before).max(axis=2) for now, before in zip(seen, given)]
    assert changes[0].mean() < 12  # nothing is confirmed yet
    for change, here in zip(changes[5:], boxes[5:]):
        for left, top, _, height in here:
            edge = change[top + 1 : top + height, max(left - 1, 0) : left + 2]
            assert edge.mean() > 1.5 * changes[0].mean() + 5


@pytest.mark.parametrize("name", ["seen.gif", "boxes.txt"])
def test_a_video_that_cannot_be_written_is_one_line_before_the_work(run, tmp_path, capsys, name):
    (tmp_path / "boxes.txt").write_text("1,-1,0,0,9,9,1\n", encoding="utf-8")
    paths = [str(tmp_path / each) for each in ("film.avi", "boxes.txt")]
    check_mistake(track_example.main, [*paths, "--model", run, "--video-out", tmp_path / name], capsys, name)
    assert [path.name for path in tmp_path.iterdir()] == ["boxes.txt"]


def test_the_example_gives_the_tracker_the_features_of_the_crops(run):
    frames, boxes = film()
    extractor = DPMExtractor(run, bgr=True, device="cpu")
    detections = {number: [(box, 0.9, None) for box in here] for number, here in enumerate(boxes, start=1)}
    *_, (_, tracks) = track_example.track(frames, detections, extractor)
    expected = extractor(people()).embedding
    for each in tracks:
        person = int(each.to_ltwh(orig=True)[1] == 28)
        np.testing.assert_allclose(each.get_feature(), expected[person], atol=1e-4)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["{tmp}/gone.mp4", "{tmp}/boxes.txt", "--model", "{run}"], "gone.mp4"),
        (["{tmp}/gone.mp4", "{tmp}/gone.txt", "--model", "{run}"], "gone.txt' cannot be read"),
        (["{tmp}/gone.mp4", "{tmp}/wrong.txt", "--model", "{run}"], "wrong.txt', line 2"),
        (["{tmp}/gone.mp4", "{tmp}/nan.txt", "--model", "{run}"], "nan.txt', line 1"),
        (["{tmp}/gone.mp4", "{tmp}/pipe", "--model", "{run}"], "pipe' cannot be read"),
        (["{tmp}/gone.mp4", "{tmp}/boxes.txt", "--model", "{tmp}/gone"], "gone' does not exist"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, tmp_path, capsys, arguments, said):
    (tmp_path / "boxes.txt").write_text("1,-1,0,0,9,9,1\n", encoding="utf-8")
    (tmp_path / "wrong.txt").write_text("1,-1,0,0,9,9,1\n1,-1,0\n", encoding="utf-8")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "nan.txt").write_text("1,-1,nan,0,9,9,1\n", encoding="utf-8")
    arguments = [argument.format(run=run, tmp=tmp_path) for argument in arguments]
    assert track_example.main([*arguments, "--out", str(tmp_path / "out.txt")]) == 2
    error = capsys.readouterr().err.splitlines()
    assert said in error[-1] and error[-1].startswith("error: ") and not (tmp_path / "out.txt").exists()


# ---- its own embedder ----


@pytest.fixture(scope="module")
def tracker(run):
    for name in ("torchreid.utils", "pkg_resources"):
        try:
            importlib.import_module(name)
        except ImportError:
            pytest.skip(f"its torchreid embedder needs {name}")
    model = dict(embedder_model_name="dpm_vit_tiny", embedder_wts=str(run / "model" / "last.pth.tar"))
    return DeepSort(embedder="torchreid", embedder_gpu=False, **model)


def test_its_torchreid_embedder_computes_a_runs_features(tracker, run):
    crops = people()
    expected = DPMExtractor(run, bgr=True, device="cpu")(crops).embedding
    torch.testing.assert_close(torch.from_numpy(tracker.embedder.predict(crops)), expected, atol=1e-4, rtol=1e-4)


def test_its_torchreid_embedder_follows_each_person_by_one_number(tracker):
    lines = []
    for number, (frame, boxes) in enumerate(zip(*film()), start=1):
        for each in tracker.update_tracks([(box, 0.9, "person") for box in boxes], frame=frame):
            if each.is_confirmed():
                left, top, _, _ = each.to_ltwh(orig=True)
                lines.append((number, each.track_id, left, top))
    check_tracks(lines)


def test_its_torchreid_embedder_takes_another_preparation_afterwards(tracker, tmp_path, monkeypatch):
    changes = dict(CHANGES, data__norm_mean=[0.5] * 3, data__norm_std=[0.5] * 3)
    other = DPMExtractor(untrained_run(tmp_path / "run", **changes)[0], device="cpu")
    monkeypatch.setattr(tracker.embedder.model, "preprocess", other.prepare)
    found = torch.from_numpy(tracker.embedder.predict(people()))
    images = [Image.fromarray(np.ascontiguousarray(person[..., ::-1])) for person in people()]
    torch.testing.assert_close(found, other(images).embedding, atol=1e-4, rtol=1e-4)
