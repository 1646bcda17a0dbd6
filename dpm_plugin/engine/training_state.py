"""What training goes on from, checked where it is taken up: optimizer, schedule, scaler, place in the epoch."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import torch

from dpm_plugin.engine.resumable_loader import random_state, set_random_state
from dpm_plugin.utils.text import short
from dpm_plugin.weights.files import plain_tensors

LARGEST = 2**31  # of a whole number in a state


def take_up(part: Any, state: Any, path: Any) -> None:
    """``part.load_state_dict(state)`` for a state, read from ``path``, with which training can go on.

    Raises:
        DPMError, KeyError, ValueError, and whatever ``part`` raises: it cannot; ``part`` is then half loaded.
    """
    if not isinstance(state, dict):
        raise ValueError(f"it is {short(state)}")
    if isinstance(part, torch.optim.Optimizer):
        before = [dict(group) for group in part.param_groups]
        part.load_state_dict(state)
        _check_optimizer(part, before, path)
        return
    own = part.state_dict()
    lost = [name for name in own if name not in state and not name.startswith("_")]  # torch's versions differ in those
    if lost:
        raise KeyError(f"no {', '.join(sorted(lost))} in it")
    state = {name: state[name] for name in own if name in state}  # torch would set any attribute
    for name, value in state.items():
        if not _is_like(value, own[name], positive=not name.startswith("_")):
            raise ValueError(f"{name} is {short(value)}")
    part.load_state_dict(state)


def _is_like(found: Any, own: Any, positive: bool) -> bool:
    """Whether ``found`` is of the kind of ``own``: numbers finite and, where ``positive``, neither below 0 nor 0 for
    an ``own`` above; lists of the same length; dicts of counts.
    """
    if own is None or isinstance(own, (bool, str)):
        return type(found) is type(own)
    if isinstance(own, dict):
        return isinstance(found, dict) and all(_is_like(number, 0, True) for number in found.values())
    if isinstance(own, (list, tuple)):
        right = isinstance(found, (list, tuple)) and len(found) == len(own)
        return right and all(_is_like(*pair, positive) for pair in zip(found, own))
    if type(found) not in (int, float) or isinstance(found, float) > isinstance(own, float):
        return False
    if not (math.isfinite(found) if isinstance(found, float) else abs(found) < LARGEST):
        return False
    return not positive or found > 0 or (found == 0 and not own > 0)


def _check_optimizer(optimizer: torch.optim.Optimizer, before: list[dict[str, Any]], path: Any) -> None:
    """Raise an error for a loaded state that fails at the first step, by a step on one number for each parameter.

    Args:
        before: its groups of parameters as they were.
    """
    trial = object.__new__(type(optimizer))  # a copy of it would lack what its class keeps elsewhere
    trial.__dict__.update(optimizer.__dict__, state=defaultdict(dict), param_groups=[])
    for group, own in zip(optimizer.param_groups, before):
        if lost := own.keys() - group.keys():
            raise KeyError(f"no {', '.join(sorted(lost))} in it; was it another train.optim?")
        for name, value in own.items():
            if type(value) in (int, float) and not _is_like(group[name], 0.0, positive=True):
                raise ValueError(f"{name} is {short(group[name])}")
        small = []
        for parameter in group["params"]:
            one = torch.ones(1, device=parameter.device, dtype=parameter.dtype)
            one.grad = torch.ones_like(one)
            small.append(one)
            if parameter in optimizer.state:
                trial.state[one] = _smaller(optimizer.state[parameter], parameter, path)
        trial.param_groups.append({**group, "params": small})
    type(optimizer).step(trial)  # a schedule wraps that of the object
    for group in trial.param_groups:
        if not all(torch.isfinite(one).all() for one in group["params"]):
            raise ValueError("a step with it is not finite")


def _smaller(state: Mapping[str, Any], parameter: torch.Tensor, path: Any) -> dict[str, Any]:
    """The state of ``parameter`` with ones, of shape (1,), for the tensors of its shape."""
    small = dict(state)
    for key, value in state.items():
        if isinstance(value, str):
            raise ValueError(f"{key} of a parameter of shape {tuple(parameter.shape)} has no tensor")
        if isinstance(value, torch.Tensor):
            plain_tensors({key: value}, path)
            if value.dim() and value.shape != parameter.shape:
                shapes = f"shape {tuple(parameter.shape)} has shape {tuple(value.shape)}"
                raise ValueError(f"{key} of a parameter of {shapes}")
            small[key] = value.clone() if not value.dim() else torch.ones(1, device=value.device, dtype=value.dtype)
    return small


def own_place(states: Any, rank: int) -> dict[str, Any]:
    """Where process ``rank`` goes on, by the states of all processes' loaders in a checkpoint.

    Raises:
        DPMError, LookupError, TypeError, ValueError: it is damaged.
    """
    own = states[rank] if rank < len(states) else {**states[0], "start": None, "now": None, "workers": {}}
    counts = {name: own[name] for name in ("iteration", "batches", "num_workers")}
    if not _is_like(counts, {}, True) or 0 != own["iteration"] >= own["batches"]:
        raise ValueError(", ".join(f"{name} {short(number)}" for name, number in counts.items()))
    if not _is_like(list(own["workers"]), [0] * len(own["workers"]), True) or not isinstance(own["continued"], bool):
        raise ValueError("the loader's processes are not known")
    before = random_state()
    try:
        for state in (own["start"], own["now"], *own["workers"].values()):
            if state is not None:
                set_random_state(state)
    finally:
        set_random_state(before)
    return own
