"""Is a data set whole? Every file read and every label looked at, before hours of training: tools/check_data.py."""

from dpm_plugin.apps.check_data.checking import check_dataset, check_folder
from dpm_plugin.apps.check_data.findings import Checked, Finding

__all__ = ["Checked", "Finding", "check_dataset", "check_folder"]
