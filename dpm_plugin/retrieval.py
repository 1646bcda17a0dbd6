"""Distances between queries and a gallery under the query's mask, as matrix products.

For unit rows q, g and a mask m per query,

    cos(q, m * g) = (q * m) gᵀ / sqrt(m² (g²)ᵀ)

so every distance here is made of plain matrix products: no loop over queries, no (Q, G, D) tensor.
"""
import numpy as np
import torch

from dpm_plugin.errors import DPMError

__all__ = ["cosine_distance", "query_mask_distance", "mutual_mask_distance", "shuffled_masks"]

EPS = 1e-12  # a (masked) row shorter than this is taken as zero: its similarity fades to 0, its distance to 1
CHUNK_SIZE = 1024


def query_mask_distance(query, gallery, query_mask, *, chunk_size=CHUNK_SIZE):
    """1 - cos(q, m_q * g): the query's mask on every unit gallery row, renormalised; the query is unmasked.

    Args:
        query: (Q, D) float tensor of any float type; computed in float32, autocast or not.
        gallery: (G, D) float tensor on the same device.
        query_mask: (Q, D) masks of the queries, or None for the plain cosine distance. Only the direction of
            a mask counts: m and 2m give the same distance.
        chunk_size: rows of query and gallery in one block (default 1024). Beside the result, memory is
            bounded by about ``4 * chunk_size * (2 * chunk_size + 9 * D)`` bytes (37 MB at D = 768).

    Returns:
        (Q, G) float32 tensor in [0, 2] on the query's device, without gradient. A zero query, gallery row or
        mask has distance 1 (no similarity), never NaN; below a length of 1e-12 of the masked gallery row the
        similarity fades to that. NaN and infinity in the inputs come out as NaN, which
        :func:`dpm_plugin.evaluate_rank` refuses.

    Raises:
        DPMError: the shapes or devices do not fit; the message names them.
    """
    return _distance(query, gallery, query_mask, None, chunk_size)


def cosine_distance(query, gallery, *, chunk_size=CHUNK_SIZE):
    """(Q, G) of 1 - cos(q, g); arguments, result and errors as in :func:`query_mask_distance`."""
    return _distance(query, gallery, None, None, chunk_size)


def mutual_mask_distance(query, gallery, query_mask, gallery_mask, *, chunk_size=CHUNK_SIZE):
    """1 - cos(m_g * q, m_q * g): each side seen through the other's mask. Not the paper's retrieval.

    For analysis and for re-ranking. It is symmetric in its two sides, 0 between a row and itself, and is
    :func:`query_mask_distance` where the gallery's masks are all ones. Either mask may be None (all ones).
    Arguments, result and errors as there, with ``gallery_mask`` of shape (G, D).
    """
    return _distance(query, gallery, query_mask, gallery_mask, chunk_size)


def shuffled_masks(mask, seed=0):
    """Give every query another query's mask: the control for "does the mask see this image at all?".

    The permutation is one random cycle through all rows, so no row keeps its own mask. It is the same for one
    ``seed`` and number of rows everywhere, and leaves the global random states alone.

    Args:
        mask: (Q, D) tensor, Q >= 2.
        seed: any non-negative int, default 0.

    Returns:
        (Q, D) tensor, the rows of ``mask`` in another order.
    """
    if mask.dim() != 2 or len(mask) < 2:
        raise DPMError(f"shuffling masks needs a (Q, D) tensor with Q >= 2, got shape {tuple(mask.shape)}")
    cycle = np.random.default_rng(seed).permutation(len(mask))
    source = np.empty_like(cycle)
    source[cycle] = np.roll(cycle, 1)
    return mask[torch.from_numpy(source).to(mask.device)]


@torch.no_grad()
def _distance(query, gallery, query_mask, gallery_mask, chunk_size):
    _check(query, gallery, query_mask, gallery_mask, chunk_size)
    out = torch.empty(len(query), len(gallery), device=query.device)  # (Q, G)
    # Under autocast the products would silently run in half precision.
    with torch.autocast(query.device.type, enabled=False):
        for g in range(0, len(gallery), chunk_size):
            g_rows = slice(g, g + chunk_size)
            g_unit, g_mask = _unit(gallery[g_rows]), _scaled(gallery_mask, g_rows)
            for q in range(0, len(query), chunk_size):
                q_rows = slice(q, q + chunk_size)
                cosine = _cosine(_unit(query[q_rows]), g_unit, _scaled(query_mask, q_rows), g_mask)
                torch.sub(1, cosine.clamp_(-1, 1), out=out[q_rows, g_rows])
    return out


def _cosine(query, gallery, query_mask, gallery_mask):
    """cos(m_g * q, m_q * g) of unit rows (q, D), (g, D); a mask of None is all ones. Returns (q, g)."""
    left = query if query_mask is None else query * query_mask          # (q, D)
    right = gallery if gallery_mask is None else gallery * gallery_mask  # (g, D)
    cosine = left @ right.T
    if query_mask is not None:  # lengths of m_q * g
        cosine.div_((query_mask.square() @ gallery.square().T).sqrt_().clamp_(min=EPS))
    if gallery_mask is not None:  # lengths of m_g * q
        cosine.div_((query.square() @ gallery_mask.square().T).sqrt_().clamp_(min=EPS))
    return cosine


def _unit(rows):
    """Rows of length 1 in float32; a zero row stays zero."""
    rows = _largest_is_one(rows.float())
    return rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp(min=EPS)


def _scaled(mask, rows):
    return None if mask is None else _largest_is_one(mask[rows].float())


def _largest_is_one(rows):
    """Scale each row so that its largest magnitude is 1, for squares that neither overflow nor vanish."""
    largest = rows.abs().amax(dim=1, keepdim=True)
    return rows / torch.where(largest == 0, torch.ones_like(largest), largest)


def _check(query, gallery, query_mask, gallery_mask, chunk_size):
    named = {"query": query, "gallery": gallery, "query_mask": query_mask, "gallery_mask": gallery_mask}
    named = {name: value for name, value in named.items() if value is not None}
    for name, value in named.items():
        if not isinstance(value, torch.Tensor):
            raise DPMError(f"{name} must be a torch tensor, got {type(value).__name__}; use torch.from_numpy")
    shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in named.items())
    width = query.shape[-1] if query.dim() == 2 else 0
    fits = all(value.dim() == 2 and value.shape[1] == width for value in named.values())
    fits = fits and (query_mask is None or len(query_mask) == len(query))
    fits = fits and (gallery_mask is None or len(gallery_mask) == len(gallery))
    if not fits or width == 0:
        raise DPMError(f"shapes do not fit: {shapes}; expected (Q, D) and (G, D), masks of the same shapes")
    if len({value.device for value in named.values()}) > 1:
        devices = ", ".join(f"{name} {value.device}" for name, value in named.items())
        raise DPMError(f"query, gallery and masks must be on one device, got {devices}")
    if chunk_size < 1:
        raise DPMError(f"chunk_size must be at least 1, got {chunk_size}")
