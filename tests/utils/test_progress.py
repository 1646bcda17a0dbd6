"""Progress lines: few of them, with the time left."""

from dpm_plugin.utils.progress import Progress


def test_progress_tells_the_time_left_and_is_not_shown_at_every_step():
    lines, times = [], iter([0, 1, 10, 11, 20])
    progress = Progress(100, "images", lines.append, every=5, clock=lambda: next(times))
    for done in (1, 10, 11, 100):
        progress.at(done)
    assert lines == ["10/100 images, 1:30 left", "100/100 images, 0:00 left"]
