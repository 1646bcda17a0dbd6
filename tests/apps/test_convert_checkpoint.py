"""tools/convert_checkpoint.py: names change, values do not, and nothing half-written is left."""

import runpy
import sys

import pytest
import safetensors.torch
import timm
import torch

from dpm_plugin import load_weights
from dpm_plugin.apps.convert_checkpoint import convert
from dpm_plugin.commands import convert as tool
from dpm_plugin.torchreid_host import models
from dpm_plugin.weights.files import read_checkpoint
from helpers.model import TINY, tiny_model, to_released
from helpers.payload import Payload
from helpers.scripts import TOOLS, check_mistake

pytestmark = pytest.mark.torchreid


@pytest.fixture(scope="module")
def model():
    return tiny_model()


def released_state(model):
    """A released checkpoint with ``model``'s weights: also the classifier that nothing uses, and odd numbers."""
    state = {key: value.clone() for key, value in to_released(model.state_dict()).items()}
    state["base.cls_token"][0, 0, :3] = torch.tensor([float("nan"), -0.0, 1e-45])
    state["base.attfc.weight"] = state["base.attfc.weight"].half()
    return {"base.fc.weight": torch.randn(7, 24), "base.fc.bias": torch.randn(7), **state}


def bits(state):
    """Names in order, shapes, number formats and bits."""
    return [(key, value.shape, value.dtype, value.contiguous().numpy().tobytes()) for key, value in state.items()]


@pytest.mark.parametrize("between", ["between.pth", "between.safetensors"])
def test_released_to_ours_to_released_is_bit_equal(tmp_path, model, between, capsys):
    state = released_state(model)
    source, between, target = tmp_path / "released.pth", tmp_path / between, tmp_path / "back.pth"
    torch.save({f"module.{key}": value for key, value in state.items()}, source)
    assert tool.main([str(source), str(between)]) == 0
    done = f"=> '{source}' (released names) to '{between}' (dpm names): {len(state)} tensors\n"
    assert capsys.readouterr().out == done
    assert tool.main([str(between), str(target), "--to", "released"]) == 0
    back = read_checkpoint(target)
    if between.suffix == ".pth":
        assert bits(back) == bits(state)
    assert sorted(bits(back)) == sorted(bits(state))  # a safetensors file has an order of its own
    assert not list(tmp_path.glob(".*"))


def test_a_converted_file_loads_as_its_source_does(tmp_path, model):
    source, state = tmp_path / "released.pth", released_state(model)
    state["base.cls_token"] = state["base.cls_token"].nan_to_num()  # NaN is converted, but not loaded
    torch.save(state, source)
    convert(source, tmp_path / "ours.pth")
    by_source, by_converted = tiny_model(), tiny_model()
    reports = load_weights(by_source, source), load_weights(by_converted, tmp_path / "ours.pth")
    assert [report.naming for report in reports] == ["released", "dpm"]
    assert reports[0][1:] == reports[1][1:] and reports[0].unused == ["base.fc.weight", "base.fc.bias"]
    assert bits(by_source.state_dict()) == bits(by_converted.state_dict())


def test_a_training_checkpoint_of_ours_becomes_a_plain_released_one(tmp_path, model):
    torch.save({"state_dict": model.state_dict(), "epoch": 3, "optimizer": {}}, tmp_path / "last.pth.tar")
    convert(tmp_path / "last.pth.tar", tmp_path / "out" / "released.pth", "released")
    assert bits(read_checkpoint(tmp_path / "out" / "released.pth")) == bits(to_released(model.state_dict()))


def test_the_encoder_goes_to_timm_and_back(tmp_path, model):
    torch.save(model.state_dict(), tmp_path / "ours.pth")
    layout, *_, left_out = convert(tmp_path / "ours.pth", tmp_path / "timm.safetensors", "timm")
    assert layout == "dpm" and set(left_out) == {
        key for key in model.state_dict() if not key.startswith("backbone.transformer.")
    }
    shape = {key: TINY[key] for key in ("img_size", "patch_size", "embed_dim", "depth", "num_heads")}
    plain = timm.create_model(TINY["backbone"], num_classes=7, **shape)
    plain.load_state_dict(safetensors.torch.load_file(tmp_path / "timm.safetensors"), strict=False)
    assert torch.equal(plain.blocks[3].mlp.fc2.weight, model.backbone.transformer.blocks[3].mlp.fc2.weight)
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    convert(tmp_path / "plain.pth", tmp_path / "ours.pth", "dpm")
    convert(tmp_path / "ours.pth", tmp_path / "again.pth", "timm")
    assert bits(read_checkpoint(tmp_path / "again.pth")) == bits(plain.state_dict())
    *_, left_out = convert(tmp_path / "plain.pth", tmp_path / "released.pth", "released")
    assert left_out == ["head.weight", "head.bias"]


@pytest.mark.parametrize("kind", ["damaged", "code", "other network", "missing", "folder as target", "unwritable"])
def test_what_cannot_be_converted_is_a_one_line_error_that_leaves_nothing(tmp_path, capsys, model, kind):
    source, target = tmp_path / "in.pth", tmp_path / "out.pth"
    state = {"state_dict": released_state(model)}
    if kind == "other network":
        state = models.build_model("osnet_x0_25", num_classes=4, pretrained=False).state_dict()
    elif kind == "code":
        state["x"] = Payload(tmp_path / "executed")
    torch.save(state, source)
    if kind == "damaged":
        source.write_bytes(source.read_bytes()[:-5000])
    elif kind == "missing":
        source.unlink()
    elif kind == "folder as target":
        target.mkdir()
    elif kind == "unwritable":
        target = source / "out.pth"  # "in" a file
    before = sorted(tmp_path.rglob("*"))
    named = target if kind in ("folder as target", "unwritable") else source
    check_mistake(tool.main, [source, target], capsys, str(named))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_error_in_writing_keeps_the_file_that_was_there(tmp_path, monkeypatch, capsys, model):
    def full_disk(*args, **kwargs):
        raise OSError(28, "No space left on device")

    torch.save(released_state(model), tmp_path / "in.pth")
    (tmp_path / "out.pth").write_text("older")
    monkeypatch.setattr(torch, "save", full_disk)
    check_mistake(tool.main, [tmp_path / "in.pth", tmp_path / "out.pth"], capsys, "No space left on device")
    assert {path.name for path in tmp_path.iterdir()} == {"in.pth", "out.pth"}
    assert (tmp_path / "out.pth").read_text() == "older"


def test_input_and_output_are_two_files_by_whatever_name(tmp_path, capsys, model):
    torch.save(released_state(model), tmp_path / "in.pth")
    before = (tmp_path / "in.pth").read_bytes()
    (tmp_path / "link.pth").symlink_to("in.pth")
    for target in (tmp_path / "in.pth", tmp_path / "link.pth"):
        check_mistake(tool.main, [tmp_path / "in.pth", target], capsys, "is the input too")
    assert (tmp_path / "in.pth").read_bytes() == before


def test_the_tool_is_this_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tool", "in.pth", "out.pth", "--to", "onnx"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(TOOLS / "convert_checkpoint.py"), run_name="__main__")
    assert stop.value.code == 2 and capsys.readouterr().err.count("\n") == 1
