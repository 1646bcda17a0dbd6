#!/usr/bin/env python
"""People tracked by a DPM model's features: ``tools/track_example.py VIDEO DETECTIONS --model RUN --video-out FILE``.

An example for ``deep-sort-realtime`` (``pip install "dpm-torchreid[track]"``); the few lines that matter are
in ``track``. VIDEO is whatever OpenCV opens, a video or images (``frames/%06d.jpg``). DETECTIONS are lines
``frame,-1,left,top,width,height,confidence`` as of the MOT challenge, frames from 1, boxes in pixels; the
output has the same form with the track's number in the second place, and ``--video-out`` draws it: a box and the
number of every person.
"""

import itertools
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dpm_plugin import DPMError, DPMExtractor
from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.files import check_output, read_text, write_file

# As DeepSort takes them: [left, top, width, height] in pixels, confidence, class.
Detection = tuple[list[float], float, None]
LARGEST = 1e9  # of a number in a line; the tracker squares them
CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
RATE = 25.0  # frames a second where the input does not say


def track(
    frames: Iterable[np.ndarray],
    detections: dict[int, list[Detection]],
    extractor: DPMExtractor,
    max_cosine_distance: float = 0.2,
) -> Iterator[tuple[int, list]]:
    """Yield (frame number from 1, confirmed tracks with a box in that frame).

    Args:
        frames: iterable of BGR frames (H, W, 3), as OpenCV reads them.
        detections: by frame number.
        extractor: made with ``bgr=True``.
        max_cosine_distance: of two features of one person. Default: 0.2.

    Raises:
        DPMError: deep-sort-realtime is not installed.
    """
    try:
        from deep_sort_realtime.deepsort_tracker import DeepSort
    except ImportError as error:
        raise DPMError(f'the tracker is not installed ({error}): pip install "dpm-torchreid[track]"') from error
    tracker = DeepSort(max_cosine_distance=max_cosine_distance, embedder=None)  # it is given our features instead
    for number, frame in enumerate(frames, start=1):
        found = [box for box in detections.get(number, []) if _crop(frame, box[0]).size]
        features = extractor([_crop(frame, box[0]) for box in found]).embedding.numpy()
        tracks = tracker.update_tracks(found, embeds=features)
        yield number, [each for each in tracks if each.is_confirmed() and each.time_since_update == 0]


def _crop(frame: np.ndarray, box: Sequence[float]) -> np.ndarray:
    left, top, width, height = (int(value) for value in box)
    return frame[max(0, top) : max(0, top + height), max(0, left) : max(0, left + width)]


def read_frames(video: str | Path) -> Iterator[np.ndarray]:
    """The frames of a video as BGR arrays (H, W, 3).

    Raises:
        DPMError: OpenCV cannot open it, or it holds no frame.
    """
    capture = cv2.VideoCapture(str(video))
    try:
        opened, frame = capture.read()
        if not opened:
            hint = "is it a video, or a pattern like frames/%06d.jpg?"
            raise DPMError(f"OpenCV cannot read a frame of '{video}'; {hint}")
        while opened:
            yield frame
            opened, frame = capture.read()
    finally:
        capture.release()


def read_detections(path: str | Path) -> dict[int, list[Detection]]:
    """The detections of a MOT file by frame number.

    Raises:
        DPMError: missing, or a line is not of that form; names it.
    """
    try:
        lines = read_text(path).splitlines()
    except (OSError, ValueError) as error:
        raise DPMError(f"detections '{path}' cannot be read: {error}") from error
    detections = defaultdict(list)
    for number, line in enumerate(lines, start=1):
        try:
            values = [float(value) for value in line.split(",")[:7]]
            frame, _, left, top, width, height, confidence = values
            if not all(abs(value) < LARGEST for value in values):  # NaN and infinity too
                raise ValueError
        except ValueError as error:
            raise DPMError(f"'{path}', line {number}: expected frame,-1,left,top,width,height,confidence") from error
        detections[int(frame)].append(([left, top, width, height], confidence, None))
    return detections


def annotated(frame: np.ndarray, tracks: Iterable) -> np.ndarray:
    """A copy of a frame (H, W, 3) with the box and the number of each track, in a colour of its own."""
    frame = frame.copy()
    for each in tracks:
        left, top, width, height = (round(value) for value in each.to_ltwh(orig=True))
        colour = [int(value) for value in 80 + np.random.default_rng(int(each.track_id)).integers(0, 176, 3)]
        cv2.rectangle(frame, (left, top), (left + width, top + height), colour, 2)
        place = (left + 3, max(top, 0) + 14)
        cv2.putText(frame, str(each.track_id), place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 2, cv2.LINE_AA)
    return frame


