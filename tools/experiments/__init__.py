"""Measuring the method: the paper's tables, comparisons and benchmarks; not part of the installed package."""
