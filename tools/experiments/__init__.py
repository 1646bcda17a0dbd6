"""Measuring the method: the paper's tables and figures, benchmarks. Not part of the installed package.

``reproduce`` and ``benchmark`` are behind the scripts of those names in tools/. They train, measure and write by
``dpm_plugin.apps.compare``, and share ``oracles``, plain implementations of the same mathematics, which the tests
compare with too.
"""
