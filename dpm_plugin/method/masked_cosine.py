"""The masked cosine of one block of queries and gallery rows, as matrix products.

For unit rows q, g and a mask m per query,

    cos(q, m * g) = (q * m) gᵀ / sqrt(m² (g²)ᵀ)

What belongs to one side alone, (q * m), m² and g², is made once a side and serves every block.
"""

from functools import cached_property

import torch

EPS = 1e-12  # a (masked) row shorter than this is taken as zero: its similarity fades to 0, its distance to 1


class Side:
    """Queries or gallery rows with their masks, ready for any number of blocks.

    Args:
        unit: (n, D) float32 rows of length 1 or 0, as of :func:`unit_rows`.
        mask: (n, D) float masks of these rows, or None for all ones. Only a mask's direction counts.
    """

    def __init__(self, unit, mask=None):
        self.unit = unit
        self.mask = None if mask is None else _largest_is_one(mask)  # (n, D)

    def __len__(self):
        return len(self.unit)

    @cached_property
    def seen(self):
        """What this side multiplies the other's rows by, (n, D): q * m."""
        return self.unit if self.mask is None else self.unit * self.mask

    @cached_property
    def squares(self):
        """(n, D) of g²."""
        return self.unit.square()

    @cached_property
    def mask_squares(self):
        """(n, D) of m²."""
        return self.mask.square()


def cosine_block(query, gallery, rows=slice(None)):
    """cos(m_g * q, m_q * g) of the queries ``rows`` and all gallery rows of two :class:`Side`. Returns (q, g)."""
    cosine = query.seen[rows] @ gallery.seen.T
    if query.mask is not None:  # lengths of m_q * g
        cosine.div_((query.mask_squares[rows] @ gallery.squares.T).sqrt_().clamp_(min=EPS))
    if gallery.mask is not None:  # lengths of m_g * q
        cosine.div_((query.squares[rows] @ gallery.mask_squares.T).sqrt_().clamp_(min=EPS))
    return cosine.clamp_(-1, 1)


def distance_block(query, gallery, rows=slice(None), *, out=None):
    """1 - :func:`cosine_block`, (q, g) in [0, 2]."""
    cosine = cosine_block(query, gallery, rows)
    return torch.sub(1, cosine, out=cosine if out is None else out)


def unit_rows(rows):
    """Rows (n, D) of any float type, of length 1 in float32; a zero row stays zero."""
    rows = _largest_is_one(rows)
    return rows.div_(torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_(min=EPS))


def _largest_is_one(rows):
    """Scale each row so that its largest magnitude is 1, for squares that neither overflow nor vanish; float32."""
    rows = rows if rows.dtype == torch.float64 else rows.float()  # what is finite in float64 need not be in float32
    largest = rows.abs().amax(dim=1, keepdim=True)
    return (rows / torch.where(largest == 0, torch.ones_like(largest), largest)).float()
