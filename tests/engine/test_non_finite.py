"""Losses and gradients that are not finite: named, and the run stopped or the iteration undone in every bit."""

import copy
import json
import types

import pytest
import torch

from dpm_plugin import DPMError
from dpm_plugin.engine.engine import ImageDPMEngine
from dpm_plugin.engine.stock import SoftmaxEngine
from dpm_plugin.engine.training_options import TrainingOptions
from dpm_plugin.method.recipe import build_optimizer
from dpm_plugin.weights.files import read_checkpoint
from helpers.model import assert_identical, batch, engine_for, tiny_model
from helpers.runs import finished_run

pytestmark = pytest.mark.torchreid


def state_of(engine):
    return copy.deepcopy((engine.model.state_dict(), engine.optimizer.state_dict()))


def spoilt(data):
    data["img"][0, 0, 0, 0] = float("nan")
    return data


def test_an_infinite_gradient_of_a_finite_loss_stops_with_all_parts_of_the_loss():
    torch.manual_seed(0)
    engine = engine_for(tiny_model(), [batch()])
    engine.model.classifier.weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(DPMError, match=r"non-finite gradient in epoch 1, iteration 1 of 1 \(loss 1\d.*gradient inf"):
        engine.forward_backward(batch())


def test_scaled_gradients_that_overflow_are_the_scalers_business():
    engine = engine_for(tiny_model(), [batch()], amp="float16")
    before = state_of(engine)
    engine.model.classifier.weight.register_hook(lambda gradient: gradient * float("inf"))
    numbers = engine.forward_backward(batch())
    assert "gradient" not in numbers and engine.scaler.get_scale() < 65536
    assert torch.equal(engine.model.classifier.weight, before[0]["classifier.weight"])


@pytest.mark.parametrize("optim", ["sgd", "adamw"])
def test_a_skipped_iteration_is_undone_in_every_bit_and_counted(optim, capsys):
    torch.manual_seed(0)
    model = tiny_model()
    optimizer, skip = build_optimizer(model, optim=optim, lr=0.01), TrainingOptions(non_finite="skip")
    engine = engine_for(model, [batch()], optimizer=optimizer, training=skip)
    for _ in range(2):  # without optimizer state, and with it
        before = state_of(engine)
        assert engine.forward_backward(spoilt(batch())) == {}
        assert_identical(state_of(engine), before)
        assert set(engine.forward_backward(batch())) == {"loss", "cls", "masked", "head", "triplet", "acc", "masked_2"}
    assert engine.skipped_iterations == 2
    assert "skipped, 2 so far" in capsys.readouterr().out


def test_so_many_skipped_iterations_in_a_row_stop_the_run():
    options = TrainingOptions(non_finite="skip", non_finite_limit=3)
    engine = engine_for(tiny_model(), [batch()], training=options)
    for _ in range(2):  # a good one between them starts the count anew
        for _ in range(2):
            engine.forward_backward(spoilt(batch()))
        engine.forward_backward(batch())
    engine.forward_backward(spoilt(batch()))
    engine.forward_backward(spoilt(batch()))
    with pytest.raises(DPMError, match="non-finite loss.*number 3 in a row .train.non_finite_limit"):
        engine.forward_backward(spoilt(batch()))


def stock_engine(**options):
    """torchreid's softmax engine with this package's guarantees."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 64 * 32, 5))
    manager = types.SimpleNamespace(train_loader=[batch()], test_loader={}, sources=["tiny"], num_train_pids=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    engine = SoftmaxEngine(manager, model, optimizer, use_gpu=False, training=TrainingOptions(**options))
    engine.num_batches, engine.batch_idx, engine.max_epoch = 1, 0, 1
    return engine


def test_a_stock_engine_stops_and_skips_alike():
    engine = stock_engine(non_finite="skip")
    assert set(engine.forward_backward(batch())) == {"loss", "acc"}
    before = state_of(engine)
    assert engine.forward_backward(spoilt(batch())) == {}
    assert_identical(state_of(engine), before)
    engine = stock_engine()
    engine.model[1].weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(DPMError, match="non-finite gradient in epoch 1, iteration 1 of 1"):
        engine.forward_backward(batch())


def test_skipped_iterations_stand_in_the_checkpoint_and_in_results_json(monkeypatch, tmp_path):
    own, calls = ImageDPMEngine.parse_data_for_train, []

    def spoil_the_second(self, data):
        calls.append(1)
        return own(self, spoilt(data) if len(calls) == 2 else data)

    monkeypatch.setattr(ImageDPMEngine, "parse_data_for_train", spoil_the_second)
    folder, _, _ = finished_run(tmp_path, tmp_path / "data", train__non_finite="skip", synthetic__train_images=4)
    assert json.loads((folder / "results.json").read_text())["run"]["skipped_iterations"] == 1
    assert read_checkpoint(folder / "model" / "last.pth.tar")["progress"]["skipped"] == 1
