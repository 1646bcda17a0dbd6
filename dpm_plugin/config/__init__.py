"""Configuration of a run.

``schema`` lists every key, ``loading`` reads files (which ``shipped`` finds by name) and the command line,
``arguments`` makes keyword arguments of it.
"""

from dpm_plugin.config.arguments import engine_run_kwargs, evaluation_kwargs, folder_kwargs, model_kwargs
from dpm_plugin.config.loading import check_ignored, flat, load_config
from dpm_plugin.config.schema import SCHEMA
from dpm_plugin.config.shipped import config_path

__all__ = ["SCHEMA", "check_ignored", "config_path", "engine_run_kwargs", "evaluation_kwargs", "flat", "folder_kwargs"]
__all__ += ["load_config", "model_kwargs"]
