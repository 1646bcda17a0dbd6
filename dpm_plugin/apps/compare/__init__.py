"""Any models beside each other under one budget: accuracy and cost in one table (``dpm compare``).

``run`` is one training run, ``sweep`` many of them, ``budget`` what trains different models alike, ``cost`` and
``measuring`` speed, memory and FLOPs of a model, ``spread`` mean ± spread, ``page`` tables, CSV and PNG; the
repository's ``tools/experiments`` uses these too. ``comparing`` and ``table`` are the comparison itself.
"""
