"""Measuring the method: the paper's tables, comparisons of models, benchmarks. Not part of the installed package.

``reproduce``, ``compare`` and ``benchmark`` are behind the scripts of those names in tools/ and share:
``run`` (one training run), ``sweep`` (many of them), ``budget`` (epochs in equal time), ``cost`` and ``measuring``
(speed, memory and FLOPs of a model), ``spread`` (mean ± spread), ``page`` (tables, CSV, PNG), and ``oracles``, plain
implementations of the same mathematics, which the tests compare with too.
"""
