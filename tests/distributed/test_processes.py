"""Several processes: what they tell each other, training and BatchNorm equal to one, and how they end together."""

import copy
import os
import signal
import socket
import time

import pytest
import torch
from torch import nn

from dpm_plugin import DPMLoss
from dpm_plugin.commands.train import main
from dpm_plugin.distributed.processes import ALONE, Processes, launched
from dpm_plugin.distributed.sync_bn import SyncBatchNorm, synchronise_batch_norm
from dpm_plugin.method.recipe import build_optimizer
from dpm_plugin.utils.command import exit_code
from dpm_plugin.utils.errors import DPMError
from helpers.model import batch, engine_for, tiny_model
from helpers.processes import in_processes, results_of

pytestmark = [pytest.mark.slow, pytest.mark.torchreid]


def share_of(data, processes):
    """This process's rows of every tensor in a batch."""
    return {key: values.chunk(processes.size)[processes.rank] for key, values in data.items()}


# ---- what they tell each other ----


def talk(processes):
    rank = processes.rank
    own = torch.full((2, 3), float(rank + 1), requires_grad=True)
    rows = processes.all_gather(own)  # (4, 3)
    weights = torch.arange(12.0).view(4, 3) * (rank + 1)
    (gradient,) = torch.autograd.grad((rows * weights).sum(), own)
    total = processes.sum(own)
    (twice,) = torch.autograd.grad((total * (rank + 1)).sum(), own)
    parameters = [nn.Parameter(torch.zeros(size)) for size in (3, 7_000_000, 2)]  # the second fills a bucket
    for parameter in parameters[:2]:
        parameter.grad = torch.full_like(parameter, float(rank))
    processes.average_gradients(parameters)
    copied = [torch.full((2,), rank), torch.full((3,), float(rank))]
    processes.broadcast_tensors(copied)
    with processes.main_first():
        seen = time.monotonic()
    return {
        "broadcast": processes.broadcast(lambda: f"of {rank}"),
        "gather": processes.gather(rank),
        "rows": rows.detach(),
        "rows' gradient": gradient,
        "sum": total.detach(),
        "sum's gradient": twice,
        "mean": processes.mean(torch.tensor([1.0 + 2 * rank])),
        "seen": seen,
        "gradients": [None if p.grad is None else p.grad.unique().tolist() for p in parameters],
        "copied": copied,
        "seed": processes.seed(7),
    }


def test_what_each_process_gives_reaches_the_others(tmp_path):
    zero, one = results_of(in_processes(tmp_path, talk))
    assert zero["broadcast"] == one["broadcast"] == "of 0"
    assert zero["gather"] == [0, 1] and one["gather"] is None
    for each in (zero, one):
        assert each["rows"].tolist() == [[1.0] * 3] * 2 + [[2.0] * 3] * 2
        assert each["sum"].unique().tolist() == [3.0] and each["mean"].item() == 2.0
        assert each["sum's gradient"].unique().tolist() == [3.0]  # both processes' losses depend on it
        assert each["gradients"] == [[0.5], [0.5], None]
        assert [tensor.unique().item() for tensor in each["copied"]] == [0, 0.0]
    both = torch.arange(12.0).view(4, 3) * 3  # weights of rank 0 and rank 1 together
    assert torch.equal(torch.cat([zero["rows' gradient"], one["rows' gradient"]]), both)
    assert zero["seen"] < one["seen"]
    assert zero["seed"] == 7 != one["seed"]


def set_torchruns_variables(monkeypatch, size):
    for name, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": size}.items():
        monkeypatch.setenv(name, str(value))


