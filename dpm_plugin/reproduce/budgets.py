"""The comparison's budget: as long as DPM trained, or as many epochs."""

import json

from dpm_plugin.errors import DPMError

__all__ = ["same_epochs", "same_time", "train_seconds"]


def same_epochs(setting, tools):
    """Function (label, model, changes) -> one run per seed with the config's own number of epochs.

    Args:
        tools: gives ``stock_overrides``, see :class:`dpm_plugin.reproduce.cli.Tools`.
    """

    def runs(label, model, changes):
        changes = dict(changes) | dict(tools.stock_overrides(model, setting.config))
        return setting.runs(model, changes, label)

    return runs


def same_time(setting, seconds, tools, *, cache, threads):
    """The same, with as many epochs as fit into the seconds that DPM's training took.

    Args:
        seconds: {seed: training seconds of DPM}.
        tools: gives ``stock_overrides``, ``schedule_overrides`` and ``epochs_within``.
        cache: folder for measured speeds; a second call must find the same epochs, hence the same runs.
        threads: of a run.
    """

    def one(seed, label, model, changes):
        run = setting.run(
            seed, model, dict(changes) | dict(tools.stock_overrides(model, setting.config)), label
        )
        epochs = tools.epochs_within(
            model,
            run.config_file,
            run.overrides,
            seconds[seed],
            root=setting.root,
            threads=threads,
            cache=cache,
        )
        schedule = tools.schedule_overrides(run.config(), epochs)
        return setting.run(seed, model, dict(run.overrides) | dict(schedule), f"{label}-epochs{epochs}")

    return lambda label, model, changes: tuple(one(seed, label, model, changes) for seed in setting.seeds)


def train_seconds(run, results, base):
    """Seconds that the training of a finished DPM run took; what an interruption cut off is extrapolated.

    Raises:
        DPMError: the run was only evaluated in its last session, so nothing was measured.
    """
    epochs = run.config().train.max_epoch
    try:
        started = json.loads((run.folder(base) / "sweep.json").read_text(encoding="utf-8"))["start_epoch"]
    except (OSError, ValueError, KeyError, TypeError):
        started = 0
    entry = next(iter(results["datasets"].values()))
    seconds = entry["phases"].get("train", {}).get("seconds")
    if not seconds or started >= epochs:
        raise DPMError(
            f"how long {run.name} trained is not known, as it was interrupted after its last epoch; "
            f"delete '{run.folder(base)}' to train it again, or use --budget epochs"
        )
    return seconds * epochs / (epochs - started)
