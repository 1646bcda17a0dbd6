"""A recipe for DPM and data that it fits, small enough to measure and to train."""

from helpers.data import write_occluded_duke

RECIPE = """
model: {name: dpm_vit_tiny, pretrained: False}
vit: {embed_dim: 16, depth: 2, num_heads: 2, patch_size: 8, stride: 8}
loss: {name: dpm}
data: {sources: [occluded_duke], targets: [occluded_duke], height: 96, width: 48, workers: 0}
sampler: {train_sampler: RandomIdentitySampler, num_instances: 2}
train: {optim: adamw, lr: 0.001, lr_scheduler: warmup_cosine, warmup_epochs: 1, batch_size: 4, max_epoch: 4}
test: {ranks: [1], batch_size: 2}
"""


def write_recipe(folder):
    """The folder, now with recipe.yaml and, in data/, four training identities with four images each."""
    write_occluded_duke(folder / "data", pids=(3, 10, 7, 8))
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder
