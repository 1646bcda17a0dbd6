"""torchreid's training samplers, with an error where a batch cannot be filled."""

from collections.abc import Sequence

from torch.utils.data import Sampler

from dpm_plugin import torchreid_host
from dpm_plugin.data.sharing import TrainShare
from dpm_plugin.distributed.processes import ALONE, Processes
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.text import unknown

SAMPLERS = tuple(
    "RandomSampler SequentialSampler RandomIdentitySampler RandomDomainSampler RandomDatasetSampler".split()
)


def build_train_sampler(
    data_source: Sequence[tuple],
    train_sampler: str,
    *,
    batch_size: int,
    num_instances: int,
    num_cams: int,
    num_datasets: int,
    processes: Processes = ALONE,
) -> Sampler:
    """torchreid's sampler ``train_sampler`` over ``data_source``, entries (path, pid, camid, dsetid).

    Args:
        batch_size, num_instances, num_cams, num_datasets: as torchreid's; the first counts one process's images.
        processes: where there are several, each gets a sampler of its share.

    Raises:
        DPMError: the data do not suffice for one batch; torchreid would train on nothing and report success.
    """
    batch_size *= processes.size
    if train_sampler not in SAMPLERS:
        raise unknown("sampler (sampler.train_sampler)", train_sampler, SAMPLERS)
    pids, camids, dsets = (len({entry[field] for entry in data_source}) for field in (1, 2, 3))
    there = f"{len(data_source)} images, {pids} identities, {camids} cameras, {dsets} data sets"
    if batch_size > len(data_source):
        large = f"a batch of {batch_size} (train.batch_size) is larger than the training set ({there})"
        raise DPMError(f"{large}, nothing would be trained; lower it to {len(data_source)} or less")
    if train_sampler == "RandomIdentitySampler":
        if not 1 <= num_instances <= batch_size:
            allowed = f"must be between 1 and the batch size {batch_size}"
            raise DPMError(f"sampler.num_instances is {num_instances}, {allowed}")
        wanted = batch_size // num_instances
        if pids < wanted:
            raise DPMError(
                f"a batch of {batch_size} with {num_instances} images each needs {wanted} identities, the training set "
                f"has {pids} ({there}); lower train.batch_size to {pids * num_instances} or raise sampler.num_instances"
            )
        if wanted * num_instances < batch_size and pids < 2 * wanted:
            # One round of identities may be all there is, and it is shorter than a batch.
            odd = f"train.batch_size {batch_size} is no multiple of sampler.num_instances {num_instances}"
            raise DPMError(f"{odd} and there are only {pids} identities; make it {wanted * num_instances}")
    sizes = dict(batch_size=batch_size, num_instances=num_instances, num_cams=num_cams, num_datasets=num_datasets)
    try:
        sampler = torchreid_host.build_train_sampler(data_source, train_sampler, **sizes)
    except (AssertionError, ValueError) as error:
        reason = f": {error}" if str(error) else ""
        raise DPMError(
            f"{train_sampler} cannot make batches of {batch_size} with num_cams {num_cams} and num_datasets "
            f"{num_datasets} from {there}{reason}; the batch must divide evenly and every part hold enough images"
        ) from error
    if len(sampler) < batch_size:
        yielded = f"{train_sampler} yields {len(sampler)} images an epoch from {there}"
        raise DPMError(f"{yielded}, less than one batch of {batch_size} (train.batch_size); lower it")
    return TrainShare(sampler, batch_size, processes) if processes.size > 1 else sampler
