"""The nearest gallery images under each query's mask, from galleries of any size.

:func:`topk` is exact; :class:`ApproximateIndex`, on faiss, ranks the likely candidates only.
"""
from dpm_plugin.search.approximate import ApproximateIndex
from dpm_plugin.search.exact import topk
from dpm_plugin.search.gallery import Gallery

__all__ = ["ApproximateIndex", "Gallery", "topk"]
