"""The nearest gallery images under each query's mask, from galleries of any size.

:func:`topk` is exact, as is :func:`ranks`, which says where chosen images stand; :class:`ApproximateIndex`, on
faiss, ranks the likely candidates only. All walk over :class:`MaskedBlocks` of distances.
"""

from dpm_plugin.evaluation.search.approximate import ApproximateIndex
from dpm_plugin.evaluation.search.blocks import MaskedBlocks
from dpm_plugin.evaluation.search.exact import topk
from dpm_plugin.evaluation.search.gallery import Gallery
from dpm_plugin.evaluation.search.ranks import ranks

__all__ = ["ApproximateIndex", "Gallery", "MaskedBlocks", "ranks", "topk"]
