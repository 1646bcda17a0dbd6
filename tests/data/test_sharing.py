"""What each of several processes reads: shares of one process's batches, every image once, in its order again."""

import json
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpm_plugin import build
from dpm_plugin.config import load_config
from dpm_plugin.data.sharing import EveryNthBatch, TrainShare, check_same_data, share_of_batch
from dpm_plugin.distributed.processes import ALONE
from dpm_plugin.evaluation.extract import Features, gather_features
from dpm_plugin.torchreid_host import utils
from dpm_plugin.utils.errors import DPMError
from helpers.data import manager, write_occluded_duke
from helpers.processes import in_processes, results_of
from helpers.runs import SETTINGS, finished_run

pytestmark = [pytest.mark.slow, pytest.mark.torchreid, pytest.mark.filterwarnings("ignore:occluded_duke")]


def stand_in(rank, size):
    """Processes that all draw the same, without a group."""
    return types.SimpleNamespace(rank=rank, size=size, broadcast=lambda compute: compute())


# ---- shares ----


@given(images=st.integers(0, 60), share=st.integers(1, 6), size=st.integers(1, 5))
def test_shares_of_a_batch_put_together_are_the_batch(images, share, size):
    order = torch.randperm(images, generator=torch.Generator().manual_seed(images)).tolist()
    shares = [TrainShare(order, share * size, stand_in(rank, size)) for rank in range(size)]
    drawn = [list(each) for each in shares]
    batches = images // (share * size)
    together = [row for batch in range(batches) for own in drawn for row in own[batch * share : (batch + 1) * share]]
    assert together == order[: batches * share * size]
    assert {len(own) for own in drawn} == {len(each) for each in shares} == {batches * share}


@given(count=st.integers(0, 40), batch_size=st.integers(1, 9), size=st.integers(1, 5))
def test_test_batches_are_those_of_one_process_and_hold_every_image_once(count, batch_size, size):
    shares = [EveryNthBatch(count, batch_size, stand_in(rank, size)) for rank in range(size)]
    dealt = [list(each) for each in shares]
    alone = list(torch.utils.data.BatchSampler(range(count), batch_size, drop_last=False))
    assert sorted(batch for own in dealt for batch in own) == alone
    assert [len(own) for own in dealt] == [len(each) for each in shares]
    assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


@pytest.mark.parametrize(
    "batch_size, size, num_instances, nearest",
    [
        (30, 4, 1, "28 and 32"),
        (64, 5, 4, "60 and 80"),
        (4, 4, 1, "8 and 12"),
        (8, 4, 4, "16 and 32"),
        (2, 2, 1, "4 and 6"),
        (66, 2, 4, "64 and 72"),
    ],
)
def test_a_batch_that_cannot_be_shared_is_refused_with_the_nearest_sizes(batch_size, size, num_instances, nearest):
    said = f"train.batch_size {batch_size} .* {size} processes .* are {nearest}"
    with pytest.raises(DPMError, match=said) as caught:
        share_of_batch(batch_size, stand_in(0, size), num_instances)
    assert ("sampler.num_instances 4" in str(caught.value)) == (num_instances == 4)
    for found in nearest.split(" and "):
        assert share_of_batch(int(found), stand_in(0, size), num_instances) * size == int(found)


# ---- training batches ----


def shared(processes, root, **options):
    sizes = {"batch_size_train": 8, "batch_size_test": 3, "train_sampler": "RandomIdentitySampler", "num_instances": 2}
    return manager(root, processes=processes, **{**sizes, **options})


def two_epochs(processes, root, options):
    utils.set_random_seed(processes.seed(3))
    loader = shared(processes, root, **options).train_loader
    return [[(data["impath"], data["pid"].tolist(), data["img"]) for data in loader] for _ in range(2)], len(loader)


@pytest.mark.parametrize("sampler", ["RandomIdentitySampler", "RandomSampler"])
def test_the_global_batches_are_what_one_process_draws_and_identities_stay_whole(sampler, tmp_path):
    write_occluded_duke(tmp_path, pids=range(1, 8), frames=2)
    options = {"train_sampler": sampler}
    expected, length = two_epochs(ALONE, tmp_path, options)
    assert expected[0] and [row[0] for row in expected[0]] != [row[0] for row in expected[1]]
    (zero, zeros), (one, ones) = results_of(in_processes(tmp_path, two_epochs, tmp_path, options))
    assert zeros == ones == length
    for whole, left, right in zip(expected, zero, one):
        assert [a[0] + b[0] for a, b in zip(left, right)] == [each[0] for each in whole]
        if sampler == "RandomIdentitySampler":
            for _, pids, _ in left + right:
                assert pids[0::2] == pids[1::2]


