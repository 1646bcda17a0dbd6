"""Search in a folder of images: ``dpm search index FOLDER --model RUN``, then ``query IMAGE... --index FOLDER``."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence

from dpm_plugin.apps.image_index.fingerprint import describe
from dpm_plugin.apps.image_index.indexing import check_model, index_images, list_images
from dpm_plugin.apps.image_index.page import answers_page
from dpm_plugin.apps.image_index.searching import Answer, Match, search
from dpm_plugin.apps.image_index.store import FOLDER, Index, read_index
from dpm_plugin.apps.query_page import percentages
from dpm_plugin.inference.extractor import DPMExtractor
from dpm_plugin.inference.open_run import NAMED, run_checkpoint
from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import check_output, write_file
from dpm_plugin.utils.text import shown


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, 2 for an error in one line, 130 when interrupted."""
    options = _parser().parse_args(argv)
    said = "interrupted; an index keeps its finished batches, and the same command goes on"
    return exit_code(lambda: options.work(options), said)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="dpm search", description="Find people in a folder of images of people.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    index = commands.add_parser("index", help="embed a folder of images; later only what is new or changed")
    index.add_argument("folder", metavar="FOLDER", help="images, one person in each; folders in it count too")
    source, named = "RUN_OR_CHECKPOINT", "a run's data.save_dir, a checkpoint, or zoo:NAME"
    index.add_argument("--model", required=True, metavar=source, help=named)
    index.add_argument("--index", metavar="FOLDER", help=f"where the index is kept (default: {FOLDER} in FOLDER)")
    index.set_defaults(work=_index)
    query = commands.add_parser("query", help="rank the images of an index")
    query.add_argument("images", nargs="+", metavar="IMAGE", help="images of whom to find")
    query.add_argument("--index", required=True, metavar="FOLDER", help="the index, or the folder of images it lies in")
    query.add_argument("--model", metavar=source, help="default: where the index says its model lies")
    query.add_argument("--top", type=int, default=20, help="length of a ranked list (default: 20)")
    query.add_argument("--json", metavar="FILE", help="write the results as JSON")
    query.add_argument("--html", metavar="FILE", help="write them as one page that needs no other file")
    query.set_defaults(work=_query)
    for command in (index, query):
        which = "which one of a run's folder, given as --model (default: last)"
        command.add_argument("--checkpoint", choices=tuple(NAMED), help=which)
        settings = "yaml file with the settings of a checkpoint that does not say them"
        command.add_argument("--config-file", metavar="FILE", help=settings)
        command.add_argument("--batch-size", type=int, default=32, help="images in one forward pass (default: 32)")
        command.add_argument("--device", help="torch device (default: cuda where there is one, else cpu)")
    return parser


def _index(options: argparse.Namespace) -> None:
    list_images(options.folder, leave_out=options.index)  # a wrong folder is said before the model is opened
    source = _source(options)
    extractor = _open(options, source, options.config_file)
    model = describe(extractor, source, options.config_file)
    done = index_images(options.folder, extractor, model, options.index)
    _list_unreadable(done.unreadable)
    changes = f"{done.embedded:,} embedded now, {done.removed:,} that are gone removed"
    print(f"{done.total:,} images in '{shown(done.folder)}': {changes}")


def _query(options: argparse.Namespace) -> None:
    index = read_index(options.index)
    for out in filter(None, (options.json, options.html)):
        check_output(out, options.images)
    source = _source(options) if options.model else index.model["source"]
    config_file = options.config_file if options.model else options.config_file or index.model["config_file"]
    if source is None:
        raise DPMError(f"index '{shown(index.folder)}' does not say where its model lies; name it with --model")
    extractor = _open(options, source, config_file)
    check_model(index, describe(extractor))
    answers, unreadable = search(options.images, index, extractor, options.top)
    for answer in answers:
        print("\n".join(_lines(answer)))
    _list_unreadable(unreadable)
    if options.json:
        write_file(options.json, json.dumps(_as_json(answers, unreadable, index), indent=1) + "\n")
    if options.html:
        write_file(options.html, answers_page(answers, index))


def _source(options: argparse.Namespace) -> str:
    which = options.checkpoint
    return options.model if which is None else str(run_checkpoint(options.model, which))


def _open(options: argparse.Namespace, source: str, config_file: str | None) -> DPMExtractor:
    return DPMExtractor(source, config_file=config_file, device=options.device, batch_size=options.batch_size)


def _lines(answer: Answer) -> Iterator[str]:
    yield f"{shown(answer.path)}{_hidden(answer)}"
    if answer.parts:
        yield f"   parts count {percentages(answer.parts)} of usual, from the top"
    name, matches = next(iter(answer.lists.items()))
    yield f"   rank   score{'   without mask' if name == 'mask on' else ''}   image"
    for match in matches:
        other = "" if match.other_rank is None else f"   {'rank ' + str(match.other_rank):>12}"
        yield f"   {match.rank:>4}  {match.score:>6.3f}{other}   {shown(match.name)}{_hidden(match)}"


def _hidden(seen: Answer | Match) -> str:
    return "" if seen.hidden is None else f"  ({seen.hidden:.0%} hidden)"


def _list_unreadable(lines: Sequence[str]) -> None:
    if lines:
        print(f"{len(lines)} files were passed over:", *lines, sep="\n   ", file=sys.stderr)


def _as_json(answers: Sequence[Answer], unreadable: Sequence[str], index: Index) -> dict:
    def each(match: Match) -> dict:
        named = {"rank": match.rank, "picture": match.name, "score": match.score}
        return named | {"other_rank": match.other_rank, "hidden": match.hidden}

    def of_query(answer: Answer) -> dict:
        parts = {"parts": answer.parts} if answer.parts else {}
        lists = {name.replace(" ", "_"): list(map(each, matches)) for name, matches in answer.lists.items()}
        return {"query": str(answer.path), "hidden": answer.hidden, **parts, **lists}

    return {
        "index": str(index.folder),
        "pictures": str(index.root),
        "model": index.model,
        "unreadable": list(unreadable),
        "queries": [of_query(answer) for answer in answers],
    }
