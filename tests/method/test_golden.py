"""Numbers of the method's released implementation: inference, heads, losses and one two-step iteration."""

import json
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dpm_plugin import DPM, DPMLoss, HeadEnrichLoss, ImageDPMEngine, MaskedArcFace, SoftMarginTripletLoss
from dpm_plugin.method.losses import plain_logits
from dpm_plugin.method.recipe import build_optimizer
from dpm_plugin.weights.key_names import from_own_names, to_own_names
from helpers.golden_weights import fill
from helpers.model import from_released

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden"


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "released.npz", allow_pickle=False))


@pytest.fixture(scope="module")
def released_state():
    """A function: overrides of shapes -> the released state dict that the cases were computed with."""
    shapes = json.loads((GOLDEN / "released_state_dict_shapes.json").read_text())

    def build(**overrides):
        return {key: torch.from_numpy(fill(key, tuple(overrides.get(key, shape)))) for key, shape in shapes.items()}

    return build


def released_model(state, **options):
    with torch.device("meta"):  # every tensor comes from the state: drawing random ones first takes seconds
        model = DPM(11, num_cameras=6, drop_path=0.0, mask_pool="max", **options)
    model.load_state_dict(from_released(state), assign=True)
    return model


def relative(got, expected):
    expected = torch.as_tensor(expected)
    return ((got - expected).abs().max() / expected.abs().max()).item()


def test_inference_of_a_released_checkpoint_is_equal_to_1e_4(golden, released_state):
    model = released_model(released_state()).eval()
    rng = np.random.RandomState(int(golden["infer/seed"]))
    images = torch.from_numpy(rng.uniform(-1, 1, (3, 3, *golden["infer/size"])).astype(np.float32))
    cameras = torch.from_numpy(rng.randint(0, 6, 3))
    with torch.inference_mode():
        output = model.embed(images, cameras, need_heads=True)
    for got, name in zip(output, ("feature", "feature_bn", "mask", "hem_logits")):
        np.testing.assert_allclose(got.numpy(), golden[f"infer/{name}"], rtol=0, atol=1e-4)


def test_every_name_of_a_released_checkpoint_is_known_and_converts_back_to_itself():
    shapes = json.loads((GOLDEN / "released_state_dict_shapes.json").read_text())
    state = {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}
    named = to_own_names(state)
    assert (named.naming, named.unused) == ("released", []) and len(named.state) == len(shapes)
    back, left_out = from_own_names(named.state, "released")
    assert not left_out and [(key, list(value.shape)) for key, value in back.items()] == list(shapes.items())


def test_heads_and_losses_with_gradients_are_equal_to_1e_5_relative(golden):
    case = {key.removeprefix("heads/"): torch.from_numpy(v) for key, v in golden.items() if key.startswith("heads/")}
    x, mask, w, att = (case[key].clone().requires_grad_() for key in ("x", "mask", "W", "att"))
    assert relative(plain_logits(x, w), case["logits"]) < 1e-5
    logits = MaskedArcFace(float(case["s"]), float(case["m"]))(x, w, mask, case["y"])
    assert relative(logits, case["masked_logits"]) < 1e-5
    loss = F.cross_entropy(logits, case["y"])
    assert loss.item() == pytest.approx(float(case["masked_ce"]), rel=1e-5)
    loss.backward()
    for tensor, name in ((x, "grad_x"), (mask, "grad_mask"), (w, "grad_W")):
        assert relative(tensor.grad, case[name]) < 1e-5

    loss = HeadEnrichLoss("logits", "released")(att)
    assert loss.item() == pytest.approx(float(case["hem"]), rel=1e-5)
    loss.backward()
    assert relative(att.grad, case["hem_grad"]) < 1e-5

    x.grad = None
    loss = SoftMarginTripletLoss()(x, case["trip_y"])
    assert loss.item() == pytest.approx(float(case["trip"]), rel=1e-5)
    loss.backward()
    assert relative(x.grad, case["trip_grad"]) < 1e-5


def test_one_two_step_iteration_is_equal_to_1e_3_in_losses_and_every_tensors_statistics(golden, released_state):
    case = {key.removeprefix("train/"): value for key, value in golden.items() if key.startswith("train/")}
    size = tuple(int(v) for v in case["size"])
    state = released_state(**{"base.pos_embed": (1, 33, 768)})
    model = released_model(state, img_size=size).train()
    rng = np.random.RandomState(int(case["seed"]))
    images = torch.from_numpy(rng.uniform(-1, 1, (int(case["B"]), 3, *size)).astype(np.float32))
    cameras = torch.from_numpy(rng.randint(0, 6, int(case["B"])))
    labels = torch.from_numpy(np.repeat(rng.permutation(11)[: int(case["B"] // case["k"])], int(case["k"])))

    manager = types.SimpleNamespace(train_loader=[], test_loader={}, sources=["golden"])
    criterion = DPMLoss(head_input="logits", head_reduction="released", margin=float(case["m"]))
    engine = ImageDPMEngine(manager, model, build_optimizer(model), criterion=criterion, use_gpu=False)
    losses = []
    engine.on_step = lambda parts: losses.append([float(value.detach()) for value in parts[:5]])
    engine.num_batches, engine.batch_idx = 1, 0
    engine.forward_backward({"img": images, "pid": labels, "camid": cameras})

    np.testing.assert_allclose(losses, case["losses"][0], rtol=1e-3, atol=1e-8)
    own = model.state_dict()
    compared = 0
    for name, expected in zip(case["names"], case["stats"]):
        for key in from_released({str(name): torch.zeros(1, 1)}):
            tensor = own[key].double().flatten()
            got = np.array([tensor.norm(), tensor.mean(), tensor[0], tensor[-1]])
            scale = np.maximum(np.abs(expected), 1e-3 * expected[0])  # a mean near 0 is compared on the norm's scale
            assert (np.abs(got - expected) <= 1e-3 * scale).all(), (name, got, expected)
            compared += 1
    assert compared == 180  # all of the 182 but the classifier that nothing uses