def test_augmentation_differs_between_processes_and_repeats_itself(tmp_path):
    write_occluded_duke(tmp_path, pids=(5, 5, 6, 7, 8), frames=2)
    options = {"transforms": ["erase_pixel"], "workers": 1}
    first, again = (results_of(in_processes(tmp_path, two_epochs, tmp_path, options)) for _ in range(2))
    noise = []
    for (epochs, _), (repeated, _) in zip(first, again):
        for (_, _, images), (_, _, same) in zip(epochs[0] + epochs[1], repeated[0] + repeated[1]):
            assert torch.equal(images, same)
        noise.append({round(value, 5) for value in torch.cat([each[2] for each in epochs[0]]).flatten().tolist()})
    erased = [len(values) for values in noise]
    assert min(erased) > 50  # the drawings have few colours, noise has many
    assert len(noise[0] & noise[1]) < 0.5 * min(erased)


def other_images_on_rank_1(processes, roots):
    check_same_data(shared(processes, roots[processes.rank]), processes)


def test_processes_that_list_other_images_are_refused(tmp_path):
    roots = [tmp_path / "zero", tmp_path / "one"]
    for root, pids in zip(roots, ((1, 2, 3, 4), (1, 2, 3, 5))):
        write_occluded_duke(root, pids=pids, frames=4)
    finished = in_processes(tmp_path, other_images_on_rank_1, roots)
    (line,) = [line for each in finished for line in each.stderr.splitlines() if line.startswith("error")]
    assert [each.code for each in finished] == [2, 2] and "process 1 lists other images" in line


# ---- evaluation ----


def gather_drawn(processes, count, batch_size, masked):
    generator = torch.Generator().manual_seed(1)
    named = {name: torch.randn(count, 3, generator=generator) for name in ("embedding", "cls", "mask")}
    if not masked:
        del named["mask"]
    whole = Features(pids=range(count), camids=[7] * count, paths=[f"{n}.jpg" for n in range(count)], **named)
    batches = EveryNthBatch(count, batch_size, processes)
    own = batches.positions(processes.rank)
    features = None
    if own:
        features = Features(
            pids=whole.pids[own],
            camids=whole.camids[own],
            paths=[whole.paths[n] for n in own],
            **{name: rows[own] for name, rows in whole.tensors().items()},
        )
    return whole, gather_features(features, batches, processes)


@pytest.mark.parametrize("count, batch_size, masked", [(7, 2, True), (5, 1, False), (3, 100, True)])
def test_gathered_features_are_those_of_the_whole_set_in_its_order(count, batch_size, masked, tmp_path):
    gathered = results_of(in_processes(tmp_path, gather_drawn, count, batch_size, masked, size=3))
    whole, found = gathered[0]
    assert list(found.paths) == whole.paths and found.pids.tolist() == whole.pids.tolist()
    assert found.camids.tolist() == whole.camids.tolist() and found.tensors().keys() == whole.tensors().keys()
    for name, rows in whole.tensors().items():
        assert torch.equal(found.tensors()[name], rows)
    assert [rest for _, rest in gathered[1:]] == [None, None]


def evaluate_untrained(processes, folder, root, batch_size):
    finished_run(folder, root, processes, test__evaluate=True, test__batch_size=batch_size, synthetic__test_ids=7)


@pytest.mark.parametrize("batch_size", [3, 100])  # 7 queries: shares of 4 and 3 images, and of 7 and none
def test_a_shared_evaluation_finds_exactly_what_one_process_finds(batch_size, tmp_path):
    evaluate_untrained(ALONE, tmp_path / "alone", tmp_path, batch_size)
    results_of(in_processes(tmp_path, evaluate_untrained, tmp_path / "two", tmp_path, batch_size))
    alone, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("alone", "two"))
    assert (alone["run"]["processes"], two["run"]["processes"]) == (1, 2)
    expected, found = (each["datasets"]["synthetic_occluded"] for each in (alone, two))
    assert found["rows"] == expected["rows"] and found["counts"] == expected["counts"]
    assert found["counts"]["query"] == 7


def test_stock_models_and_losses_are_refused(tmp_path):
    for change in ({"model.name": "osnet_x0_25", "loss.name": "softmax"}, {"loss.name": "triplet"}):
        config = load_config(overrides={**SETTINGS, **change})
        build.check_names(config)
        with pytest.raises(DPMError, match="several processes train the plugin's models with loss.name dpm only"):
            build.check_names(config, stand_in(0, 2))
