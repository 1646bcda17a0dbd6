"""Configuration of a run.

``schema`` lists every key, ``loading`` reads files and the command line, ``arguments`` turns the result
into keyword arguments.
"""

from dpm_plugin.config.arguments import (
    criterion_kwargs,
    datamanager_kwargs,
    engine_kwargs,
    engine_run_kwargs,
    evaluation_kwargs,
    model_kwargs,
    optimizer_kwargs,
    scheduler_kwargs,
    stock_model_kwargs,
    stock_optimizer_kwargs,
    stock_scheduler_kwargs,
    training_kwargs,
)
from dpm_plugin.config.loading import default_config, flat, load_config
from dpm_plugin.config.schema import SCHEMA

__all__ = [
    "SCHEMA",
    "default_config",
    "flat",
    "load_config",
    "criterion_kwargs",
    "datamanager_kwargs",
    "engine_kwargs",
    "engine_run_kwargs",
    "evaluation_kwargs",
    "model_kwargs",
    "optimizer_kwargs",
    "scheduler_kwargs",
    "stock_model_kwargs",
    "stock_optimizer_kwargs",
    "stock_scheduler_kwargs",
    "training_kwargs",
]
