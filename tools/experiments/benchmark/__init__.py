"""``tools/benchmark.py``: each part of DPM against a plain implementation of the same mathematics.

The plain contenders are the oracles of the tests, ``tests/plain_*.py``, and so need a checkout.
"""
