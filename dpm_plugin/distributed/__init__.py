"""Several processes of one run: what they tell each other, and BatchNorm over all of them."""
