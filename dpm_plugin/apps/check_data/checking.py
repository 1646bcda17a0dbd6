"""Check data sets and folders: list, read, compare."""

import os

from dpm_plugin.apps.check_data.examining import examine_all
from dpm_plugin.apps.check_data.findings import find
from dpm_plugin.apps.check_data.listing import list_dataset, list_folder
from dpm_plugin.utils.errors import DPMError


def check_dataset(name, root="reid-data", *, jobs=None, show=print):
    """Check a registered image data set.

    Args:
        name: as in ``data.sources``.
        root: folder that holds the data sets. Default: "reid-data".
        jobs: processes that read. Default: one for each core.
        show: called with a line on the progress now and then. Default: ``print``.

    Returns:
        list of Checked, one for each variant that is there (``synthetic_occluded`` has one for each drawing).

    Raises:
        DPMError: the name is unknown, or the data is not there.
    """
    return _check(list_dataset(name, root), jobs, show)


def check_folder(folder, *, jobs=None, show=print):
    """Check a plain folder of images, and the folders in it; arguments and errors as of :func:`check_dataset`.

    Returns:
        list of one Checked.
    """
    return _check([list_folder(folder)], jobs, show)


def _check(listed, jobs, show):
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    if jobs < 1:
        raise DPMError(f"the number of processes must be at least 1, got {jobs}")
    examined = examine_all([entry.path for each in listed for entry in each.entries], jobs, show)
    return [find(each, examined) for each in listed]
