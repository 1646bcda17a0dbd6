"""Every speed and memory option of the step against the default: the same losses and the same weights."""

import copy

import pytest
import torch
from test_step import losses_of, masking_model

from dpm_plugin import DPMError
from dpm_plugin.engine.grad_cache import encode_with_cache
from dpm_plugin.method.recipe import build_optimizer
from dpm_plugin.method.vit import EncoderOutput
from helpers.model import batch, engine_for

pytestmark = pytest.mark.slow


def trained(model, iterations=2, optim="sgd", form="auto", **options):
    """Losses of every step, and the model after ``iterations``."""
    engine = engine_for(model, optimizer=build_optimizer(model, optim=optim, lr=0.01, form=form), **options)
    told = losses_of(engine)
    for seed in range(iterations):
        engine.forward_backward(batch(seed=seed))
    return torch.tensor(told), model


def assert_same(result, expected, atol, rtol=1e-5):
    torch.testing.assert_close(result[0], expected[0], rtol=rtol, atol=atol)
    for name, value in expected[1].state_dict().items():  # BatchNorm statistics among them
        torch.testing.assert_close(result[1].state_dict()[name], value, rtol=rtol, atol=atol, msg=name)


@pytest.mark.parametrize("steps", ["alternating", "simultaneous"])
@pytest.mark.parametrize(
    "option",
    [
        {"accumulate": 3},  # 8 images: 3, 3 and 2
        {"conv_layout": "channels_last"},
        {"conv_layout": "contiguous"},
        {"grad_checkpointing": True},
        {"accumulate": 4, "grad_checkpointing": True, "conv_layout": "channels_last"},
    ],
    ids=str,
)
def test_an_option_changes_losses_weights_and_statistics_by_at_most_1e_5(option, steps):
    model = masking_model()
    expected = trained(copy.deepcopy(model), steps=steps)
    assert_same(trained(model, steps=steps, **option), expected, atol=1e-5)


@pytest.mark.parametrize(
    "option", [{"accumulate": 3}, {"grad_checkpointing": True}, {"compile_backend": "aot_eager"}], ids=str
)
def test_the_options_do_so_for_a_model_with_parts(option):
    model = masking_model(parts=3, part_dim=8)
    expected = trained(copy.deepcopy(model))
    assert_same(trained(model, **option), expected, atol=1e-5)


@pytest.mark.parametrize("amp", ["bfloat16", "float16"])
def test_a_model_with_parts_trains_in_mixed_precision(amp):
    told, model = trained(masking_model(parts=3), amp=amp)
    assert told.isfinite().all() and all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("option", [{"accumulate": 2}, {"grad_checkpointing": True}], ids=str)
def test_memory_options_train_in_mixed_precision_as_the_default_does(option):
    model = masking_model()
    expected = trained(copy.deepcopy(model), amp="bfloat16")
    losses, _ = trained(model, amp="bfloat16", **option)
    torch.testing.assert_close(losses, expected[0], rtol=2e-2, atol=2e-2)


def test_checkpointed_blocks_draw_the_same_stochastic_depth_again():
    results = []
    for checkpointing in (False, True):
        model = masking_model(drop_path=0.5)
        torch.manual_seed(1)
        results.append(trained(model, grad_checkpointing=checkpointing))
    assert_same(*results, atol=0, rtol=0)


def test_the_encoder_never_sees_more_than_a_part_of_the_batch_and_runs_again_only_for_gradients():
    model = masking_model()
    encode, sizes = model.encode, []

    def counting(images, camids):
        sizes.append((len(images), torch.is_grad_enabled()))
        return encode(images, camids)

    model.encode = counting
    engine_for(model, accumulate=3).forward_backward(batch())
    step_one = [(3, True), (3, True), (2, True)]
    assert sizes == step_one + step_one[::-1] + [(size, False) for size, _ in step_one]


