"""Progress lines: few of them, with the time left."""

from dpm_plugin.utils import progress


def test_progress_tells_the_time_left_and_is_not_shown_at_every_step(monkeypatch):
    lines, times = [], iter([0, 1, 10, 11, 20])
    monkeypatch.setattr(progress, "monotonic", lambda: next(times))
    shown = progress.Progress(100, "images", lines.append)
    for done in (1, 10, 11, 100):
        shown.at(done)
    assert lines == ["10/100 images, 1:30 left", "100/100 images, 0:00 left"]
