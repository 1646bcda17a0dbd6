"""Which iterations of training are printed."""

import re

import pytest

from dpm_plugin.engine import lines
from helpers.model import batch, engine_for, tiny_model
from helpers.runs import finished_run


@pytest.fixture
def clock(monkeypatch):
    """The time in seconds, which a test sets."""
    now = [0.0]
    monkeypatch.setattr(lines.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize(
    "print_freq, last, expected", [(20, 5, [5]), (2, 5, [2, 4, 5]), (3, 6, [3, 6]), (1, 2, [1, 2])]
)
def test_every_so_many_iterations_and_the_last_are_printed(clock, print_freq, last, expected):
    frequency = lines.PrintFrequency(print_freq, lambda iteration: iteration == last)
    assert [iteration for iteration in range(1, last + 1) if iteration % frequency == 0] == expected


def test_training_is_never_silent_for_longer_than_half_a_minute(clock):
    frequency, printed = lines.PrintFrequency(1000, lambda iteration: iteration == 2000), []
    for iteration in range(1, 100):
        clock[0] += 7.0
        if iteration % frequency == 0:
            printed.append(clock[0])
    assert printed[:3] == [35.0, 70.0, 105.0]


@pytest.mark.torchreid
def test_an_epoch_that_ends_sooner_than_its_sampler_promised_ends_with_a_line_too(tmp_path, capsys):
    """torchreid's RandomIdentitySampler estimates its length: its epochs can have a batch less."""
    changes = dict(synthetic__train_ids=8, synthetic__train_images=4, train__batch_size=8)
    changes |= dict(sampler__num_instances=2, train__max_epoch=6, train__print_freq=1000)
    finished_run(tmp_path / "run", tmp_path, **changes)
    found = re.findall(r"^epoch: \[(\d)/6\]\[(\d+)/(\d+)\]", capsys.readouterr().out, re.M)
    assert [epoch for epoch, *_ in found] == list("123456")
    assert any(int(done) < int(count) for _, done, count in found)  # the case has both


@pytest.mark.torchreid
def test_an_epoch_shorter_than_print_freq_ends_with_torchreids_own_line(tmp_path, capsys, monkeypatch):
    engine = engine_for(tiny_model(), [batch(seed=seed) for seed in range(3)])
    monkeypatch.setattr(engine, "test", lambda **options: 0.5)
    engine.run(save_dir=str(tmp_path), max_epoch=2, print_freq=20)
    found = re.findall(
        r"^epoch: \[\d/2\]\[\d/3\]\ttime .*\teta 0:0.*\tloss .*\tlr 0\.\d{6}$", capsys.readouterr().out, re.M
    )
    assert [line[:17] for line in found] == ["epoch: [1/2][3/3]", "epoch: [2/2][3/3]"]