def test_the_gradient_cache_keeps_no_activations_until_their_turn():
    weight, images, kept = torch.nn.Parameter(torch.ones(4)), torch.randn(6, 4), []

    def encode(images, camids):
        hidden = images.exp() * weight  # its backward needs images.exp()
        return EncoderOutput(hidden.sin(), [], None)

    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.data_ptr()) or t, lambda t: t):
        output = encode_with_cache(encode, 3, images, None)
    assert kept and set(kept) <= {part.data_ptr() for part in images.split(2)}  # nothing but the images
    output.cls.sum().backward()
    torch.testing.assert_close(weight.grad, (images.exp() * images.exp().cos()).sum(dim=0))


@pytest.mark.fuzz  # for what torch.compile needs to import
def test_compiled_functions_give_the_same_and_leave_the_checkpoints_names():
    # aot_eager traces forward and backward as inductor does, but needs no C++ compiler
    model = masking_model(depth=1)
    names = list(model.state_dict())
    expected = trained(copy.deepcopy(model))
    result = trained(model, compile_backend="aot_eager")
    assert_same(result, expected, atol=1e-5)
    assert list(result[1].state_dict()) == names


class TwoParts(torch.nn.Module):
    """The parameter groups of a model: biases, weights, convolutions, in two parts."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mask_generator = torch.nn.Conv2d(3, 5, 3)
        self.backbone = torch.nn.Conv2d(2, 4, 2)
        self.classifier = torch.nn.Linear(6, 7)


def stepped(model, optimizer, seeds, trained=lambda name: True):
    """``optimizer`` after a step on random gradients of the parameters ``trained``, for every seed."""
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.empty_like(parameter).copy_(gradient) if trained(name) else None
        optimizer.step()
    return optimizer


def assert_same_weights(left, right):
    for (name, a), b in zip(left.named_parameters(), right.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("form", ["foreach", "fused"])
@pytest.mark.parametrize("optim", ["sgd", "adam", "amsgrad", "adamw"])
def test_every_form_of_an_optimizer_gives_the_loops_weights(optim, form):
    models = [TwoParts() for _ in range(2)]
    for model, each in zip(models, ("loop", form)):
        optimizer = build_optimizer(model, optim=optim, lr=1e-2, form=each)
        # First one parameter of a group only: then that has a momentum and the others none.
        stepped(model, optimizer, [0], lambda name: name == "classifier.weight")
        stepped(model, optimizer, [1], lambda name: name.startswith("mask_generator"))
        stepped(model, optimizer, [2, 3])
    assert_same_weights(*models)


@pytest.mark.parametrize("written, read", [("loop", "fused"), ("fused", "loop"), ("foreach", "fused")])
@pytest.mark.parametrize("optim", ["sgd", "adamw"])
def test_a_resumed_optimizer_keeps_this_runs_form_and_goes_on_as_the_written_one(optim, written, read):
    model, resumed = TwoParts(), TwoParts()
    optimizer = stepped(model, build_optimizer(model, optim=optim, lr=1e-2, form=written), [0, 1])
    resumed.load_state_dict(model.state_dict())
    other = build_optimizer(resumed, optim=optim, lr=1e-2, form=read)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    flags = {(bool(group["foreach"]), bool(group["fused"])) for group in other.param_groups}
    assert flags == {(read == "foreach", read == "fused")}
    stepped(model, optimizer, [2])
    stepped(resumed, other, [2])
    assert_same_weights(model, resumed)


def test_a_momentum_of_another_memory_layout_is_taken_up_by_value():
    model, other = TwoParts(), TwoParts()
    other.to(memory_format=torch.channels_last)
    optimizer = stepped(model, build_optimizer(model, form="fused"), [0])
    resumed = build_optimizer(other, form="fused")
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.load_state_dict(model.state_dict())
    stepped(model, optimizer, [1])
    stepped(other, resumed, [1])
    assert_same_weights(model, other)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"form": "turbo"}, "'turbo' is unknown; choose one of auto"),
        ({"form": "fused", "optim": "radam"}, "of radam"),
        ({"form": "fused", "dampening": 0.1}, "with sgd.dampening"),
    ],
)
def test_a_form_that_does_not_exist_is_refused(options, said):
    with pytest.raises(DPMError, match=said):
        build_optimizer(TwoParts(), **options)
