"""Evaluate: ``dpm eval RUN``, or as ``dpm train`` with ``test.evaluate True``: ``dpm eval --config-file FILE ...``."""

import sys
from collections.abc import Sequence
from typing import Any

from yacs.config import CfgNode

from dpm_plugin.commands.train import execute, make_parser, overrides_of, parse
from dpm_plugin.config import SCHEMA, load_config
from dpm_plugin.inference.open_run import NAMED, run_settings

# Not the run's own: where its weights came from, which are now the checkpoint's, and the device it had.
_DROPPED = ("model.load_weights", "model.load_sha256", "train.resume", "train.overwrite", "use_gpu")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code, as ``dpm train`` does."""
    argv = list(sys.argv[1:] if argv is None else argv)
    run = argv.pop(0) if argv and not argv[0].startswith("-") and argv[0] not in SCHEMA else None
    usage = "%(prog)s [RUN] [options] [KEY VALUE ...]; RUN: a run's data.save_dir, or a checkpoint in it"
    parser = make_parser("dpm eval", "Evaluate", usage)
    which = "which one of RUN's checkpoints (default: last)"
    parser.add_argument("--checkpoint", choices=tuple(NAMED), default="last", help=which)
    args = parse(argv, parser)
    if run is not None and args.config_file:
        parser.error(f"'{run}' brings its settings, so that --config-file has no place")

    def read() -> CfgNode:
        trained = {} if run is None else _trained(run, args.checkpoint)
        return load_config(args.config_file, [*args.opts, "test.evaluate", "True"], trained | overrides_of(args))

    return execute(read)


def _trained(run: str, checkpoint: str) -> dict[str, Any]:
    """The settings of a run, and its checkpoint as what is evaluated; the results go to the run's folder."""
    path, settings = run_settings(run, checkpoint)
    kept = {key: value for key, value in settings.items() if key not in _DROPPED}
    return kept | {"model.resume": str(path), "data.save_dir": str(path.absolute().parent.parent)}
