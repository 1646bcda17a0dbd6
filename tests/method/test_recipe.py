"""Parameter groups and the learning-rate schedule."""

import math

import pytest
import torch

from dpm_plugin import DPMError
from dpm_plugin.method.recipe import OPTIMIZERS, build_optimizer, build_scheduler
from helpers.model import tiny_model

pytestmark = pytest.mark.torchreid


def rates(optimizer):
    return {
        (group["part"], round(group["lr"] / optimizer.param_groups[-1]["lr"], 6)) for group in optimizer.param_groups
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_holds_every_parameter_once_and_skips_frozen_ones(name):
    model = tiny_model()
    optimizer = build_optimizer(model, optim=name, lr=0.01)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(held) == len({id(p) for p in held}) == len(list(model.parameters()))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.classifier.weight.grad = torch.ones_like(model.classifier.weight)
    optimizer.step()
    assert {key for key in before if not torch.equal(before[key], model.state_dict()[key])} == {"classifier.weight"}


def test_biases_learn_at_twice_the_rate_and_the_parts_are_told_apart():
    model = tiny_model()
    optimizer = build_optimizer(model, lr=0.01)
    assert rates(optimizer) == {("mask", 2.0), ("mask", 1.0), ("main", 2.0), ("main", 1.0)}
    doubled = {id(p) for group in optimizer.param_groups if group["lr"] == 0.02 for p in group["params"]}
    assert doubled == {id(p) for name, p in model.named_parameters() if name.endswith(".bias")}
    assert all(group["weight_decay"] == 1e-4 for group in optimizer.param_groups)


def test_the_mask_generators_rate_has_a_factor_of_its_own():
    optimizer = build_optimizer(tiny_model(), lr=0.01, mask_lr_mult=0.5)
    assert rates(optimizer) == {("mask", 1.0), ("mask", 0.5), ("main", 2.0), ("main", 1.0)}


def test_an_unknown_optimizer_names_the_known_ones():
    with pytest.raises(DPMError, match="sgd, adam"):
        build_optimizer(tiny_model(), optim="lion")


def expected_rate(epoch, epochs, lr=0.008, warmup=5):
    """Epochs count from 1: warm-up from 0.01 lr, then the cosine to 0.002 lr, as in the released recipe."""
    if epoch < warmup:
        return 0.01 * lr + epoch * (lr - 0.01 * lr) / warmup
    if epoch >= epochs:
        return 0.002 * lr
    return 0.002 * lr + 0.5 * (lr - 0.002 * lr) * (1 + math.cos(math.pi * epoch / epochs))


@pytest.mark.parametrize("mask_schedule", ["cosine", "constant"])
def test_the_schedule_is_the_recipes_at_every_epoch(mask_schedule):
    optimizer = build_optimizer(tiny_model(), lr=0.008)
    scheduler = build_scheduler(optimizer, max_epoch=20, mask_schedule=mask_schedule)
    for epoch in range(1, 21):
        for group in optimizer.param_groups:
            if group["part"] == "mask" and mask_schedule == "constant":
                assert group["lr"] == group["initial_lr"]
            elif group["initial_lr"] == 0.008:
                assert group["lr"] == pytest.approx(expected_rate(epoch, 20))
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("warmup, share", [(5, 0.208), (2, 0.505), (1, 0.9975), (0, 0.9975)])
def test_the_first_epoch_is_a_step_above_warmup_factor_and_one_epoch_is_no_warm_up(warmup, share):
    optimizer = build_optimizer(tiny_model(), lr=1.0)
    build_scheduler(optimizer, max_epoch=31, warmup_epochs=warmup)
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(share, abs=2e-4)


@pytest.mark.parametrize("mask_schedule", ["cosine", "constant"])
def test_an_optimizer_that_took_up_a_state_follows_the_schedule_as_before(mask_schedule):
    alone, resumed = (build_optimizer(tiny_model()) for _ in range(2))
    schedules = [build_scheduler(each, max_epoch=6, mask_schedule=mask_schedule) for each in (alone, resumed)]
    for _ in range(6):
        resumed.load_state_dict(resumed.state_dict())
        schedules[1].load_state_dict(schedules[1].state_dict())
        for schedule in schedules:
            schedule.step()
        assert [group["lr"] for group in resumed.param_groups] == [group["lr"] for group in alone.param_groups]


def test_a_resumed_schedule_follows_the_new_length_at_the_old_epoch():
    old = build_scheduler(build_optimizer(tiny_model()), max_epoch=20)
    for _ in range(8):
        old.step()
    optimizer = build_optimizer(tiny_model())
    scheduler = build_scheduler(optimizer, max_epoch=40)
    scheduler.load_state_dict(old.state_dict())
    assert optimizer.param_groups[-1]["lr"] == pytest.approx(expected_rate(9, 40))
