"""The nearest gallery images under each query's mask, from galleries of any size.

:func:`topk` is exact; :class:`ApproximateIndex` looks at a part of the gallery only, and needs faiss.
"""

from dpm_plugin.search.exact import topk
from dpm_plugin.search.gallery import Gallery

__all__ = ["Gallery", "topk"]
