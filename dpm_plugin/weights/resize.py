"""Patch and position embeddings resized to a model's grid, by timm's functions."""

from collections.abc import Iterable, Mapping

from timm.layers import resample_abs_pos_embed, resample_patch_embed
from timm.models import VisionTransformer
from torch import Tensor

LARGEST_PATCH = 64  # pixels; resizing needs a matrix of the fourth power of this


def fit_embeddings(
    state: Mapping[str, Tensor], transformer: VisionTransformer, square: bool, prefix: str = ""
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Resize the patch and the position embedding of a state dict to ``transformer``'s; bilinearly, as released.

    Args:
        square: whether to take the file's grid as square where it can be, as in ImageNet models.
        prefix: before timm's names in ``state``. Default: none.

    Returns:
        (new state dict, {name: "16x8 to 22x11 patches"} of what was resized); what cannot be made fit stays as it is.
    """
    state, resized = dict(state), {}
    name = f"{prefix}patch_embed.proj.weight"
    patch, own = state.get(name), transformer.patch_embed.proj.weight  # (C, 3, h, w)
    if patch is not None and _is_resizable(patch, own):
        resized[name] = f"{_by(patch.shape[2:])} to {_by(own.shape[2:])} pixels"
        state[name] = resample_patch_embed(patch, list(own.shape[2:]))
    name = f"{prefix}pos_embed"
    position, own = state.get(name), transformer.pos_embed  # (1, tokens, C)
    if position is None or own is None or position.dim() != 3 or position.shape[::2] != own.shape[::2]:
        return state, resized
    tokens = 0 if transformer.no_embed_class else transformer.num_prefix_tokens
    grid = tuple(transformer.patch_embed.grid_size)
    old = guess_grid(position.shape[1] - tokens, grid, square)
    if old not in (grid, None):
        resized[name] = f"{_by(old)} to {_by(grid)} patches"
        state[name] = resample_abs_pos_embed(
            position, list(grid), list(old), num_prefix_tokens=tokens, interpolation="bilinear", antialias=False
        )
    return state, resized


def _is_resizable(patch: Tensor, own: Tensor) -> bool:
    """Whether a patch embedding differs from the model's in its height and width alone."""
    if patch.dim() != 4 or patch.shape[:2] != own.shape[:2] or patch.shape == own.shape:
        return False
    return all(1 <= side <= LARGEST_PATCH for side in patch.shape[2:])


def guess_grid(patches: int, grid: tuple[int, int], square: bool) -> tuple[int, int] | None:
    """The (h, w) that a position embedding of so many patches was made for; a file does not say.

    With ``square`` a square where there is one; else the split with nearly the shape of ``grid``, the model's (h, w),
    else a square, else the split nearest to ``grid`` in shape (of two, the taller); None where that is more than four
    times as long or as wide.
    """

    def mismatch(split: tuple[int, int]) -> float:
        ratio = split[0] / split[1] / (grid[0] / grid[1])
        return round(max(ratio, 1 / ratio), 6)

    splits = sorted(((h, patches // h) for h in range(patches, 0, -1) if patches % h == 0), key=mismatch)
    near, far = ([split for split in splits if mismatch(split) <= limit] for limit in (1.25, 4))
    squares = [split for split in splits if split[0] == split[1]]
    return next(iter([*(squares if square else []), *near, *squares, *far]), None)


def _by(size: Iterable[int]) -> str:
    return "x".join(map(str, size))
