"""What a finished run sees in a query: mask, attention and ranked gallery, as PNG and as one HTML page."""

from dpm_plugin.apps.visualize.attribution import DRIVERS
from dpm_plugin.apps.visualize.visualize_run import visualize_run

__all__ = ["DRIVERS", "visualize_run"]
