"""The comparison's budget: as long as DPM trains, or as many epochs."""

from experiments.compare.budget import epochs_that_fit


def same_epochs(setting, tools):
    """Function (label, model, changes) -> one run per seed with the config's own number of epochs.

    Args:
        tools: gives ``stock_overrides``, see :class:`experiments.reproduce.cli.Tools`.
    """

    def runs(label, model, changes):
        changes = dict(changes) | dict(tools.stock_overrides(model, setting.config))
        return setting.runs(model, changes, label)

    return runs


def same_time(setting, tools, *, cache, threads):
    """The same, with as many epochs as fit into the time that DPM's own take.

    Both speeds are measured, one process after the other, before anything is trained: what a training run
    took by the clock depends on what ran beside it.

    Args:
        tools: gives ``stock_overrides``, ``schedule_overrides`` and ``training_speed``.
        cache: folder for measured speeds; a second call must find the same epochs, hence the same runs.
        threads: of a run.
    """

    def epoch_seconds(run):
        return tools.training_speed(
            run.model, run.config_file, run.overrides, root=setting.root, threads=threads, cache=cache
        )

    seed = setting.seeds[0]  # which no speed depends on
    seconds = setting.config.train.max_epoch * epoch_seconds(setting.run(seed))

    def runs(label, model, changes):
        changes = dict(changes) | dict(tools.stock_overrides(model, setting.config))
        run = setting.run(seed, model, changes, label)
        epochs = epochs_that_fit(seconds, epoch_seconds(run))
        schedule = tools.schedule_overrides(run.config(), epochs)
        return setting.runs(model, changes | dict(schedule), f"{label}-epochs{epochs}")

    return runs
