"""Extraction: the features of timm's own forward pass, in order, and loader processes that can be kept."""

import multiprocessing
import warnings

import pytest
import torch

from dpm_plugin.data import DPMImageDataManager
from dpm_plugin.evaluation import extract
from dpm_plugin.evaluation.extract import extract_features
from experiments.oracles import plain_extract
from helpers.data import write_occluded_duke
from helpers.model import batch, tiny_model

pytestmark = pytest.mark.torchreid

CPU = torch.device("cpu")


def masking_model():
    torch.manual_seed(0)
    model = tiny_model(num_cameras=0).eval()
    torch.nn.init.normal_(model.mask_generator.linear.weight, std=0.1)
    model.neck.running_mean.normal_()
    return model


def loader_of(batches, size=3):
    loader = []
    for number in range(batches):
        data = batch(size=size, seed=number)
        loader.append({**data, "impath": [f"{number}-{image}" for image in range(size)]})
    return loader


def test_features_are_those_of_timms_own_forward_in_the_loaders_order(monkeypatch):
    monkeypatch.setattr(extract, "TRANSFER_EVERY", 2)  # three transfers: of two, two and one batches
    model, loader = masking_model(), loader_of(5)
    found = extract_features(model, loader, device=CPU)
    expected = [torch.cat(rows) for rows in zip(*(plain_extract.features(model, data["img"]) for data in loader))]
    for got, want in zip((found.cls, found.embedding, found.mask), expected):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    assert list(found.paths) == [path for data in loader for path in data["impath"]]
    assert found.pids.tolist() == torch.cat([data["pid"] for data in loader]).tolist()


def test_extraction_keeps_no_graph_and_gives_ordinary_tensors():
    found = extract_features(masking_model(), loader_of(1), device=CPU)
    for rows in found.tensors().values():
        assert not rows.requires_grad and not rows.is_inference()
        rows.add_(1)  # an inference tensor would refuse


def test_half_precision_features_are_float32_and_near_the_float32_ones():
    model, loader = masking_model(), loader_of(2)
    exact, half = (extract_features(model, loader, device=CPU, amp=amp) for amp in ("off", "bfloat16"))
    for a, b in zip(exact.tensors().values(), half.tensors().values()):
        assert b.dtype is torch.float32 and not torch.equal(a, b)
        assert torch.cosine_similarity(a, b).min() > 0.99


def test_head_logits_are_left_out_on_demand_and_change_nothing_else():
    model, images = masking_model(), batch()["img"]
    with torch.inference_mode():
        full, short = model.embed(images, need_heads=True), model.embed(images)
    assert short.head_logits is None and full.head_logits.shape == (8, 3, 32)
    assert all(torch.equal(a, b) for a, b in zip(full[:3], short[:3]))


def manager(root, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DPMImageDataManager(
            str(root),
            "occluded_duke",
            height=16,
            width=8,
            use_gpu=False,
            batch_size_train=4,
            batch_size_test=2,
            transforms=[],
            train_sampler="RandomIdentitySampler",
            num_instances=2,
            **options,
        )


@pytest.mark.parametrize("kept", [False, True])
def test_persistent_workers_live_on_after_an_epoch_and_others_do_not(tmp_path, kept):
    write_occluded_duke(tmp_path)
    data = manager(tmp_path, workers=1, persistent_workers=kept)
    gallery = data.test_loader["occluded_duke"]["gallery"]
    before = set(multiprocessing.active_children())
    epochs, workers = [], []
    for _ in range(2):
        epochs.append([(batch["impath"], batch["img"].sum()) for batch in gallery])
        workers.append({child.pid for child in set(multiprocessing.active_children()) - before})
    assert epochs[0] == epochs[1]
    assert (len(workers[0]) == 1 and workers[0] == workers[1]) if kept else workers == [set(), set()]


def test_kept_loaders_are_torchreids_in_everything_else(tmp_path):
    write_occluded_duke(tmp_path)
    ours, theirs = (manager(tmp_path, workers=1, persistent_workers=kept) for kept in (True, False))
    pairs = [(ours.train_loader, theirs.train_loader)]
    for side in ("query", "gallery"):
        pairs.append(tuple(data.test_loader["occluded_duke"][side] for data in (ours, theirs)))
    for kept, anew in pairs:
        assert kept.persistent_workers and not anew.persistent_workers
        assert type(kept.sampler) is type(anew.sampler) and len(kept) == len(anew)
        for name in ("batch_size", "num_workers", "pin_memory", "drop_last", "worker_init_fn"):
            assert getattr(kept, name) == getattr(anew, name)
