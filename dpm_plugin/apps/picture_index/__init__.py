"""Search in a folder of one's own pictures: ``indexing`` embeds them once, ``querying`` ranks them."""
