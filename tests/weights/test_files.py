"""Checkpoint files: resume, torchreid's own call, and files that must not be trusted."""

import os

import numpy as np
import pytest
import torch

from dpm_plugin import DPMError
from dpm_plugin.engine.run_checkpoints import restore
from dpm_plugin.method.recipe import build_optimizer, build_scheduler
from dpm_plugin.torchreid_host import utils
from dpm_plugin.weights import files as checkpoint
from helpers.model import batch, engine_for, tiny_model
from helpers.runs import change

pytestmark = pytest.mark.torchreid


def trained(tmp_path, amp="off"):
    torch.manual_seed(0)
    model = tiny_model()
    optimizer = build_optimizer(model, lr=0.05)
    engine = engine_for(model, [batch()], optimizer=optimizer, scheduler=build_scheduler(optimizer, 10), amp=amp)
    engine.save_dir, engine.epoch = str(tmp_path), 0
    engine.train()
    engine.save_model(0, np.float64(0.5), str(tmp_path))
    return engine, tmp_path / "model" / "last.pth.tar"


def parts(seed=1):
    torch.manual_seed(seed)
    model = tiny_model()
    optimizer = build_optimizer(model, lr=0.05)
    return model, optimizer, build_scheduler(optimizer, 10)


def assert_same_state(model, engine):
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), engine.model.state_dict().values()))


def test_torchreids_own_call_resumes_our_checkpoint_under_weights_only(tmp_path):
    engine, path = trained(tmp_path)
    assert torch.load(path.with_name("model.pth.tar-1"), weights_only=True)["rank1"] == 0.5
    model, optimizer, scheduler = parts()
    assert utils.resume_from_checkpoint(str(path), model, optimizer, scheduler) == 1
    assert_same_state(model, engine)
    assert optimizer.param_groups[-1]["lr"] == engine.optimizer.param_groups[-1]["lr"]


@pytest.mark.parametrize("amp", ["off", "float16"])
def test_resume_restores_weights_momentum_schedule_and_scaler(tmp_path, amp):
    engine, path = trained(tmp_path, amp)
    model, optimizer, scheduler = parts()
    other = engine_for(model, optimizer=optimizer, scheduler=scheduler, amp=amp)
    other.scaler._init_scale = 8.0
    assert restore(path, model, optimizer, scheduler, other.scaler)["epoch"] == 1
    assert other.scaler.state_dict() == engine.scaler.state_dict()
    for continued in (engine, other):
        continued.model.train()
        continued.forward_backward(batch(seed=5))
    assert_same_state(model, engine)


def test_an_old_file_with_a_text_of_python_2_is_read(tmp_path):
    path = tmp_path / "python2.pth.tar"
    torch.save({"epoch": 3, "note": "caf\xe9"}, path, _use_new_zipfile_serialization=False)
    whole, python3, python2 = path.read_bytes(), b"X\x05\0\0\0caf\xc3\xa9", b"U\x04caf\xe9"
    assert python3 in whole
    path.write_bytes(whole.replace(python3, python2))
    assert checkpoint.read_checkpoint(path) == {"epoch": 3, "note": "caf\xe9"}


def test_damaged_missing_and_foreign_files_are_one_line_errors(tmp_path):
    _, path = trained(tmp_path)
    whole = path.read_bytes()
    damaged = tmp_path / "damaged.pth"
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2]):
        damaged.write_bytes(content)
        with pytest.raises(DPMError) as error:
            restore(damaged, parts()[0])
        assert "damaged.pth" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(DPMError, match="does not exist"):
        restore(tmp_path / "none.pth", parts()[0])
    torch.save(parts()[0].state_dict(), damaged)
    with pytest.raises(DPMError, match="model.load_weights"):
        restore(damaged, parts()[0])
    with pytest.raises(DPMError, match="another model: 1 tensors differ, the first is 'classifier.weight'"):
        restore(path, tiny_model(num_classes=9))


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "last.pth.tar"
    checkpoint.write_checkpoint({"epoch": 1}, path)

    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(DPMError, match="last.pth.tar' cannot be written: No space left on device"):
        checkpoint.write_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1} and os.listdir(tmp_path) == ["last.pth.tar"]


def first_state(content):
    return next(iter(content["optimizer"]["state"].values()))


@pytest.mark.parametrize(
    "spoil, said",
    [
        (lambda content: first_state(content).update(momentum_buffer=torch.zeros(7)), r"has shape \(7,\)"),
        (lambda content: first_state(content).update(momentum_buffer="x"), "has no tensor"),
        (lambda content: content["optimizer"]["param_groups"][0].update(lr="fast"), "lr is 'fast'"),
        (lambda content: content["optimizer"].update(state=5), "does not fit"),
        (lambda content: content.update(epoch=-1), "no training state"),
    ],
)
def test_a_training_state_that_would_fail_at_the_first_step_is_refused_on_resuming(spoil, said, tmp_path):
    _, path = trained(tmp_path)
    change(path, spoil)
    with pytest.raises(DPMError, match=said):
        restore(path, *parts())
