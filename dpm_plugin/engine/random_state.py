"""The state of every random generator that a run draws from: torch's on CPU and GPU, numpy's and Python's."""

import random
from contextlib import contextmanager

import numpy as np
import torch

from dpm_plugin.utils.errors import DPMError


def random_state():
    """The generators of this process as numpy arrays and plain numbers, fit for a queue between processes."""
    version, words, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "torch": torch.get_rng_state().numpy(),
        "python": {"version": version, "words": np.array(words, dtype=np.int64), "gauss": gauss},
        "numpy": {
            "keys": keys.astype(np.int64),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "gauss": float(cached),
        },
    }
    if torch.cuda.is_initialized():  # never in a loader's process
        state["cuda"] = torch.cuda.get_rng_state().numpy()
    return state


def set_random_state(state):
    """Put back what :func:`random_state` returned, or :func:`as_tensors` made of it.

    Raises:
        DPMError: it is no such state.
    """
    try:
        python, numpy = state["python"], state["numpy"]
        words = tuple(np.asarray(python["words"]).tolist())
        random.setstate((python["version"], words, python["gauss"]))
        keys = np.asarray(numpy["keys"]).astype(np.uint32)
        np.random.set_state(("MT19937", keys, numpy["position"], numpy["has_gauss"], numpy["gauss"]))
        torch.set_rng_state(torch.as_tensor(state["torch"]))
        if "cuda" in state and torch.cuda.is_available():
            torch.cuda.set_rng_state(torch.as_tensor(state["cuda"]))
    except (KeyError, TypeError, ValueError, IndexError, RuntimeError, OverflowError) as error:
        raise DPMError(
            f"the checkpoint's random states cannot be put back ({error}); it is damaged, or of other "
            "versions of Python, numpy or torch"
        ) from error


def as_tensors(value):
    """``value`` with every numpy array in its dicts and lists as a tensor: what ``weights_only=True`` reads."""
    if isinstance(value, dict):
        return {key: as_tensors(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_tensors(item) for item in value]
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


@contextmanager
def drawing_from(*numbers):
    """Within the block every generator but the GPU's is seeded by these whole numbers; then all go on as before."""
    before = random_state()
    words = [int(word) for word in np.random.SeedSequence(numbers).generate_state(3)]
    random.seed(words[0])
    np.random.seed(words[1])
    torch.default_generator.manual_seed(words[2])  # torch.manual_seed would seed the GPU too
    try:
        yield
    finally:
        set_random_state(before)
