"""What Figures 3 and 4 show: how alike the last block's heads attend, and how alike each block's patches are."""

from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from dpm_plugin.inference.run_extractor import Extractor, evenly_spaced
from dpm_plugin.method.head_enrich import head_correlation
from dpm_plugin.utils.progress import Progress


def attention_correlation(head_logits: torch.Tensor) -> torch.Tensor:
    """A Aᵀ of Eq. 6: cosine between the heads' attention maps over the patches (Eq. 5).

    Args:
        head_logits: (B, N, P) of :class:`~dpm_plugin.method.vit.EncoderOutput`, before the softmax.

    Returns:
        (B, N, N) float32 in [0, 1].
    """
    return head_correlation(head_logits.float().softmax(dim=-1))


def patch_similarity(patch_map: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Smallest and largest cosine between the features of two different patches of an image, (B,) float32 each.

    Args:
        patch_map: (B, C, h, w), at least two patches.
    """
    patches = F.normalize(patch_map.float().flatten(2), dim=1)  # (B, C, P)
    cosine = patches.transpose(1, 2) @ patches  # (B, P, P)
    first, second = torch.triu_indices(*cosine.shape[1:], offset=1)
    pairs = cosine[:, first, second]  # (B, P (P - 1) / 2)
    return pairs.amin(dim=1), pairs.amax(dim=1)


class Attention(NamedTuple):
    """What :func:`measure_attention` measured on n images with L blocks and N heads.

    Attributes:
        correlation: (n, N, N), see :func:`attention_correlation`.
        smallest, largest: (n, L), see :func:`patch_similarity`.
        names: n file names; the first is the figures' one image.
        setting: the run's head enrich module in words.
    """

    correlation: torch.Tensor
    smallest: torch.Tensor
    largest: torch.Tensor
    names: list[str]
    setting: str


def measure_attention(
    run_folder: str | Path, *, root: str | Path | None, images: int = 200, device: str = "cpu"
) -> Attention:
    """Measure a run's attention on ``images`` of its queries: the first and others evenly spaced.

    Raises:
        DPMError: see :class:`~dpm_plugin.inference.run_extractor.Extractor`.
    """
    run = Extractor(run_folder, root=root, device=device)
    blocks = range(1, run.model.backbone.depth + 1)
    positions = evenly_spaced(len(run.loader("query").dataset), images)
    progress = Progress(len(positions), "images", lambda text: print(f"   attention: {text}", flush=True))
    correlation, smallest, largest, names = [], [], [], []
    for data in run.loader("query", positions):
        encoded = run.encode(data, "query", blocks=blocks, need_heads=True)
        correlation.append(attention_correlation(encoded.head_logits).cpu())
        ranges = [patch_similarity(patch_map) for patch_map in encoded.patch_maps]
        smallest.append(torch.stack([low for low, _ in ranges], dim=1).cpu())
        largest.append(torch.stack([high for _, high in ranges], dim=1).cpu())
        names += [Path(path).name for path in data["impath"]]
        progress.at(len(names))
    return Attention(torch.cat(correlation), torch.cat(smallest), torch.cat(largest), names, _setting(run))


def _setting(run: Extractor) -> str:
    # The loss of Eq. 6 is part of DPM's training only, and only with a weight above 0.
    beta = run.config.loss.dpm.beta if run.model.has_mask and run.config.loss.name == "dpm" else 0
    return f"with HEM (β = {beta:g})" if beta else "without HEM"
