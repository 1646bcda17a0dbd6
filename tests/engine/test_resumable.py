"""Batches in the middle of an epoch: the draws of a plain DataLoader, and the same again after an interruption."""

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, RandomSampler

from dpm_plugin import DPMError, torchreid_host
from dpm_plugin.engine.resumable_loader import ResumableLoader, as_tensors, drawing_from, random_state, set_random_state

pytestmark = pytest.mark.slow

SAMPLERS = ("RandomSampler", "RandomIdentitySampler", "RandomDomainSampler")


class Noise(Dataset):
    """Image ``index`` as its number and a draw from each of the three generators."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)


def loader(size=16, batch=4, workers=0, persistent=False, sampler="RandomSampler"):
    entries = [("", index // 2, index % 2, 0) for index in range(size)]
    order = torchreid_host.build_train_sampler(entries, sampler, batch_size=batch, num_instances=2, num_cams=2)
    return DataLoader(
        Noise(size), batch, sampler=order, num_workers=workers, drop_last=True, persistent_workers=persistent
    )


def seed_all(seed=0):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def work():
    """What a training iteration draws in the main process."""
    return torch.rand(()), random.random(), np.random.rand()


def trained(batches, epochs):
    """Every batch of these epochs with what the main process draws after it."""
    seen = []
    for number in epochs:
        batches.epoch = number
        seen += [(batch, work()) for batch in batches]
        if isinstance(batches, ResumableLoader):
            batches.finish_epoch()
    return seen


def interrupted(make, epochs, after):
    """The same from a loader that stops after ``after`` batches, and a new one, in a changed world, that goes on."""

    class Stop(Exception):
        pass

    seen, first = [], make()

    def stop():
        if len(seen) == after:
            raise Stop

    first.after_batch = stop
    try:
        for epoch in range(epochs):
            first.epoch = epoch
            for batch in first:
                seen.append((batch, work()))
            first.finish_epoch()
    except Stop:
        pass
    state = as_tensors(first.state())
    del first
    seed_all(99)
    second = make()
    epoch = (after - 1) // len(second) if state["iteration"] else after // len(second)
    second.resume(state)
    return seen + trained(second, range(epoch, epochs))


def assert_same(found, expected):
    assert len(found) == len(expected)
    for (batch, drawn), (batch_2, drawn_2) in zip(found, expected):
        assert torch.equal(batch, batch_2) and drawn == drawn_2


@pytest.mark.parametrize("workers, persistent", [(0, False), (2, True)])
def test_a_resumable_loader_draws_what_the_plain_one_draws(workers, persistent):
    seed_all()
    expected = trained(loader(workers=workers, persistent=persistent), range(2))
    seed_all()
    assert_same(trained(ResumableLoader(loader(workers=workers, persistent=persistent)), range(2)), expected)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_an_epoch_interrupted_anywhere_goes_on_with_the_same_images_and_numbers(data):
    size, batch = data.draw(st.sampled_from([(16, 4), (15, 4), (8, 8), (20, 6)]))
    sampler, epochs = data.draw(st.sampled_from(SAMPLERS)), 3

    def make():
        return ResumableLoader(loader(size, batch, sampler=sampler), data_seed)

    data_seed = data.draw(st.sampled_from([None, 5]))
    seed_all()
    expected = trained(make(), range(epochs))
    seed_all()
    assert_same(interrupted(make, epochs, data.draw(st.integers(1, len(expected) - 1))), expected)


NIGHTLY = [pytest.param(*case, marks=pytest.mark.fuzz) for case in itertools.product(range(1, 6), (False, True))]


@pytest.mark.parametrize("after, persistent", [(1, False), *NIGHTLY[1:]])  # of lasting ones: test_exact_resume
def test_processes_of_the_loader_go_on_with_their_own_numbers(after, persistent):
    def make():  # three batches an epoch for two processes: one has two, and one batch may be on its way
        return ResumableLoader(loader(size=12, workers=2, persistent=persistent))

    seed_all()
    expected = trained(make(), range(2))
    seed_all()
    assert_same(interrupted(make, 2, after), expected)


def test_by_position_any_number_of_processes_draws_the_same():
    found = []
    for workers, persistent in ((0, False), (1, True), (2, True)):
        seed_all()
        found.append(trained(ResumableLoader(loader(size=12, workers=workers, persistent=persistent), 5), range(2)))
    assert_same(found[1], found[0])
    assert_same(found[2], found[0])
    images = torch.cat([batch for batch, _ in found[0]])
    assert len({tuple(row.tolist()) for row in images[:, 1:]}) == len(images)  # each draws its own, in each epoch


def test_a_list_of_batches_is_read_and_dropped_up_to_the_place():
    batches = [torch.tensor(number) for number in range(4)]
    seed_all()
    expected = trained(ResumableLoader(batches), range(2))
    seed_all()
    assert_same(interrupted(lambda: ResumableLoader(batches), 2, 3), expected)


def test_an_epoch_of_another_length_cannot_be_gone_on_with():
    state = {**ResumableLoader(loader()).state(), "iteration": 2}
    with pytest.raises(DPMError, match="after 2 of 4 batches of an epoch, which now has 8"):
        ResumableLoader(loader(batch=2)).resume(state)


def test_another_number_of_processes_goes_on_with_the_rest_of_the_images(capsys):
    def make(workers):
        return ResumableLoader(loader(workers=workers))

    seed_all()
    expected = trained(make(0), range(1))
    seed_all()
    turn = iter([0, 2])
    found = interrupted(lambda: make(next(turn)), 1, 1)
    assert "data.workers was 0, now 2" in capsys.readouterr().out
    assert [batch[:, 0].tolist() for batch, _ in found] == [batch[:, 0].tolist() for batch, _ in expected]


def test_random_states_come_back_from_a_file_read_without_executing_anything(tmp_path):
    random.gauss(0, 1), np.random.randn()  # both keep a second number for the next call
    torch.save(as_tensors(random_state()), tmp_path / "state")
    expected = random.gauss(0, 1), np.random.randn(), torch.rand(3)
    seed_all(3)
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    found = random.gauss(0, 1), np.random.randn(), torch.rand(3)
    assert found[:2] == expected[:2] and torch.equal(found[2], expected[2])
    for broken in ({}, {**as_tensors(random_state()), "torch": torch.zeros(3)}, None):
        with pytest.raises(DPMError, match="random states cannot be put back"):
            set_random_state(broken)


def test_drawing_from_numbers_leaves_the_generators_as_they_were():
    seed_all()
    expected = work()
    seed_all()
    with drawing_from(1, 2, 3):
        inside = work()
    assert work() == expected != inside
    with drawing_from(1, 2, 3):
        assert work() == inside
    with drawing_from(1, 2, 4):
        assert work() != inside


def test_a_loader_of_another_class_is_left_as_it_is():
    class Own(DataLoader):
        pass

    def make():
        return ResumableLoader(Own(Noise(8), 2, sampler=RandomSampler(range(8))))

    seed_all()
    expected = trained(make(), range(2))
    seed_all()
    assert_same(interrupted(make, 2, 3), expected)
