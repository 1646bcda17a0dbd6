"""The paper's tables and figures, measured: sweeps of runs, and figures from trained runs."""
