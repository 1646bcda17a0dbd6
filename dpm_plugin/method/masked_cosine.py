"""The masked cosine of Eq. 4, as matrix products: between features and prototypes, or queries and gallery.

For unit rows x, w and a mask m of x's row,

    cos(x, m * w) = (x * m) wᵀ / sqrt(m² (w²)ᵀ)

so neither a loop over rows nor a (B, K, D) tensor of masked prototypes is needed. Training and retrieval differ in
their rows only: W's prototypes (B x K, with gradients) or a gallery's features (Q x G, block by block).
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from dpm_plugin.utils.errors import DPMError

MASK_VARIANTS = ("Pn", "Pn+Fn", "P", "P+F")  # the four rows of Table 5
_SHORT = 1e-24  # squared length of a masked row, below which its cosine fades to 0


@dataclass(eq=False)
class MaskedRows:
    """One side of the cosine; what belongs to it alone is computed once and serves every block of the other side.

    Args:
        unit: (n, D) float32 rows of length 1 or 0, see :func:`unit_rows`.
        mask: (n, D) float32 masks of these rows, or None for no mask. Default: None.
    """

    unit: Tensor
    mask: Tensor | None = None

    def __len__(self) -> int:
        return len(self.unit)

    @cached_property
    def seen(self) -> Tensor:
        """What the other side's rows are multiplied by, (n, D): x * m."""
        return self.unit if self.mask is None else self.unit * self.mask

    @cached_property
    def squares(self) -> Tensor:
        """w², (n, D)."""
        return self.unit.square()

    @cached_property
    def mask_squares(self) -> Tensor | None:
        """m², (n, D), or None without a mask."""
        return None if self.mask is None else self.mask.square()


def masked_rows(rows: Tensor, mask: Tensor | None = None, *, exact: bool = False) -> MaskedRows:
    """Rows and masks, (n, D) each, of any float type and magnitude; of a mask only the direction counts.

    Args:
        exact: see :func:`unit_rows`.
    """
    return MaskedRows(unit_rows(rows, exact=exact), None if mask is None else _near_one(mask, exact))


def unit_rows(rows: Tensor, *, exact: bool = False) -> Tensor:
    """Rows (n, D) of any float type, brought to length 1 in float32; a zero row stays zero.

    Args:
        exact: scale float32 rows by a power of two before they are squared, which changes no bit of the result,
            as training does. Default: False, by their largest magnitude, as retrieval does.
    """
    near = _near_one(rows, exact)
    return F.normalize(near, out=None if near.requires_grad else near)  # in place: a copy costs more than dividing


def cosine_block(left: MaskedRows, right: MaskedRows, rows: slice | Tensor = slice(None)) -> Tensor:
    """cos(m_w * x, m_x * w), Eq. 4, between the rows x of ``left`` and all rows w of ``right``.

    Call it with autocast off, which would compute the products in half precision.

    Args:
        rows: of ``left``, b of them. Default: all.

    Returns:
        (b, n) float32 in [-1, 1] up to rounding; 0 where a row, or a row under the other's mask, is zero.
    """
    cosine = left.seen[rows] @ right.seen.T  # Eq. 4 inside the cosine: x . (m * w), (b, n)
    if left.mask_squares is not None:
        cosine.div_(_lengths(left.mask_squares[rows], right.squares))  # |m_x * w|
    if right.mask_squares is not None:
        cosine.div_(_lengths(left.squares[rows], right.mask_squares))  # |m_w * x|
    return cosine


def distance_block(
    left: MaskedRows, right: MaskedRows, rows: slice | Tensor = slice(None), *, out: Tensor | None = None
) -> Tensor:
    """1 - :func:`cosine_block`, (b, n) in [0, 2], written to ``out`` where that is given; without gradient."""
    cosine = cosine_block(left, right, rows).clamp_(-1, 1)
    return torch.sub(1, cosine, out=cosine if out is None else out)


