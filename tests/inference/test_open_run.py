"""A finished run opens as what was trained; anything else is one clear error."""

import json
import shutil

import pytest
import torch

from dpm_plugin import DPMError
from dpm_plugin.inference.open_run import open_run
from helpers.runs import finished_run

pytestmark = pytest.mark.torchreid


@pytest.fixture(scope="module")
def dpm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dpm")
    return finished_run(folder / "run", folder / "data", train__max_epoch=2, loss__dpm__beta=0.25)


def copied(run, to):
    shutil.copytree(run[0], to)
    return to


def test_the_opened_model_is_the_trained_one_in_eval_mode(dpm):
    folder, model, _ = dpm
    opened = open_run(folder)
    images, camids = torch.randn(3, 3, 32, 16), torch.tensor([0, 2, 7])
    with torch.no_grad():
        expected, got = (each.embed(images, camids, need_heads=True) for each in (model, opened.model))
    for name in ("cls", "embedding", "mask", "head_logits"):
        assert torch.equal(getattr(got, name), getattr(expected, name))
    assert not any(module.training for module in opened.model.modules())
    assert opened.epoch == 2


def test_the_settings_are_the_runs_own(dpm):
    folder, _, config = dpm
    opened = open_run(folder).config
    assert opened == config
    assert opened.loss.dpm.beta == 0.25 and opened.synthetic.test_ids == 8


def test_a_run_that_was_moved_and_its_data_too_opens_with_the_new_places(dpm, tmp_path):
    opened = open_run(copied(dpm, tmp_path / "moved"), root=tmp_path / "elsewhere")
    assert opened.config.data.save_dir == str(tmp_path / "moved")
    assert opened.config.data.root == str(tmp_path / "elsewhere")


@pytest.mark.parametrize(
    "changes",
    [
        {"model__name": "vit_baseline_tiny"},
        {"vit__camera_embedding": False},
        {"vit__mask_blocks": [2]},
        {"vit__neck": False},
        {"vit__stride": [4, 8]},
    ],
)
def test_every_shape_of_model_opens(tmp_path, changes):
    folder, model, _ = finished_run(tmp_path / "run", tmp_path / "data", **changes)
    opened = open_run(folder).model
    assert opened.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(a, b) for a, b in zip(opened.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize("text", [None, "not json", "{}", '{"run": {}}', "[]", '{"run": {"config": []}}'])
def test_a_folder_with_no_or_other_results_is_no_finished_run(tmp_path, text):
    if text is not None:
        (tmp_path / "results.json").write_text(text, encoding="utf-8")
    with pytest.raises(DPMError, match=f"'{tmp_path}' is no finished run.*results.json"):
        open_run(tmp_path)


def test_a_run_without_its_checkpoint_names_the_missing_file(dpm, tmp_path):
    folder = copied(dpm, tmp_path / "run")
    (folder / "model" / "last.pth.tar").unlink()
    with pytest.raises(DPMError, match="last.pth.tar' does not exist"):
        open_run(folder)


@pytest.mark.parametrize(
    "section, key, value, says",
    [
        ("vit", "embed_dim", 32, "results.json and model/last.pth.tar are of different models"),
        ("model", "name", "osnet_x0_25", "trained 'osnet_x0_25'; this needs one of dpm_vit,"),
    ],
)
def test_settings_of_another_model_are_an_error(dpm, tmp_path, section, key, value, says):
    path = copied(dpm, tmp_path / "run") / "results.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["run"]["config"][section][key] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DPMError, match=says):
        open_run(path.parent)
