"""Extracting retrieval features against timm's bare forward pass with the mask generator's arithmetic."""

import torch

from dpm_plugin.evaluation.extract import extract_features
from experiments.benchmark.report import compared
from experiments.benchmark.step import build, case
from experiments.benchmark.timing import take_turns
from experiments.oracles import plain_extract

BATCHES = {"cpu": (8, 2), "cuda": (128, 20)}  # images a batch, batches
TINY_BATCHES = (4, 2)


def run(settings):
    """Yields ours against the bare forward in float32; on a GPU also both in float16, and float16 against float32."""
    plain = plain_extract
    what = case(settings)
    size, count = TINY_BATCHES if settings.tiny else BATCHES.get(settings.device.type, BATCHES["cpu"])
    model = build(what, settings.device, num_cameras=0).eval()
    loader = [_batch(size, what.model["img_size"], seed, settings.device) for seed in range(count)]
    resident = [data["img"].to(settings.device) for data in loader]
    name = f"{'tiny ViT' if settings.tiny else 'ViT-B/16'} and HMG, {size * count} images in batches of {size}"
    amps = ("off", "float16") if settings.device.type == "cuda" else ("off",)
    calls = {}
    for amp in amps:

        def bare(amp=amp):
            with torch.autocast(settings.device.type, torch.float16, enabled=amp != "off"):
                return [plain.features(model, images) for images in resident]

        suffix = "" if amp == "off" else f" {amp}"
        calls["bare" + suffix] = bare
        calls["ours" + suffix] = lambda amp=amp: extract_features(model, loader, device=settings.device, amp=amp)
    timings = take_turns(calls, rounds=settings.rounds, device=settings.device)
    for amp in amps:
        suffix = "" if amp == "off" else f" {amp}"
        against = f"{name}, {'float32' if amp == 'off' else amp}, against a bare forward"
        yield _compared(against, timings, "ours" + suffix, "bare" + suffix, size * count)
    if len(amps) > 1:
        yield _compared(f"{name}, float16 against float32", timings, "ours float16", "ours", size * count)


def _compared(name, timings, ours, plain, images):
    left, right = _tensors(timings[plain].result), _tensors(timings[ours].result)
    difference = max(float((a.float() - b.float()).abs().max()) for a, b in zip(left, right))
    extra = {f"{ours} / {plain}": timings[ours].median / timings[plain].median}
    extra |= {f"{each} images/s": images / timings[each].median for each in (plain, ours)}
    return compared("extract", name, timings, ours=ours, plain=plain, difference=difference, extra=extra)


def _tensors(result):
    """Class tokens, embeddings and masks of a contender, on the CPU."""
    if isinstance(result, list):
        return [torch.cat(rows).cpu() for rows in zip(*result)]
    return [result.cls, result.embedding, result.mask]


def _batch(size, img_size, seed, device):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, *img_size, generator=generator)
    if device.type == "cuda":
        images = images.pin_memory()
    zeros = torch.zeros(size, dtype=torch.int64)
    return {"img": images, "pid": zeros, "camid": zeros, "impath": [""] * size}
