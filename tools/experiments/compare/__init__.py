"""Any models beside each other under one budget: accuracy and cost in one table (``tools/compare.py``)."""
