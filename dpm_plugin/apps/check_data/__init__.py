"""Is a data set whole? Every file read and every label looked at, before hours of training: ``dpm check``."""

from dpm_plugin.apps.check_data.checking import Checked, check_data
from dpm_plugin.apps.check_data.listing import Finding

__all__ = ["Checked", "Finding", "check_data"]
