"""Several processes that torchrun started, and BatchNorm over their batches."""
