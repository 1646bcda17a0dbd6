"""The two steps, what is frozen in each, precision, and stopping before damage."""

import copy

import pytest
import torch

from dpm_plugin import DPMError, DPMLoss
from dpm_plugin.method.recipe import build_optimizer
from dpm_plugin.utils.runtime import autocast, choose_amp
from helpers.model import batch, engine_for, tiny_model

pytestmark = pytest.mark.torchreid


def snapshot(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def is_mask(name):
    return name.startswith("mask_generator.")


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_each_step_leaves_every_frozen_parameter_bit_for_bit_and_moves_the_rest():
    torch.manual_seed(0)
    model = tiny_model()
    torch.nn.init.normal_(model.mask_generator.linear.weight, std=0.1)
    engine = engine_for(model)
    states = [snapshot(model)]
    engine.on_step = lambda parts: states.append(snapshot(model))
    for seed in range(2):  # twice: momentum must not move a frozen parameter either
        engine.forward_backward(batch(seed=seed))
    parameters = {name for name, _ in model.named_parameters()}
    for step, (before, after) in enumerate(zip(states, states[1:])):
        expected = {name for name in parameters if is_mask(name) == (step % 2 == 1)}
        assert moved(before, after) & parameters == expected


def test_batchnorm_statistics_move_in_both_steps():
    model = tiny_model()
    engine = engine_for(model)
    states = [snapshot(model)]
    engine.on_step = lambda parts: states.append(snapshot(model))
    engine.forward_backward(batch())
    statistics = {name for name in states[0] if "running_" in name}
    assert len(statistics) == 8
    for before, after in zip(states, states[1:]):
        assert statistics <= moved(before, after)


def test_an_iteration_equals_two_plain_forward_backward_passes_with_two_optimizers():
    """The released way: everything in the graph twice, each optimizer with its own part."""
    torch.manual_seed(0)
    model = tiny_model()
    torch.nn.init.normal_(model.mask_generator.linear.weight, std=0.1)
    plain, criterion = copy.deepcopy(model), DPMLoss()
    engine = engine_for(model, optimizer=build_optimizer(model, lr=0.01))
    names = [name for name, _ in plain.named_parameters()]
    parts = [
        [
            {"params": [p], "lr": 0.02 if name.endswith("bias") else 0.01}
            for name, p in plain.named_parameters()
            if is_mask(name) == mask
        ]
        for mask in (False, True)
    ]
    optimizers = [torch.optim.SGD(groups, momentum=0.9, weight_decay=1e-4) for groups in parts]
    plain.train()
    for seed in range(2):
        data = batch(seed=seed)
        engine.forward_backward(data)
        for optimizer in optimizers:
            plain.zero_grad()
            criterion(plain.heads(plain.encode(data["img"], data["camid"])), data["pid"]).total.backward()
            optimizer.step()
    for name in names + ["neck.running_mean", "mask_generator.conv1.1.running_var"]:
        torch.testing.assert_close(model.state_dict()[name], plain.state_dict()[name], rtol=1e-4, atol=1e-6)


def test_the_baseline_has_one_step_and_reports_no_mask_loss():
    engine = engine_for(tiny_model(mask_blocks=()))
    steps = []
    engine.on_step = steps.append
    summary = engine.forward_backward(batch())
    assert len(steps) == 1 and set(summary) == {"loss", "cls", "triplet", "acc"}


def test_training_lowers_the_loss_and_reports_every_part():
    torch.manual_seed(0)
    engine = engine_for(tiny_model(), optimizer=build_optimizer(tiny_model(), optim="adamw"))
    model = engine.model
    engine.optimizer = build_optimizer(model, optim="adamw", lr=3e-3)
    summaries = [engine.forward_backward(batch()) for _ in range(12)]
    assert set(summaries[0]) == {"loss", "cls", "masked", "head", "triplet", "acc", "masked_2"}
    assert summaries[-1]["loss"] < 0.7 * summaries[0]["loss"] and summaries[-1]["acc"] > summaries[0]["acc"]


@pytest.mark.parametrize("amp", ["float16", "bfloat16"])
def test_mixed_precision_trains_finite_weights_and_keeps_them_float32(amp):
    torch.manual_seed(0)
    engine = engine_for(tiny_model(), amp=amp)
    assert engine.scaler.is_enabled() == (amp == "float16")
    before = snapshot(engine.model)
    for seed in range(2):
        engine.forward_backward(batch(seed=seed))
    after = engine.model.state_dict()
    assert moved(before, after) and all(t.isfinite().all() for t in after.values())
    assert {t.dtype for name, t in after.items() if "num_batches" not in name} == {torch.float32}


@pytest.mark.parametrize("amp, said", [("auto", "train.amp auto: off"), ("float16", "many times slower"), ("off", "")])
def test_on_a_cpu_automatic_precision_is_off_and_float16_is_said_to_be_slow(amp, said, capsys):
    torch.manual_seed(0)
    engine = engine_for(tiny_model(), amp=amp)
    assert (engine.amp, engine.scaler.is_enabled()) == (("float16", True) if amp == "float16" else ("off", False))
    printed = [line for line in capsys.readouterr().out.splitlines() if "amp" in line]
    assert said in "".join(printed) and len(printed) == (amp != "off")


def test_on_a_gpu_automatic_precision_is_float16_with_gradient_scaling():
    assert choose_amp("auto", torch.device("cuda")) == "float16"
    with autocast(torch.device("cpu"), "auto"):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_mixed_precision_gradients_are_near_the_float32_ones():
    torch.manual_seed(0)
    reference = tiny_model()
    criterion = DPMLoss()
    gradients = {}
    for amp in ("off", "bfloat16"):
        engine = engine_for(copy.deepcopy(reference), criterion=criterion, amp=amp)
        engine.optimizer.step = lambda: None
        steps = []
        engine.on_step = lambda parts, model=engine.model, steps=steps: steps.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
        engine.forward_backward(batch())
        gradients[amp] = steps[0]
    assert torch.cosine_similarity(gradients["off"], gradients["bfloat16"], dim=0) > 0.99


def test_a_non_finite_loss_stops_with_epoch_and_iteration_and_keeps_the_last_checkpoint(tmp_path):
    torch.manual_seed(0)
    model = tiny_model()
    bad = batch(seed=1)
    bad["img"][0, 0, 0, 0] = float("nan")
    engine = engine_for(model, [batch()])
    with pytest.raises(DPMError, match="epoch 2, iteration 2 of 2.*loss nan"):
        engine.save_dir, engine.max_epoch = str(tmp_path), 2
        engine.epoch = 0
        engine.train()
        engine.epoch, engine.train_loader = 1, [batch(), bad]
        engine.train()
    kept = torch.load(tmp_path / "model" / "last.pth.tar", weights_only=True)
    assert kept["epoch"] == 1 and all(t.isfinite().all() for t in kept["state_dict"].values())


def test_non_finite_weights_after_an_epoch_are_never_saved(tmp_path):
    model = tiny_model()
    model.mask_generator.requires_grad_(False)
    engine = engine_for(model, [batch()])
    engine.save_dir, engine.epoch = str(tmp_path), 0
    engine.on_step = lambda parts: model.classifier.weight.data.fill_(float("inf"))
    with pytest.raises(DPMError, match="non-finite weights after epoch 1"):
        engine.train()
    assert not list(tmp_path.rglob("*.tar"))


def test_what_the_user_froze_stays_frozen_and_fixbase_opens_only_its_layers():
    torch.manual_seed(0)
    model = tiny_model()
    model.backbone.transformer.patch_embed.requires_grad_(False)
    engine = engine_for(model, [batch()])
    before = snapshot(model)
    engine.two_stepped_transfer_learning(0, fixbase_epoch=1, open_layers=["classifier"])
    engine.forward_backward(batch())
    assert {name for name in moved(before, snapshot(model)) if "running" not in name and "num_b" not in name} == {
        "classifier.weight"
    }
    engine.two_stepped_transfer_learning(1, fixbase_epoch=1, open_layers=["classifier"])
    engine.forward_backward(batch())
    changed = moved(before, snapshot(model))
    assert not {name for name in changed if "patch_embed" in name} and "backbone.transformer.cls_token" in changed


def test_a_stock_model_is_refused_by_name():
    with pytest.raises(DPMError, match="Linear has no DPM heads"):
        engine_for(torch.nn.Linear(2, 2))


def test_all_requires_grad_flags_are_back_after_an_epoch(tmp_path):
    engine = engine_for(tiny_model(), [batch()])
    engine.save_dir, engine.epoch = str(tmp_path), 0
    engine.train()
    assert all(p.requires_grad for p in engine.model.parameters())
