"""train.patience: evaluations without a better one end training in order, counted on where a run is resumed."""

import json

import numpy as np
import pytest

from dpm_plugin.engine import testing as evaluating
from dpm_plugin.engine.patience import Patience
from dpm_plugin.weights.files import read_checkpoint
from helpers.model import assert_identical
from helpers.runs import finished_run, main_of

pytestmark = [pytest.mark.slow, pytest.mark.torchreid]

SETTINGS = dict(train__max_epoch=8, test__eval_freq=1, synthetic__train_images=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def evaluations(monkeypatch):
    """``evaluations([(rank-1, mAP), ...])``: what the evaluations find, one after another; the last one again."""
    own = evaluating.evaluate

    def given(found):
        left = list(found)

        def evaluate(*arguments, **options):
            result = own(*arguments, **options)
            rank1, mAP = left.pop(0) if len(left) > 1 else left[0]
            row = result.rows[result.headline]
            result.rows[result.headline] = row._replace(cmc=np.concatenate([[rank1], row.cmc[1:]]), mAP=mAP)
            assert (result.rank1, result.mAP) == (rank1, mAP)
            return result

        monkeypatch.setattr(evaluating, "evaluate", evaluate)

    return given


def epochs(folder):
    return sorted(int(path.name.rpartition("-")[2]) for path in (folder / "model").glob("model.pth.tar-*"))


def end(folder):
    content = read_checkpoint(folder / "model" / "last.pth.tar")
    del content["config"]["data"]["save_dir"]
    return content


@pytest.mark.parametrize(
    "found, last",
    [
        ([(0.5, 0.5), (0.6, 0.5), (0.6, 0.5), (0.5, 0.9)], 4),
        ([(0.5, 0.5), (0.5, 0.6), (0.4, 0.9), (0.5, 0.6)], 4),  # a higher mAP of the same rank-1 is better
        ([(0.1, 0.1), (0.1, 0.1), (0.2, 0.1), (0.1, 0.1), (0.1, 0.1)], 5),
    ],
)
def test_training_ends_after_so_many_evaluations_without_a_better_one(found, last, root, tmp_path, evaluations, capsys):
    evaluations(found)
    folder = finished_run(tmp_path / "run", root, train__patience=2, **SETTINGS)[0]
    assert epochs(folder) == list(range(1, last + 1))
    assert f"=> Training ends after epoch {last}: 2 evaluations without a better rank-1" in capsys.readouterr().out
    result = json.loads((folder / "results.json").read_text())["datasets"]["synthetic_occluded"]
    assert result["epoch"] == last and end(folder)["epoch"] == last


def test_none_is_the_training_without_it(root, tmp_path, evaluations):
    evaluations([(0.5, 0.5)])
    folder = finished_run(tmp_path / "run", root, **{**SETTINGS, "train__max_epoch": 4})[0]
    assert epochs(folder) == [1, 2, 3, 4]


def test_a_resumed_run_counts_on_and_ends_with_the_same_bits(root, tmp_path, evaluations):
    found = [(0.5, 0.5), (0.4, 0.5), (0.4, 0.5), (0.4, 0.5)]
    evaluations(found)
    alone = finished_run(tmp_path / "alone", root, train__patience=3, **SETTINGS)[0]
    assert epochs(alone) == [1, 2, 3, 4]
    evaluations(found)

    class Killed(Exception):
        pass

    def kill(engine):
        own = engine.save_model

        def save(epoch, *arguments, **options):
            own(epoch, *arguments, **options)
            if epoch + 1 == 3:
                raise Killed

        engine.save_model = save

    settings = dict(SETTINGS, train__patience=3, train__resume="auto")
    with pytest.raises(Killed):
        finished_run(tmp_path / "run", root, prepare=kill, **settings)
    evaluations(found[3:])
    folder = finished_run(tmp_path / "run", root, **settings)[0]
    assert epochs(folder) == [1, 2, 3, 4] and end(folder)["progress"]["waited"] == 3
    ends = end(folder), end(alone)
    for each in ends:
        del each["config"]["train"]["resume"]
    assert_identical(*ends)


def test_an_ended_run_is_evaluated_when_resumed_and_goes_on_with_more_patience(root, tmp_path, evaluations, capsys):
    evaluations([(0.5, 0.5)])
    settings = dict(SETTINGS, train__resume="auto")
    folder = finished_run(tmp_path / "run", root, train__patience=1, **settings)[0]
    assert epochs(folder) == [1, 2]
    before = (folder / "model" / "last.pth.tar").read_bytes()
    capsys.readouterr()
    finished_run(folder, root, train__patience=1, **settings)
    assert "=> Training ended after epoch 2: 1 evaluations" in capsys.readouterr().out
    assert epochs(folder) == [1, 2] and (folder / "model" / "last.pth.tar").read_bytes() == before
    finished_run(folder, root, train__patience=2, **settings)
    assert epochs(folder) == [1, 2, 3]


def test_softmax_training_ends_too(root, tmp_path, evaluations):
    evaluations([(0.5, 0.5)])
    settings = dict(SETTINGS, loss__name="softmax", sampler__train_sampler="RandomSampler")
    folder = finished_run(tmp_path / "run", root, train__patience=1, **settings)[0]
    assert epochs(folder) == [1, 2]


def test_patience_without_evaluations_in_training_is_one_line(root, tmp_path, capsys):
    code, _, error = main_of(root, tmp_path / "run", capsys)(train__patience=2)
    assert code == 2 and error.count("\n") == 1 and "train.patience 2" in error and "test.eval_freq" in error


def test_zero_is_never_over():
    patience = Patience()
    for _ in range(5):
        patience.count(False)
    assert not patience.is_over and patience.waited == 5