def masked_cosine(
    features: Tensor, prototypes: Tensor, mask: Tensor | None = None, variant: str = "Pn", renormalise: bool = True
) -> Tensor:
    """Cosine between each feature and every prototype under that feature's mask, with gradients.

    Args:
        features: x, (B, D), of any float type; computed in float32, autocast or not.
        prototypes: W, (K, D), one row an identity.
        mask: m, (B, D), or None for no mask. Default: None.
        variant: what the mask cuts, Table 5: the prototype ("P"), or prototype and feature
            ("P+F"), before or after (suffix n) their L2 normalisation. Default: "Pn".
        renormalise: whether a row masked after its normalisation is brought back to length
            1, as the released implementation does. A cosine does not see a row's length,
            so then "Pn" equals "P" and "Pn+Fn" equals "P+F" in exact arithmetic; with False
            the n variants keep the shortened rows. Default: True.

    Returns:
        (B, K) float32 in [-1, 1]. A zero feature, prototype or mask gives 0 and has the gradient 0; magnitudes do not
        count, however small or large. Without ``renormalise`` a mask's magnitude does, and it belongs in [0, 1].

    Raises:
        DPMError: an unknown variant, or shapes that do not fit.
    """
    check_variant(variant)
    check_rows(("features", features, "mask", mask), ("prototypes", prototypes, "", None))
    with torch.autocast(features.device.type, enabled=False):
        w = masked_rows(prototypes, exact=True)
        if mask is None or renormalise or not variant.endswith("n"):
            x = masked_rows(features, mask, exact=True)
            if mask is not None and variant in ("Pn+Fn", "P+F"):
                x = replace(x, unit=F.normalize(x.seen))
            return cosine_block(x, w)
        x = MaskedRows(unit_rows(features, exact=True), mask.float())
        if variant == "Pn+Fn":
            x = replace(x, unit=x.seen)
        return x.seen @ w.unit.T


def check_variant(variant: str) -> None:
    """Raise DPMError where ``variant`` is none of :data:`MASK_VARIANTS`."""
    if variant not in MASK_VARIANTS:
        raise DPMError(f"mask_variant '{variant}' is unknown; choose one of {', '.join(MASK_VARIANTS)}")


def check_rows(*sides: tuple[str, Tensor, str, Tensor | None]) -> None:
    """Raise DPMError where the sides of a cosine are no real tensors (n, D) of one D > 0 on one device.

    Args:
        sides: name and rows, name and mask (or None) of each side; a mask has the shape of its rows.
    """
    named = {rows_name: rows for rows_name, rows, _, _ in sides}
    named |= {mask_name: mask for _, _, mask_name, mask in sides if mask is not None}
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise DPMError(f"{name} must be a torch tensor, got {type(value).__name__}; use torch.from_numpy")
        if value.is_complex():
            raise DPMError(f"{name} must hold real numbers, got {value.dtype}")
    fits = all(value.dim() == 2 for value in named.values()) and all(rows.shape[1] > 0 for _, rows, _, _ in sides)
    fits = fits and len({value.shape[1] for value in named.values()}) == 1
    if not fits or any(mask is not None and mask.shape != rows.shape for _, rows, _, mask in sides):
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in named.items())
        raise DPMError(f"shapes do not fit: {shapes}; expected (n, D) of one D each, a mask in the shape of its rows")
    if len({value.device for value in named.values()}) > 1:
        devices = ", ".join(f"{name} {value.device}" for name, value in named.items())
        raise DPMError(f"{', '.join(named)} must be on one device, got {devices}")


def _lengths(squares: Tensor, other: Tensor) -> Tensor:
    """Lengths (b, n) of masked rows, from the squares of masks (or rows) and of rows (or masks)."""
    # clamped before the root, whose slope at 0 is infinite
    return (squares @ other.T).clamp_(min=_SHORT).sqrt_()


def _near_one(rows: Tensor, exact: bool) -> Tensor:
    """``rows`` (n, D) in float32, each divided by its largest magnitude, or if ``exact`` by the power of two below it.

    Without it the squares of large rows would overflow and those of small ones vanish. The two ways differ in the
    last bit; each stays as it is, so that runs resume and results repeat bit for bit.
    """
    rows = rows if rows.dtype == torch.float64 else rows.float()  # what is finite in float64 need not be in float32
    largest = rows.detach().abs().amax(dim=1, keepdim=True)  # (n, 1)
    is_zero = largest == 0
    if rows.requires_grad:
        rows = rows.masked_fill(is_zero, 0)  # without gradient: a zero row has no direction, and its slope is infinite
    largest = torch.where(is_zero, 1.0, largest)
    if exact and rows.dtype == torch.float32:
        largest = (largest.view(torch.int32) & 0x7F80_0000).clamp(min=0x0080_0000).view(torch.float32)  # its exponent
    return (rows / largest).float()
