"""Train and evaluate: ``dpm train --config-file FILE [-s ... -t ... --root ...] [KEY VALUE ...]``.

Takes torchreid's options and every key of ``configs/REFERENCE.md``. Exit codes: 0 done, 2 a mistake
in the command, the configuration or the data, or a full disk (one line on stderr), 130, 143, 129 and 141 stopped by
Ctrl-C, SIGTERM, a lost connection (SIGHUP) or for want of a reader (``| head``), after the iteration and a checkpoint:
``train.resume auto`` goes on. In several processes:
``torchrun --nproc_per_node=N -m dpm_plugin train ...``, see ``dpm_plugin/distributed/processes.py``.
"""

import argparse
import contextlib
import functools
import io
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from yacs.config import CfgNode

from dpm_plugin import build, harden
from dpm_plugin.config import engine_run_kwargs, folder_kwargs, load_config
from dpm_plugin.data.own import looks_like_path, write_splits
from dpm_plugin.distributed.processes import ALONE, TIMEOUT, Processes, launched
from dpm_plugin.engine import run_folder
from dpm_plugin.torchreid_host import utils
from dpm_plugin.utils.command import Console, Parser, exit_code
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.place import CONFIGS
from dpm_plugin.utils.runtime import deterministic_kernels


def make_parser(prog: str = "dpm train", does: str = "Train and evaluate", usage: str | None = None) -> Parser:
    """The options of a run; ``does`` begins the description."""
    parser = Parser(
        prog=prog,
        usage=usage,
        description=f"{does} person re-identification models.",
        epilog=f"Keys and their meaning: {CONFIGS / 'REFERENCE.md'}",
    )
    parser.add_argument("--config-file", default="", help="yaml file with settings, or the name of a shipped one")
    parser.add_argument(
        "-s", "--sources", dest="data.sources", nargs="+", metavar="NAME", help="data sets to train on: names or paths"
    )
    parser.add_argument(
        "-t", "--targets", dest="data.targets", nargs="+", metavar="NAME", help="data sets to evaluate on, likewise"
    )
    parser.add_argument(
        "--transforms", dest="data.transforms", nargs="+", metavar="NAME", help="augmentation of training images"
    )
    parser.add_argument("--root", dest="data.root", metavar="FOLDER", help="folder that holds the data sets")
    parser.add_argument("-m", "--model", dest="model.name", metavar="NAME", help="network, instead of model.name")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs, such as train.lr 0.01")
    return parser


def parse(argv: Sequence[str] | None, parser: Parser | None = None) -> argparse.Namespace:
    """Command line -> namespace, options under the keys that they set; ``argv`` None takes the process's."""
    args = (parser or make_parser()).parse_args(argv)
    for name in ("data.sources", "data.targets", "data.transforms"):
        # In "-s market1501 train.lr 0.01" argparse takes all three for names: names hold no dot, keys do, paths may.
        names = getattr(args, name) or []
        first_key = next((index for index, text in enumerate(names) if _is_key(text)), len(names))
        args.opts[:0] = names[first_key:]
        setattr(args, name, names[:first_key] or None)
    return args


def _is_key(text: str) -> bool:
    return "." in text and not looks_like_path(text) and not os.path.isdir(text)


def overrides_of(args: argparse.Namespace) -> dict[str, Any]:
    """The configuration keys that options set."""
    return {key: value for key, value in vars(args).items() if "." in key and value is not None}


@contextlib.contextmanager
def logged(path: Path) -> Iterator[None]:
    """Copy what is printed to ``path`` with torchreid's Logger, and put ``sys.stdout`` back afterwards."""
    try:  # before Logger does it: one that fails closes the process's stdout
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise DPMError(f"data.save_dir '{path.parent}' cannot be written: {error.strerror}") from error
    console, logger = sys.stdout, utils.Logger(os.path.abspath(path))
    logger.console, sys.stdout = Console(console), logger
    # After an error, such as of a full disk, the first one says more.
    lost: contextlib.AbstractContextManager = contextlib.suppress(OSError)
    try:
        yield
        lost = contextlib.nullcontext()
    finally:
        sys.stdout = console
        logger.console = io.StringIO()  # Logger closes its console with itself, and this one is the process's
        with lost:
            logger.close()


def run(config: CfgNode, processes: Processes = ALONE) -> None:
    """One run: build every part, resume, train, evaluate."""
    build.check_names(config, processes)
    utils.set_random_seed(processes.seed(config.train.seed))
    log = ("test" if config.test.evaluate else "train") + time.strftime(".log-%Y-%m-%d-%H-%M-%S")
    with contextlib.ExitStack() as stack:
        folder = Path(config.data.save_dir)
        if processes.is_main:
            folder = stack.enter_context(run_folder.save_folder(**folder_kwargs(config)))
            stack.enter_context(logged(folder / log))
        device = torch.cuda.get_device_name() if config.use_gpu else f"CPU, {torch.get_num_threads()} threads"
        if processes.size > 1:
            device = f"{processes.size} processes, each {device}"
        print(f"Python {platform.python_version()}, torch {torch.__version__}, {device}\n")
        engine = build.build_run(config, processes)
        size = sum(parameter.numel() for parameter in engine.model.parameters())
        print(f"Built model {config.model.name} with {size:,} parameters")
        start_epoch = build.resume(config, engine, processes)
        # Not sooner: what is wrong with names, data, weights or what is resumed is not to be sought below it.
        print(f"Show configuration\n{config}\n")
        if processes.is_main:
            run_folder.clear_older(**folder_kwargs(config))
            write_splits(getattr(engine.datamanager, "own", {}).values(), folder)
        engine.run(**{**engine_run_kwargs(config, start_epoch), "save_dir": str(folder)})


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = parse(argv)
    return execute(lambda: load_config(args.config_file, args.opts, overrides_of(args)))


def execute(read: Callable[[], CfgNode]) -> int:
    """Run what ``read()`` says, in every process that was launched for it; returns the exit code."""
    harden()
    read = functools.cache(read)

    def work() -> None:
        timeout = TIMEOUT
        with contextlib.suppress(DPMError):  # which is said below, once for all processes
            timeout = read().dist.timeout
        with launched(timeout) as processes:
            config = read()
            with (
                deterministic_kernels(config.train.deterministic, config.use_gpu),
                processes.joined(config.use_gpu, config.dist.timeout),
            ):
                run(config, processes)

    return exit_code(work)


if __name__ == "__main__":  # how ``dpm compare`` starts it
    sys.exit(main())
