"""Finished runs on a tiny drawn data set, made as ``dpm train`` makes them."""

import json
from pathlib import Path

import torch

from dpm_plugin import build
from dpm_plugin.commands import train
from dpm_plugin.config import engine_run_kwargs, evaluation_kwargs, load_config, model_kwargs
from dpm_plugin.distributed.processes import ALONE
from dpm_plugin.models import MODELS
from dpm_plugin.torchreid_host import utils
from dpm_plugin.weights.files import read_checkpoint, write_checkpoint

SETTINGS = {
    "model.name": "dpm_vit_tiny",
    "model.pretrained": False,
    "loss.name": "dpm",
    "vit.embed_dim": 16,
    "vit.depth": 2,
    "vit.num_heads": 2,
    "vit.patch_size": 8,
    "vit.stride": 8,
    "vit.token_std": 1.0,
    "data.sources": ["synthetic_occluded"],
    "data.targets": ["synthetic_occluded"],
    "data.height": 32,
    "data.width": 16,
    "data.workers": 0,
    "synthetic.height": 64,
    "synthetic.width": 32,
    "synthetic.cameras": 3,
    "synthetic.train_ids": 4,
    "synthetic.train_images": 2,
    "synthetic.test_ids": 8,
    "synthetic.query_images": 1,
    "synthetic.gallery_images": 3,
    "synthetic.distractor_ids": 2,
    "sampler.train_sampler": "RandomIdentitySampler",
    "sampler.num_instances": 2,
    "train.lr": 0.01,
    "train.lr_scheduler": "warmup_cosine",
    "train.warmup_epochs": 0,
    "train.batch_size": 4,
    "train.max_epoch": 1,
    "test.ranks": [1, 5],
    "use_gpu": False,
}


def finished_run(folder, root, processes=ALONE, prepare=lambda engine: None, **changes):
    """Train one epoch into ``folder``; returns (folder, the trained model in eval mode, its configuration).

    Args:
        processes: those that train it together.
        prepare: called with the engine before it runs.
        changes: settings with "__" for the dot, such as ``model__name="vit_baseline_tiny"``.
    """
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    places = {"data.save_dir": str(folder), "data.root": str(root)}
    config = load_config(overrides={**SETTINGS, **places, **changes})
    utils.set_random_seed(processes.seed(config.train.seed))
    engine = build.build_run(config, processes)
    prepare(engine)
    has_weights = config.train.resume or not config.test.evaluate  # an evaluation of random weights would be refused
    start_epoch = build.resume(config, engine, processes) if has_weights else None
    engine.run(**engine_run_kwargs(config, start_epoch))
    return Path(folder), engine.model.eval(), config


def untrained_run(folder, root="reid-data", seed=0, **changes):
    """What a run leaves, made at once: a model of random weights whose masks differ, and no results.

    Returns (folder, the model in eval mode, its configuration); arguments as :func:`finished_run`.
    """
    changes = {key.replace("__", "."): value for key, value in changes.items()}
    places = {"data.save_dir": str(folder), "data.root": str(root)}
    config = load_config(overrides={**SETTINGS, **places, **changes})
    torch.manual_seed(seed)
    model = MODELS[config.model.name](**model_kwargs(config, num_classes=4, num_cameras=3))
    for name, weight in model.backbone.transformer.named_parameters():
        if weight.dim() > 1 and name not in ("pos_embed", "cls_token"):  # untrained, it hardly sees the picture
            torch.nn.init.normal_(weight, std=2 * weight[0].numel() ** -0.5)
    if model.has_mask:
        tell_masks_apart(model.mask_generator)
    if model.num_cameras:  # untrained, cameras hardly differ
        torch.nn.init.normal_(model.backbone.camera_embedding)
    write_checkpoint({"state_dict": model.state_dict(), "epoch": 3}, Path(folder) / "model" / "last.pth.tar")
    content = {"run": evaluation_kwargs(config)["run_info"], "datasets": {}}
    (Path(folder) / "results.json").write_text(json.dumps(content), encoding="utf-8")
    return Path(folder), model.eval(), config


def tell_masks_apart(generator):
    """Make the masks of images differ: untrained, every mask is 0.5."""
    for linear in filter(None, (generator.linear, generator.part_linear)):
        torch.nn.init.normal_(linear.weight, std=8.0)


def change(path, edit):
    """Call ``edit`` with the content of a checkpoint, a dict, and write it again."""
    content = read_checkpoint(path)
    edit(content)
    write_checkpoint(content, path)


def as_of_0_1_0(path):
    """Take from a checkpoint what version 0.1.0 did not write: what it records of its run."""

    def edit(content):
        for name in ("config", "images", "cameras"):
            content.pop(name)
        content.get("progress", {}).pop("best_mAP", None)

    change(path, edit)


def main_of(root, folder, capsys):
    """``main(**settings)`` runs ``dpm train`` on a tiny run in ``folder``; returns (exit code, stdout, stderr)."""

    def call(**changes):
        changes = {name.replace("__", "."): value for name, value in changes.items()}
        places = {"data.root": root, "data.save_dir": folder}
        settings = {**SETTINGS, **places, "synthetic.train_images": 4, "train.max_epoch": 2, **changes}
        code = train.main([str(word) for pair in settings.items() for word in pair])
        return code, *capsys.readouterr()

    return call
