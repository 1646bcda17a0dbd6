"""Patch and position embeddings resized to a model's grid, by timm's functions."""

import math

from timm.layers import resample_abs_pos_embed, resample_patch_embed

LARGEST_PATCH = 64  # pixels; resizing needs a matrix of the fourth power of this


def fit_embeddings(state, transformer, square):
    """Resize the patch and the position embedding of a plain timm state dict to ``transformer``'s.

    The position embedding is resized bilinearly, as in the released implementation.

    Args:
        square: whether to take the file's grid as square where it can be, as in ImageNet models.

    Returns:
        (new state dict, {name: "16x8 to 22x11"} of what was resized); an embedding that no resizing makes fit
        stays as it is.
    """
    state, resized = dict(state), {}
    patch, position = state.get("patch_embed.proj.weight"), state.get("pos_embed")
    size = tuple(transformer.patch_embed.patch_size)
    if patch is not None and _is_resizable(patch, transformer.patch_embed.proj.weight):
        resized["patch_embed.proj.weight"] = f"{_by(patch.shape[-2:])} to {_by(size)} pixels"
        state["patch_embed.proj.weight"] = resample_patch_embed(patch, size)
    own = transformer.pos_embed
    if position is None or own is None or position.dim() != 3 or position.shape[::2] != own.shape[::2]:
        return state, resized
    prefix = 0 if transformer.no_embed_class else transformer.num_prefix_tokens
    grid = tuple(transformer.patch_embed.grid_size)
    old = guess_grid(position.shape[1] - prefix, grid, square)
    if old not in (grid, None):
        resized["pos_embed"] = f"{_by(old)} to {_by(grid)} patches"
        state["pos_embed"] = resample_abs_pos_embed(
            position,
            new_size=list(grid),
            old_size=list(old),
            num_prefix_tokens=prefix,
            interpolation="bilinear",
            antialias=False,
        )
    return state, resized


def _is_resizable(patch, own):
    """Whether a patch embedding differs from the model's in its height and width alone."""
    if patch.dim() != 4 or patch.shape[:2] != own.shape[:2] or patch.shape == own.shape:
        return False
    return all(1 <= side <= LARGEST_PATCH for side in patch.shape[2:])


def guess_grid(patches, grid, square):
    """The (h, w) a position embedding was made for; a file does not say.

    Args:
        patches: how many it has.
        grid: (h, w) of the model.
        square: whether a square goes before everything.

    Returns:
        The split of ``patches`` with nearly the shape of ``grid``, else a square, else the split nearest to
        ``grid`` in shape (of two, the taller); None where that is more than four times as long or as wide.
    """
    side = math.isqrt(max(patches, 0))
    is_square = side > 0 and side * side == patches
    if square and is_square:
        return side, side

    def mismatch(split):
        ratio = split[0] / split[1] / (grid[0] / grid[1])
        return round(max(ratio, 1 / ratio), 6)

    splits = [(h, patches // h) for h in range(patches, 0, -1) if patches % h == 0]
    nearest = min(splits, key=mismatch, default=None)
    if nearest is None or mismatch(nearest) <= 1.25:
        return nearest
    if is_square:
        return side, side
    return nearest if mismatch(nearest) <= 4 else None


def _by(size):
    return "x".join(map(str, size))
