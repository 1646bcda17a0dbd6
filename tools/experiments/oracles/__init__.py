"""The package's mathematics as plain loops: what tests compare with and benchmarks are timed against."""
