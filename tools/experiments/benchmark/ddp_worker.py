"""What torchrun starts for :mod:`experiments.benchmark.ddp`: both contenders, taken in turn by the same processes."""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import torch

from dpm_plugin.distributed.processes import ALONE, Processes, launched
from dpm_plugin.distributed.sync_bn import synchronise_batch_norm
from dpm_plugin.engine.engine import ImageDPMEngine
from dpm_plugin.method.recipe import build_optimizer
from dpm_plugin.models import MODELS
from dpm_plugin.utils.command import exit_code
from experiments.benchmark.report import Comparison, compared
from experiments.benchmark.timing import take_turns

IDENTITIES, CAMERAS = 702, 8  # of Occluded-Duke
SIZES = {
    False: (16, (256, 128), {}),  # batch, image, shape of the network
    True: (8, (32, 16), dict(patch_size=8, stride=8, embed_dim=24, depth=2, num_heads=2)),
}


def measure(processes: Processes, rounds: int, tiny: bool, on_gpus: bool) -> Comparison:
    """The Comparison, on rank 0; the other ranks take part."""
    batch_size, image, shape = SIZES[tiny]
    device = torch.device("cuda" if on_gpus else "cpu")
    generator = torch.Generator().manual_seed(0)
    batch = {
        "img": torch.randn(batch_size, 3, *image, generator=generator),
        "pid": torch.arange(batch_size) // 4,
        "camid": torch.randint(CAMERAS, (batch_size,), generator=generator),
    }
    share = {key: rows.chunk(processes.size)[processes.rank] for key, rows in batch.items()}
    alone, together = (_engine(each, image, shape, device) for each in (ALONE, processes))

    def one() -> None:
        if processes.is_main:
            alone.forward_backward(batch)
        processes.barrier()  # the others sleep meanwhile

    def several() -> None:
        together.forward_backward(share)
        processes.barrier()

    names = "one process", f"{processes.size} processes"
    timings = take_turns(dict(zip(names, (one, several))), rounds=rounds, device=device)
    for timing in timings.values():
        timing.memory_mb = None  # they share rank 0's memory, so the second finds what the first freed
    difference = max(
        float((left - right).abs().max())
        for left, right in zip(alone.model.state_dict().values(), together.model.state_dict().values())
    )
    where = "a GPU each" if on_gpus else "one CPU thread each"
    size = f"{'tiny ViT' if tiny else 'ViT-S/16'}, {image[0]} x {image[1]}, global batch {batch_size}"
    case = f"two-step iteration, {size}, synchronised BN, {where}"
    extra = {f"iterations/s in {name}": 1 / timings[name].median for name in names}
    return compared("ddp", case, timings, plain=names[0], ours=names[1], difference=difference, extra=extra)


def _engine(processes, image, shape, device):
    torch.manual_seed(0)
    model = MODELS["dpm_vit_small"](
        IDENTITIES, loss="dpm", pretrained=False, img_size=image, num_cameras=CAMERAS, drop_path=0.0, **shape
    )
    model.to(device).train()
    synchronise_batch_norm(model, processes)
    data = SimpleNamespace(train_loader=[], test_loader={}, sources=["drawn"])
    engine = ImageDPMEngine(data, model, build_optimizer(model), use_gpu=device.type == "cuda", processes=processes)
    engine.num_batches, engine.batch_idx = 1, 0
    return engine


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)

    def work():
        with launched() as processes, processes.joined(args.gpu):
            comparison = measure(processes, args.rounds, args.tiny, args.gpu)
            if processes.is_main:
                args.json.write_text(json.dumps(asdict(comparison)), encoding="utf-8")

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
