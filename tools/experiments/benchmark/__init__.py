"""``tools/benchmark.py``: each part of DPM against a plain implementation of the same mathematics.

A part is a module with ``run(settings)``, which yields Comparisons as they are measured. The plain contenders are the
tests' oracles, ``experiments.oracles``.
"""
