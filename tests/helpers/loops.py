"""The masked cosine pair by pair in float64: the oracle of heads, distances and searches."""

import numpy as np

FADES = 1e-12  # length of a masked row, the row's and the mask's largest being 1, below which similarity fades


def loop_cosine(x, w, x_mask=None, w_mask=None):
    """(B, K) of cos(m_w * x, m_x * w); 0 where either side is zero. Masks of None are all ones."""
    x, w, x_mask, w_mask = (None if rows is None else rows.double().numpy() for rows in (x, w, x_mask, w_mask))
    out = np.zeros((len(x), len(w)))
    for i in range(len(x)):
        for j in range(len(w)):
            left, right = masked(x[i], w_mask, j), masked(w[j], x_mask, i)
            out[i, j] = left @ right
    return out


def masked(row, masks, number):
    """A row under a mask of the other side, of length 1; a zero row stays zero."""
    row = unit(row)
    if masks is None:
        return row
    row = row * (masks[number] / (masks[number].max() or 1.0))
    return row / max(np.linalg.norm(row), FADES)


def unit(row):
    """Length 1, by way of a largest magnitude of 1; a zero row stays zero."""
    largest = np.abs(row).max()
    if largest == 0:
        return row
    row = row / largest
    return row / np.linalg.norm(row)
