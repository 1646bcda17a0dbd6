"""The mathematics of the package written plainly, as loops: what tests compare with and benchmarks are timed against."""
