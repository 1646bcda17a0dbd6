"""Runs as tools/main.py leaves them, for tools/visualize.py."""

from dpm_plugin.weights.files import write_checkpoint
from helpers.runs import finished_run, tell_masks_apart

QUERIES = 10
# Patches of 8 pixels every 6: 5 x 2 of them, which leave two columns of 16 unseen.
CHANGES = {"vit__stride": 6, "synthetic__test_ids": 5, "synthetic__query_images": 2, "synthetic__distractor_ids": 1}


def evaluated_run(root, model, feature="after", **changes):
    """A run's folder with an untrained model; its evaluation is the real one."""

    def tell_apart(engine):
        if engine.model.has_mask:
            tell_masks_apart(engine.model.mask_generator)

    settings = {**CHANGES, **changes, "test__evaluate": True, "model__name": model, "test__feature": feature}
    folder, model, _ = finished_run(root / f"{model}-{feature}", root / "data", prepare=tell_apart, **settings)
    write_checkpoint({"state_dict": model.state_dict(), "epoch": 1}, folder / "model" / "last.pth.tar")
    return folder