class VideoFile:
    """Frames into a video, which is whole or not there.

    Args:
        path: ends in .mp4 or .avi.
        rate: frames a second.
    """

    def __init__(self, path: str | Path, rate: float) -> None:
        self.path, self.rate, self.writer, self.shape = Path(path), rate, None, None
        if self.path.suffix.lower() not in CODECS:
            raise DPMError(f"'{path}' must end in {' or '.join(CODECS)}")

    @contextmanager
    def opened(self) -> Iterator["VideoFile"]:
        """Puts the file in its place at the end, unless there is an error."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".video-", dir=self.path.parent) as folder:
                self.partial = Path(folder) / f"video{self.path.suffix.lower()}"
                try:
                    yield self
                finally:
                    if self.writer is not None:
                        self.writer.release()
                os.replace(self.partial, self.path)
        except OSError as error:
            raise DPMError(f"'{self.path}' cannot be written: {error.strerror}") from error

    def write(self, frame: np.ndarray) -> None:
        """Add a frame (H, W, 3), BGR; DPMError where OpenCV cannot, or it has another size than the first."""
        if self.writer is None:
            self.shape, codec = frame.shape, cv2.VideoWriter_fourcc(*CODECS[self.path.suffix.lower()])
            self.writer = cv2.VideoWriter(str(self.partial), codec, self.rate, frame.shape[1::-1])
        if not self.writer.isOpened():
            raise DPMError(f"OpenCV cannot write '{self.path}'; try another of {', '.join(CODECS)}")
        if frame.shape != self.shape:
            raise DPMError(f"a frame of {frame.shape[1::-1]} pixels follows those of {self.shape[1::-1]}")
        self.writer.write(frame)


def draw(
    tracked: Iterable[tuple[int, list]], frames: Iterable[np.ndarray], video: VideoFile
) -> Iterator[tuple[int, list]]:
    """The same as ``tracked``, of these frames, written to ``video`` too."""
    with video.opened():
        for (number, tracks), frame in zip(tracked, frames):
            video.write(annotated(frame, tracks))
            yield number, tracks


def rate_of(video: str | Path) -> float:
    """Frames a second, of a video that says so; else ``RATE``."""
    rate = cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FPS)
    return rate if 0 < rate < 1000 else RATE


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 2 for an error in one line, 130 when interrupted."""
    parser = Parser(description="Track people with deep-sort-realtime and a DPM model's features.")
    parser.add_argument("video", help="a video, or a pattern of images like frames/%%06d.jpg")
    parser.add_argument("detections", help="MOT file of boxes")
    model = "a run's data.save_dir, a checkpoint, or zoo:NAME"
    settings = "yaml file with the settings of a checkpoint that lies in no run"
    parser.add_argument("--model", required=True, metavar="RUN_OR_CHECKPOINT", help=model)
    parser.add_argument("--config-file", metavar="FILE", help=settings)
    parser.add_argument("--max-cosine-distance", type=float, default=0.2, help="of two features of one person")
    parser.add_argument("--out", help="file to write (default: the screen)")
    parser.add_argument("--video-out", help="video to write, .mp4 or .avi: every person with a box and a number")
    options = parser.parse_args(argv)

    def work() -> None:
        for out in filter(None, (options.out, options.video_out)):
            check_output(out, [options.video, options.detections])
        drawn = options.video_out and VideoFile(options.video_out, rate_of(options.video))
        detections = read_detections(options.detections)
        extractor = DPMExtractor(options.model, config_file=options.config_file, bgr=True)
        frames: Iterator[np.ndarray] = read_frames(options.video)
        if drawn:
            frames, shown = itertools.tee(frames)
        tracked = track(frames, detections, extractor, options.max_cosine_distance)
        if drawn:
            tracked = draw(tracked, shown, drawn)
        box = lambda each: ",".join(f"{value:.1f}" for value in each.to_ltwh(orig=True))
        lines = (f"{number},{each.track_id},{box(each)},1" for number, tracks in tracked for each in tracks)
        if options.out is None:
            for line in lines:
                print(line, flush=True)
        else:
            write_file(options.out, "".join(f"{line}\n" for line in lines))

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