def test_without_torchrun_there_is_one_process_and_nothing_is_communicated(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with launched() as processes, processes.joined(use_gpu=True):
        assert processes is ALONE and not torch.distributed.is_initialized()
        tensor = torch.ones(2)
        assert processes.sum(tensor) is processes.mean(tensor) is processes.all_gather(tensor) is tensor
        assert processes.seed(3) == 3 and processes.broadcast(lambda: 5) == 5 and processes.gather(5) == [5]
    set_torchruns_variables(monkeypatch, size=1)
    with launched() as processes:
        assert processes is ALONE


def test_torchrun_variables_that_lead_nowhere_are_one_line(monkeypatch):
    set_torchruns_variables(monkeypatch, size=2)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(DPMError, match="cannot meet.*MASTER_ADDR"), launched():
        pass


def test_more_processes_than_gpus_is_an_error_that_says_so(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    processes = Processes(rank=2, size=4, local_rank=2)
    said = "process 2 is number 3 on this machine, which has 2 GPUs"
    with pytest.raises(DPMError, match=said), processes.joined(use_gpu=True):
        pass


# ---- BatchNorm ----


def normalise(processes, cases):
    found = []
    for images, weights in cases:
        torch.manual_seed(0)
        model = nn.Sequential(nn.BatchNorm2d(3) if images.dim() == 4 else nn.BatchNorm1d(3))
        model[0].weight.data = torch.tensor([1.0, 2.0, 0.5])
        parameters = list(model.parameters())
        synchronise_batch_norm(model, processes)
        assert isinstance(model[0], SyncBatchNorm) == (processes.size > 1) and list(model.parameters()) == parameters
        own, weights = (tensor.chunk(processes.size)[processes.rank] for tensor in (images, weights))
        own = own.clone().requires_grad_()
        out = model(own)
        # a mean over rows: the mean over processes of these losses is the whole batch's
        ((out * weights).sum() / len(own)).backward()
        processes.average_gradients(parameters)
        model.eval()
        found.append({"out": out.detach(), "gradient": own.grad / processes.size, "eval": model(own).detach()})
        found[-1].update(state=model.state_dict(), parameters=[p.grad for p in parameters])
    return found


def test_synchronised_batchnorm_equals_batchnorm_of_the_whole_batch(tmp_path):
    torch.manual_seed(5)
    cases = [(3 + 2 * torch.randn(shape), torch.randn(shape)) for shape in ((8, 3), (4, 3, 5, 2))]
    shares = results_of(in_processes(tmp_path, normalise, cases))
    for expected, zero, one in zip(normalise(ALONE, cases), *shares):
        for name in ("out", "gradient", "eval"):
            torch.testing.assert_close(torch.cat([zero[name], one[name]]), expected[name], rtol=1e-5, atol=1e-6)
        for each in (zero, one):
            torch.testing.assert_close(each["state"], expected["state"], rtol=1e-6, atol=1e-6)
            torch.testing.assert_close(each["parameters"], expected["parameters"], rtol=1e-5, atol=1e-6)


# ---- training ----

RELEASED = dict(head_reduction="released", head_input="logits", triplet_margin=0.3, label_smooth=0.1)
CASES = {
    "the paper's losses": dict(),
    "the released losses": dict(criterion=RELEASED),
    "scaled half precision": dict(amp="float16", tolerance=5e-3),
    "baseline": dict(model=dict(mask_blocks=())),
    "no neck": dict(model=dict(neck=False)),
}
ITERATIONS = 3


def train(processes, case, sync_bn=True):
    """The model's state and the printed numbers after a few iterations on this process's shares."""
    torch.manual_seed(processes.seed(0))  # other initial weights on other ranks: rank 0's must count
    model = tiny_model(**case.get("model", {}))
    if model.has_mask:
        nn.init.normal_(model.mask_generator.linear.weight, std=0.1)
    if sync_bn:
        synchronise_batch_norm(model, processes)
    criterion = DPMLoss(**case.get("criterion", {}), num_processes=processes.size, gather=processes.all_gather)
    parts = dict(criterion=criterion, processes=processes, optimizer=build_optimizer(model))
    engine = engine_for(model, **parts, amp=case.get("amp", "off"))
    engine.scaler = torch.amp.GradScaler("cpu", init_scale=256, enabled=engine.scaler.is_enabled())
    numbers = [engine.forward_backward(share_of(batch(seed=seed), processes)) for seed in range(ITERATIONS)]
    before = copy.deepcopy(model.state_dict())
    engine.after_epoch()
    return {"state": model.state_dict(), "numbers": numbers, "before the epoch's end": before}


@pytest.mark.parametrize("name", CASES)
def test_training_in_two_processes_equals_one_with_the_same_global_batch(name, tmp_path):
    case = CASES[name]
    expected = train(ALONE, case)
    tolerance = case.get("tolerance", 1e-5)
    for found in results_of(in_processes(tmp_path, train, case)):
        assert found["state"].keys() == expected["state"].keys()
        for key, tensor in expected["state"].items():
            assert (found["state"][key] - tensor).abs().max() < tolerance, key
        for ours, theirs in zip(found["numbers"], expected["numbers"]):
            assert ours == pytest.approx(theirs, rel=100 * tolerance, abs=100 * tolerance)


def test_without_synchronised_batchnorm_weights_stay_equal_and_rank_0_gives_the_statistics(tmp_path):
    zero, one = results_of(in_processes(tmp_path, train, {}, False))
    names = {name for name in zero["state"] if "running_" in name}
    before = [each["before the epoch's end"] for each in (zero, one)]
    for name, tensor in zero["state"].items():
        assert torch.equal(tensor, one["state"][name]) and torch.equal(tensor, before[0][name])
        assert torch.equal(before[0][name], before[1][name]) == (name not in names)
    assert not torch.equal(zero["state"]["classifier.weight"], train(ALONE, {})["state"]["classifier.weight"])


# ---- how they end ----


def lines_of(finished):
    return [line for each in finished for line in each.stderr.splitlines()]


def fail_on_rank_1(processes):
    if processes.rank == 1:
        raise DPMError("image 'a.jpg' cannot be read")
    processes.broadcast(lambda: "waits for nobody")
    processes.mean(torch.ones(1))


def test_an_error_on_one_process_ends_all_and_is_said_once(tmp_path):
    finished = in_processes(tmp_path, fail_on_rank_1)
    assert [each.code for each in finished] == [2, 2]
    assert lines_of(finished) == ["error: image 'a.jpg' cannot be read"]


def lose_rank_1(processes):
    data = share_of(batch(), processes)
    engine = engine_for(tiny_model(), processes=processes)
    engine.forward_backward(data)
    if processes.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    engine.forward_backward(data)


def test_a_killed_process_ends_the_other_with_one_line(tmp_path):
    finished = in_processes(tmp_path, lose_rank_1)
    assert [each.code for each in finished] == [2, -signal.SIGKILL]
    (line,) = lines_of(finished)
    assert line.startswith("error: process 0 of 2 lost the others") and "model.resume" in line


def wait_for_ever(processes):
    if processes.rank == 1:
        time.sleep(600)
    processes.mean(torch.ones(1))


def test_a_process_that_does_not_answer_is_given_up_after_the_timeout(tmp_path):
    finished = in_processes(tmp_path, wait_for_ever, timeout=0.05, patience=0)
    (line,) = lines_of(finished)
    assert finished[0].code == 2 and "dist.timeout, 0.05 minutes" in line


@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_never_comes_is_given_up_after_the_timeout(rank, monkeypatch, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=free.getsockname()[1])
    for name, value in dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, **place).items():
        monkeypatch.setenv(name, str(value))
    start = time.monotonic()
    assert main(["dist.timeout", "0.02"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ") and "dist.timeout, 0.02 minutes" in error and time.monotonic() - start < 60


def diverge_on_rank_1(processes):
    data = share_of(batch(), processes)
    if processes.rank == 1:
        data["img"][0] = float("nan")
    engine_for(tiny_model(), [data], processes=processes).forward_backward(data)


def test_a_non_finite_loss_on_one_process_stops_all(tmp_path):
    finished = in_processes(tmp_path, diverge_on_rank_1)
    assert [each.code for each in finished] == [2, 2]
    (line,) = lines_of(finished)
    assert "non-finite loss in epoch 1, iteration 1 of 1" in line


def test_an_error_of_one_process_is_reported_as_ever(monkeypatch, capsys):
    monkeypatch.delenv("RANK", raising=False)

    def work():
        with launched():
            raise DPMError("broken")

    assert exit_code(work) == 2 and capsys.readouterr().err == "error: broken\n"
