"""Configuration of a run.

``schema`` lists every key, ``loading`` reads files and the command line, ``arguments`` makes keyword arguments of it.
"""

from dpm_plugin.config.arguments import engine_run_kwargs, evaluation_kwargs, folder_kwargs, model_kwargs
from dpm_plugin.config.loading import check_ignored, flat, load_config
from dpm_plugin.config.schema import SCHEMA

__all__ = ["SCHEMA", "check_ignored", "engine_run_kwargs", "evaluation_kwargs", "flat", "folder_kwargs", "load_config"]
__all__ += ["model_kwargs"]
