"""A run resumes, opens and is evaluated with the rows of the camera embedding that it was trained with."""

import functools
import shutil

import pytest
import torch

from dpm_plugin import DPMError, build
from dpm_plugin.config import load_config
from dpm_plugin.engine.run_record import recorded_cameras
from dpm_plugin.inference.extractor import DPMExtractor
from dpm_plugin.inference.open_run import open_run
from dpm_plugin.inference.run_extractor import Extractor
from dpm_plugin.weights.files import read_checkpoint
from helpers.data import write_market, write_occluded_duke
from helpers.runs import SETTINGS, as_of_0_1_0, finished_run

pytestmark = [pytest.mark.slow, pytest.mark.torchreid, pytest.mark.filterwarnings("ignore:occluded_duke")]

SETS = dict(data__sources=["occluded_duke"], data__targets=["occluded_duke"], test__ranks=[1], vit__camera_weight=9.0)
SETS |= dict(train__lr_scheduler="single_step")  # the same whatever the number of epochs
QUERY, GALLERY = torch.tensor([0, 0]), torch.tensor([1, 1])  # camera ids; the second was not in training
LAST = "model/last.pth.tar"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A data set whose training cameras, 0 and 7, leave a gap."""
    root = tmp_path_factory.mktemp("data")
    write_occluded_duke(root, cameras=(1, 8))
    return root


def with_ids(folder, root, epochs, **changes):
    """A run as the version before trained it: with the ids as rows, and a record of offsets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_datamanager", functools.partial(build.build_datamanager, dense_cameras=False))
        return finished_run(folder, root, **{**SETS, **changes, "train__max_epoch": epochs})[0]


@pytest.fixture(scope="module", params=["offsets", "none"])
def before(request, root, tmp_path_factory):
    """The folder of such a run of one epoch; as 0.1.0 wrote it, without a record, too."""
    folder = with_ids(tmp_path_factory.mktemp("runs") / request.param, root, 1)
    assert recorded_cameras(read_checkpoint(folder / LAST)) == {"occluded_duke": 0}
    if request.param == "none":
        for path in (folder / "model").iterdir():
            as_of_0_1_0(path)
    return folder


def engine_of(root, folder, **changes):
    changes = {**SETS, "train__max_epoch": 1, "data__save_dir": str(folder), "data__root": str(root), **changes}
    config = load_config(overrides={**SETTINGS, **{key.replace("__", "."): value for key, value in changes.items()}})
    engine = build.build_run(config)
    build.resume(config, engine)
    return engine


def test_a_new_run_records_the_row_of_each_camera_and_is_read_by_them(root, tmp_path):
    folder, model, _ = finished_run(tmp_path / "run", root, **SETS)
    expected = {"occluded_duke": {0: 0, 7: 1}}
    assert recorded_cameras(read_checkpoint(folder / LAST)) == open_run(folder).cameras == expected
    assert model.num_cameras == 2
    extractor = Extractor(folder, root=root)
    rows = [extractor.cameras(side)(camids).tolist() for side, camids in (("query", QUERY), ("gallery", GALLERY))]
    assert rows == [[0, 0], [-1, -1]]
    weights = dict(test__evaluate=True, model__load_weights=str(folder / LAST))
    for changes in (dict(train__resume="auto"), weights):
        engine = engine_of(root, folder, **changes)
        assert (engine.trained_cameras, engine.model.num_cameras) == (expected, 2)


@pytest.mark.parametrize("how", ["resume", "evaluate", "evaluate resumed"])
def test_a_run_of_before_is_resumed_and_evaluated_with_its_own_rows(how, before, root):
    changes = {
        "resume": dict(train__resume="auto", train__max_epoch=2),
        "evaluate": dict(test__evaluate=True, model__load_weights=str(before / LAST)),
        "evaluate resumed": dict(test__evaluate=True, model__resume=str(before / LAST)),
    }[how]
    engine = engine_of(root, before, **changes)
    assert (engine.trained_cameras, engine.model.num_cameras) == ({"occluded_duke": 0}, 8)
    assert {entry[2] for entry in engine.datamanager.train_loader.dataset.train} == {0, 7}


def test_a_run_of_before_opens_with_its_own_rows(before, root):
    assert open_run(before).model.num_cameras == DPMExtractor(before, device="cpu").model.num_cameras == 8
    assert Extractor(before, root=root).cameras("gallery")(GALLERY).tolist() == [1, 1]


def test_a_resumed_run_of_before_has_the_bits_that_it_would_have_had(before, root, tmp_path):
    folder = shutil.copytree(before, tmp_path / "run")
    resumed = finished_run(folder, root, **SETS, train__max_epoch=2, train__resume="auto")[1].state_dict()
    whole = open_run(with_ids(tmp_path / "whole", root, 2)).model.state_dict()
    assert recorded_cameras(read_checkpoint(folder / LAST)) == {"occluded_duke": 0}
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)


def test_an_engine_over_other_numbers_of_the_cameras_refuses_to_train_on(tmp_path):
    write_market(tmp_path)
    write_occluded_duke(tmp_path)
    sets = {**SETS, "data__sources": ["market1501", "occluded_duke"]}  # 0, 3 and 2, 3; or 0, 1 and 2, 3: 4 rows each
    folder = with_ids(tmp_path / "run", tmp_path, 1, **sets)
    as_of_0_1_0(folder / LAST)
    engine = engine_of(tmp_path, tmp_path / "new", **sets)
    with pytest.raises(DPMError, match="build the data manager with dense_cameras=False"):
        engine.resume(folder / LAST)


def test_a_loss_without_cameras_keeps_the_ids(root, tmp_path):
    plain = dict(loss__name="softmax", **SETS)
    folder, model, _ = finished_run(tmp_path / "run", root, **plain)
    engine = engine_of(root, folder, **plain, train__resume="auto")
    assert model.num_cameras == engine.model.num_cameras == 8 and engine.trained_cameras == {}
