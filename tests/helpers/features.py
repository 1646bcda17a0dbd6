"""Drawn retrieval features, close to a centre for each identity."""

import torch

from dpm_plugin.evaluation.extract import Features


def features(count, camid, seed, cls=True, mask=True, width=12, ids=6):
    generator = torch.Generator().manual_seed(seed)
    pids = [i % ids for i in range(count)]
    centers = torch.randn(ids, width, generator=torch.Generator().manual_seed(99))
    embedding = centers[pids] + torch.randn(count, width, generator=generator)
    before = embedding + 1 + 0.3 * torch.randn(count, width, generator=generator)
    masks = 0.05 + 0.9 * torch.rand(count, width, generator=generator)
    camids = [camid] * count
    return Features(embedding, pids, camids, cls=before if cls else None, mask=masks if mask else None)
