"""torchreid's training samplers, with an error where a batch cannot be filled."""

from dpm_plugin import torchreid_host
from dpm_plugin.data.transforms import unknown
from dpm_plugin.utils.errors import DPMError

SAMPLERS = (
    "RandomIdentitySampler",
    "SequentialSampler",
    "RandomSampler",
    "RandomDomainSampler",
    "RandomDatasetSampler",
)


def build_train_sampler(data_source, train_sampler, *, batch_size, num_instances, num_cams, num_datasets):
    """torchreid's sampler ``train_sampler`` over ``data_source``: [(path, pid, camid, dsetid), ...].

    Raises:
        DPMError: the images, identities, cameras or data sets do not suffice for one batch. torchreid
            drops an incomplete batch, so it would train on nothing and report success.
    """
    if train_sampler not in SAMPLERS:
        raise unknown("sampler (sampler.train_sampler)", train_sampler, SAMPLERS)
    there = _describe(data_source)
    if batch_size > len(data_source):
        raise DPMError(
            f"a batch of {batch_size} (train.batch_size) is larger than the training set ({there}), "
            f"nothing would be trained; lower it to {len(data_source)} or less"
        )
    if train_sampler == "RandomIdentitySampler":
        _check_identities(data_source, batch_size, num_instances, there)
    try:
        sampler = torchreid_host.build_train_sampler(
            data_source,
            train_sampler,
            batch_size=batch_size,
            num_instances=num_instances,
            num_cams=num_cams,
            num_datasets=num_datasets,
        )
    except (AssertionError, ValueError) as error:
        raise DPMError(
            f"{train_sampler} cannot make batches of {batch_size} with num_cams {num_cams} and "
            f"num_datasets {num_datasets} from {there}{f': {error}' if str(error) else ''}; "
            "the batch must divide evenly and every part hold enough images"
        ) from error
    if len(sampler) < batch_size:
        raise DPMError(
            f"{train_sampler} yields {len(sampler)} images an epoch from {there}, less than one batch of "
            f"{batch_size} (train.batch_size); lower it"
        )
    return sampler


def _check_identities(data_source, batch_size, num_instances, there):
    if not 1 <= num_instances <= batch_size:
        raise DPMError(f"sampler.num_instances is {num_instances}, must be between 1 and the batch size {batch_size}")
    wanted, found = batch_size // num_instances, len({pid for _, pid, _, _ in data_source})
    if found < wanted:
        raise DPMError(
            f"a batch of {batch_size} with {num_instances} images each needs {wanted} identities, the "
            f"training set has {found} ({there}); lower train.batch_size to {found * num_instances} or "
            "raise sampler.num_instances"
        )
    if wanted * num_instances < batch_size and found < 2 * wanted:
        # One round of identities may be all there is, and it is shorter than a batch.
        raise DPMError(
            f"train.batch_size {batch_size} is no multiple of sampler.num_instances {num_instances} and "
            f"there are only {found} identities; make it {wanted * num_instances}"
        )


def _describe(data_source):
    pids, camids, dsets = (len({entry[field] for entry in data_source}) for field in (1, 2, 3))
    return f"{len(data_source)} images, {pids} identities, {camids} cameras, {dsets} data sets"
