"""A finished run opens as what was trained; anything else is one clear error."""

import json
import shutil

import pytest
import torch

from dpm_plugin import DPMError
from dpm_plugin.inference.open_run import open_run, open_trained
from helpers.runs import as_of_0_1_0, change, finished_run

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
        ("vit", "embed_dim", 32, "and model/last.pth.tar are of different models"),
        ("model", "name", "osnet_x0_25", "trained 'osnet_x0_25'; this needs one of dpm_vit,"),
    ],
)
@pytest.mark.parametrize("old", [False, True])
def test_settings_of_another_model_are_an_error(dpm, tmp_path, old, section, key, value, says):
    path = copied(dpm, tmp_path / "run") / "results.json"
    if old:
        as_of_0_1_0(path.parent / "model" / "last.pth.tar")
        content = json.loads(path.read_text(encoding="utf-8"))
        content["run"]["config"][section][key] = value
        path.write_text(json.dumps(content), encoding="utf-8")
    else:
        change(path.parent / "model" / "last.pth.tar", lambda state: state["config"][section].update({key: value}))
    with pytest.raises(DPMError, match=says):
        open_run(path.parent)


def test_a_checkpoint_opens_by_its_own_settings_wherever_it_lies_and_one_of_0_1_0_by_its_runs(dpm, tmp_path):
    folder, model, config = dpm
    spoiled = copied(dpm, tmp_path / "run")
    (spoiled / "results.json").write_text("{}", encoding="utf-8")
    (tmp_path / "a" / "b").mkdir(parents=True)
    alone = shutil.copy(folder / "model" / "last.pth.tar", tmp_path / "a" / "b" / "alone.pth")
    old = copied(dpm, tmp_path / "old")
    as_of_0_1_0(old / "model" / "last.pth.tar")
    for opened in (open_run(spoiled), open_trained(alone), open_run(old), open_trained(old / "model" / "last.pth.tar")):
        assert opened.config.loss == config.loss and opened.config.vit == config.vit
        assert torch.equal(opened.model.classifier.weight, model.classifier.weight)
    rows = {"synthetic_occluded": {camera: camera for camera in range(3)}}
    assert open_run(folder).cameras == rows and open_run(old).cameras is None
    as_of_0_1_0(alone)
    with pytest.raises(DPMError, match="lies in no finished run"):
        open_trained(alone)


@pytest.mark.parametrize("odd", [7, {}, {3: 4}, {"vit": {"stride": {}}}, {"model": torch.zeros(2)}, "itself"])
def test_a_damaged_record_is_one_line(dpm, tmp_path, odd):
    folder = copied(dpm, tmp_path / "run")
    (folder / "results.json").unlink()
    if odd == "itself":
        odd = {}
        odd["vit"] = odd
    change(folder / "model" / "last.pth.tar", lambda state: state.update(config=odd, cameras=odd))
    with pytest.raises(DPMError) as caught:
        open_run(folder)
    assert "\n" not in str(caught.value)
