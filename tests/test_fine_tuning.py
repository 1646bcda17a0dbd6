"""Training from another run's weights: whose classifier it is, and blocks that stay as they are."""

import pytest
import torch

from dpm_plugin.weights.files import read_checkpoint
from helpers.runs import as_of_0_1_0, finished_run, main_of

pytestmark = [pytest.mark.slow, pytest.mark.torchreid]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def start(root, tmp_path_factory):
    """A checkpoint of four people."""
    folder = tmp_path_factory.mktemp("start") / "run"
    return finished_run(folder, root)[0] / "model" / "last.pth.tar"


def state_of(path):
    return read_checkpoint(path)["state_dict"]


def first_state(folder, root, start, **changes):
    """The weights that a run from ``start`` begins with."""
    kept = {}
    take = lambda engine: kept.update({key: value.clone() for key, value in engine.model.state_dict().items()})
    finished_run(folder, root, prepare=take, model__load_weights=str(start), **changes)
    return kept


OTHERS = [dict(synthetic__seed=5), dict(synthetic__train_images=3)]


@pytest.mark.parametrize("changes", OTHERS)
def test_a_classifier_of_as_many_other_people_is_left_out_and_said(start, root, tmp_path, capsys, changes):
    found, given = first_state(tmp_path / "run", root, start, **changes), state_of(start)
    out = capsys.readouterr().out
    assert found["classifier.weight"].shape == given["classifier.weight"].shape
    assert not torch.equal(found["classifier.weight"], given["classifier.weight"])
    assert torch.equal(found["mask_generator.linear.weight"], given["mask_generator.linear.weight"])
    assert "trained on other people: the classifier is new" in out and "1 skipped (classifier.weight)" in out


def test_the_classifier_of_the_same_people_is_taken(start, root, tmp_path, capsys):
    found, given = first_state(tmp_path / "run", root, start), state_of(start)
    assert torch.equal(found["classifier.weight"], given["classifier.weight"])
    out = capsys.readouterr().out
    assert "skipped" not in out and "the classifier is new" not in out and "whom its classifier" not in out


def test_a_classifier_of_nobody_knows_whom_is_taken_and_said(start, root, tmp_path, capsys):
    old = tmp_path / "old.pth.tar"
    old.write_bytes(start.read_bytes())
    as_of_0_1_0(old)
    found = first_state(tmp_path / "run", root, old, synthetic__seed=5)
    assert torch.equal(found["classifier.weight"], state_of(old)["classifier.weight"])
    assert "does not say whom its classifier was trained on" in capsys.readouterr().out


def test_an_evaluation_takes_all_and_says_nothing(start, root, tmp_path, capsys):
    found = first_state(tmp_path / "run", root, start, synthetic__seed=5, test__evaluate=True)
    assert torch.equal(found["classifier.weight"], state_of(start)["classifier.weight"])
    assert "classifier" not in capsys.readouterr().out.replace("classifier'", "")


@pytest.mark.parametrize("loss", ["dpm", "softmax", "triplet"])
def test_frozen_blocks_patches_and_positions_keep_their_bits(root, tmp_path, loss):
    settings = dict(loss__name=loss, train__freeze_blocks=1, train__fixbase_epoch=1, train__max_epoch=3, vit__depth=3)
    settings |= dict(loss__triplet__weight_x=1.0)  # else it leaves the classifier out
    begun = {}
    take = lambda engine: begun.update({key: value.clone() for key, value in engine.model.state_dict().items()})
    _, model, _ = finished_run(tmp_path / "run", root, prepare=take, **settings)
    same = {key for key, value in model.state_dict().items() if torch.equal(value, begun[key])}
    frozen = ("blocks.0.", "patch_embed.", "pos_embed")
    names = [key for key, _ in model.named_parameters()]
    kept = {key for key in names if key.removeprefix("backbone.transformer.").startswith(frozen)}
    assert len(kept) > 10 and kept <= same
    trained = {"backbone.transformer.blocks.1.attn.qkv.weight", "backbone.transformer.cls_token", "classifier.weight"}
    assert not trained & same


def test_freezing_more_blocks_than_there_are_or_a_stock_model_is_one_line(root, tmp_path, capsys):
    main = main_of(root, tmp_path / "run", capsys)
    code, _, error = main(train__freeze_blocks=3)
    assert code == 2 and error.count("\n") == 1 and "train.freeze_blocks 3 is more than the 2 blocks" in error
    code, _, error = main(train__freeze_blocks=1, model__name="osnet_x0_25", loss__name="softmax")
    assert code == 2 and error.count("\n") == 1 and "train.freeze_blocks is for the plugin's models" in error
