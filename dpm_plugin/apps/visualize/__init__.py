"""What a finished run sees in a query: mask, attention and ranked gallery, as PNG and as one HTML page."""

from dpm_plugin.apps.visualize.gallery import visualize_run

__all__ = ["visualize_run"]
