"""Any models beside each other under one budget: accuracy and cost in one table (``tools/compare.py``)."""

from experiments.compare.budget import epochs_that_fit, schedule_overrides, stock_overrides
from experiments.compare.cost import Cost, measure_cost, training_speed

__all__ = ["Cost", "epochs_that_fit", "measure_cost", "schedule_overrides", "stock_overrides", "training_speed"]
