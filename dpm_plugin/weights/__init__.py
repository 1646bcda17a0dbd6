"""Weight files: reading and writing them, renaming their tensors, and loading them into models."""
