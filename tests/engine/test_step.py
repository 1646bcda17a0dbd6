"""What a step computes and what it leaves out: gradients, attention kernels, transfers; the simultaneous mode."""

import copy
import functools
from collections import Counter

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dpm_plugin import DPMError
from dpm_plugin.method.recipe import build_optimizer
from experiments.oracles import plain_head, plain_step
from helpers.model import batch, engine_for, tiny_model

STEPS = ("alternating", "simultaneous")


@functools.cache
def built(**options):
    torch.manual_seed(0)
    model = tiny_model(**options).train()
    if model.has_mask:
        torch.nn.init.normal_(model.mask_generator.linear.weight, std=0.1)
    return model


def masking_model(**options):
    """A tiny model whose mask depends on the image; equal options give equal weights."""
    return copy.deepcopy(built(**options))


def losses_of(engine):
    """A list that fills with the five losses of every step."""
    told = []
    engine.on_step = lambda parts: told.append([value.detach().item() for value in parts[:5]])
    return told


@pytest.mark.parametrize("steps", STEPS)
def test_an_iteration_equals_the_plain_one_in_losses_and_weights_to_1e_5(steps):
    model = masking_model()
    plain = plain_step.TwoSteps(
        copy.deepcopy(model), plain_head.masked_arcface, lr=0.01, together=steps == "simultaneous"
    )
    engine = engine_for(model, optimizer=build_optimizer(model, lr=0.01), steps=steps)
    told, expected = losses_of(engine), []
    for seed in range(2):  # the second sees momentum
        data = batch(seed=seed)
        engine.forward_backward(data)
        expected += plain(data["img"], data["pid"], data["camid"])
    assert len(told) == (4 if steps == "alternating" else 2)
    torch.testing.assert_close(torch.tensor(told), torch.tensor(expected), rtol=1e-5, atol=1e-5)
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-5, atol=1e-5, msg=name)


def leaves(node):
    """Parameters that the graph behind ``node`` ends in."""
    found, seen, todo = set(), set(), [node]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        todo += [following for following, _ in node.next_functions]
    return found


def test_the_graph_of_each_step_ends_in_the_parameters_it_updates_and_in_no_other():
    model = masking_model()
    engine, found = engine_for(model), []
    engine.on_step = lambda parts: found.append(leaves(parts.total.grad_fn))
    engine.forward_backward(batch())
    mask = {id(p) for p in model.mask_generator.parameters()}
    assert found == [{id(p) for p in model.parameters()} - mask, mask]


class Backward(TorchDispatchMode):
    """Which gradients every convolution's backward was asked for: (channels in, input, weight)."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution_backward.default:
            self.asked.append((args[2].shape[1], *args[-1][:2]))
        return function(*args, **(kwargs or {}))


def test_no_gradient_is_computed_for_a_frozen_convolution_nor_for_the_encoder_in_step_two():
    model = masking_model()
    engine = engine_for(model)
    with Backward() as backward:
        engine.forward_backward(batch())
    maps = model.mask_generator.conv1[0].in_channels
    generator = [(24, True), (48, True), (maps, True)]  # third, second, first convolution: backwards
    step_one = [(channels, wanted, False) for channels, wanted in generator] + [(3, False, True)]  # last: patches
    step_two = [(24, True, True), (48, True, True), (maps, False, True)]
    assert backward.asked == step_one + step_two


class Calls(TorchFunctionMode):
    """Counts calls by name, the ones that wait for the device among them."""

    WAITING = ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy", "nonzero", "unique")

    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.seen[getattr(function, "__name__", "")] += 1
        return function(*args, **(kwargs or {}))

    @property
    def waiting(self):
        return {name: self.seen[name] for name in self.WAITING if self.seen[name]}


class Scalars(TorchDispatchMode):
    """Counts the kernels that bring numbers or data-dependent sizes to the host."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        names = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2")
        self.count += function.overloadpacket.__name__ in names
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("steps", STEPS)
def test_every_block_uses_fused_attention_once_a_step(steps):
    model = masking_model()
    assert all(block.attn.fused_attn for block in model.backbone.transformer.blocks)
    engine = engine_for(model, steps=steps)
    with Calls() as calls:
        engine.forward_backward(batch())
    assert calls.seen["scaled_dot_product_attention"] == model.backbone.depth * (2 if steps == "alternating" else 1)


@pytest.mark.parametrize("form", ["loop", "fused"])
@pytest.mark.parametrize("options", [{}, {"steps": "simultaneous"}, {"accumulate": 2, "grad_checkpointing": True}])
def test_an_iteration_waits_for_the_device_once_for_all_its_numbers(options, form):
    model = masking_model()
    engine = engine_for(model, optimizer=build_optimizer(model, form=form), **options)
    with Calls() as calls, Scalars() as scalars:
        engine.forward_backward(batch())
    # The triplet loss looks for negatives on a CPU only, where there is no device to wait for.
    checks = 1 if options.get("steps") == "simultaneous" else 2
    assert calls.waiting == {"tolist": 1, "__bool__": checks} and scalars.count == checks


def test_the_fused_optimizer_spares_the_gradient_scaler_its_transfers():
    waits = {}
    for form in ("loop", "fused"):
        model = masking_model()
        engine = engine_for(model, optimizer=build_optimizer(model, form=form), amp="float16")
        engine.forward_backward(batch())  # the first one makes the scaler's tensors
        with Calls() as calls:
            engine.forward_backward(batch())
        waits[form] = calls.waiting
    assert waits["fused"] == {"tolist": 1, "__bool__": 2} and waits["loop"]["item"] == 2


def test_simultaneous_logs_as_step_one_and_updates_both_parts():
    model = masking_model()
    before = copy.deepcopy(model.state_dict())
    summary = engine_for(model, steps="simultaneous").forward_backward(batch())
    assert set(summary) == {"loss", "cls", "masked", "head", "triplet", "acc"}
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name, _ in model.named_parameters()} <= moved


def test_simultaneous_is_step_one_for_a_baseline_bit_for_bit():
    models = [masking_model(mask_blocks=()) for _ in STEPS]
    for model, steps in zip(models, STEPS):
        engine_for(model, steps=steps).forward_backward(batch())
    assert all(torch.equal(a, b) for a, b in zip(*(model.state_dict().values() for model in models)))


@pytest.mark.parametrize("amp", ["float16", "bfloat16"])
def test_simultaneous_trains_in_mixed_precision(amp):
    torch.manual_seed(0)
    model = masking_model()
    optimizer = build_optimizer(model, optim="adamw", lr=3e-3)
    engine = engine_for(model, optimizer=optimizer, steps="simultaneous", amp=amp)
    summaries = [engine.forward_backward(batch()) for _ in range(8)]
    assert summaries[-1]["loss"] < 0.8 * summaries[0]["loss"]


def test_simultaneous_obeys_fixbase_epochs():
    model = masking_model()
    engine = engine_for(model, steps="simultaneous")
    before = copy.deepcopy(model.state_dict())
    engine.two_stepped_transfer_learning(0, fixbase_epoch=1, open_layers=["classifier"])
    engine.forward_backward(batch())
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {"classifier.weight"}


@pytest.mark.parametrize(
    "options, said",
    [
        ({"steps": "both"}, "train.steps 'both'.*alternating, simultaneous"),
        ({"accumulate": 0}, "at least 1"),
        ({"compile_backend": "abacus"}, "'abacus' does not work here.*train.compile False"),
    ],
)
def test_an_unknown_option_is_refused_with_the_choices(options, said):
    with pytest.raises(DPMError, match=said):
        engine_for(tiny_model(), **options)
