"""Search in a folder of one's own images: ``indexing`` embeds them once, ``searching`` ranks them."""
