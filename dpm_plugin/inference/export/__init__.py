"""Trained models for other programs: ONNX and torch.export files with outputs ``embedding`` and ``mask``.

A file takes ``images`` (B, 3, H, W) float32, B free, prepared as its metadata says, and gives ``embedding``
(B, D), after the neck, and ``mask`` (B, D) for the neutral camera. A model without mask branch gives
``embedding`` alone. The masked search (paper section 4.1) is then four lines of numpy, for query rows ``q``
with masks ``m`` and gallery rows ``g``, by cos(q, m * g) = (q * m) . g / sqrt(m^2 . g^2) of unit rows::

    q = q / np.linalg.norm(q, axis=1, keepdims=True)                     # (Q, D)
    g = g / np.linalg.norm(g, axis=1, keepdims=True)                     # (G, D)
    similarity = (q * m) @ g.T / np.sqrt(m**2 @ (g**2).T)                # (Q, G), in [-1, 1]
    order = np.argsort(-similarity, axis=1)                              # best first

``1 - similarity`` is :func:`dpm_plugin.query_mask_distance`.
"""

from dpm_plugin.inference.export.exporting import export

__all__ = ["export"]
