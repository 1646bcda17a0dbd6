"""Features that several processes extracted, brought together."""

import torch

from dpm_plugin.evaluation.protocol import Features


def gather_features(features, batches, processes):
    """The features of the whole set on rank 0, each image once and in the set's order; None elsewhere.

    Args:
        features: :class:`~dpm_plugin.evaluation.protocol.Features` of this process's images, in the order it read
            them, or None where it had none.
        batches: :class:`~dpm_plugin.data.sharing.EveryNthBatch` that says which these are. Rank 0 has the first
            batch, so it has none only where the set is empty.
        processes: :class:`~dpm_plugin.distributed.processes.Processes`.

    Raises:
        ProcessLost: another process ended.
    """
    labels = [] if features is None else list(zip(features.pids, features.camids, features.paths))
    labels = processes.gather(labels)
    if features is None:
        return None
    tensors = features.tensors()
    if not processes.is_main:
        for rows in tensors.values():
            processes.send_to_main(rows)
        return None
    positions = [batches.positions(rank) for rank in range(processes.size)]
    whole = [None] * batches.count
    for share, where in zip(labels, positions):
        for label, position in zip(share, where):
            whole[position] = label
    pids, camids, paths = zip(*whole)
    return Features(pids=pids, camids=camids, paths=paths, **_receive_rows(tensors, positions, processes))


def _receive_rows(tensors, positions, processes):
    """Name -> (n, D); processes send theirs one after another, so that little is held twice."""
    whole = {name: own.new_empty(sum(map(len, positions)), *own.shape[1:]) for name, own in tensors.items()}
    for rank, where in enumerate(positions):
        for name, own in tensors.items() if where else ():
            rows = own if rank == 0 else processes.receive(own.new_empty(len(where), *own.shape[1:]), rank)
            whole[name][torch.tensor(where)] = rows
    return whole
