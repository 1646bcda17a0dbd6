"""Command line of tools/search.py."""

import json
import sys

from dpm_plugin.apps.picture_index.identity import describe
from dpm_plugin.apps.picture_index.indexing import check_model, index_pictures
from dpm_plugin.apps.picture_index.page import answers_page
from dpm_plugin.apps.picture_index.querying import search
from dpm_plugin.apps.picture_index.reading import list_pictures
from dpm_plugin.apps.picture_index.store import FOLDER, find_index, read_index
from dpm_plugin.inference.extractor import DPMExtractor
from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import write_file
from dpm_plugin.utils.text import shown


def main(argv=None):
    """Returns the exit code: 0, 2 for an error in one line, 130 when interrupted."""
    options = _parser().parse_args(argv)
    said = "interrupted; an index keeps its finished batches, and the same command goes on"
    return exit_code(lambda: options.work(options), said)


def _parser():
    parser = Parser(prog="search", description="Find people in a folder of pictures of people.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    index = commands.add_parser("index", help="embed a folder of pictures; later only what is new or changed")
    index.add_argument("folder", metavar="FOLDER", help="pictures, one person in each; folders in it count too")
    index.add_argument(
        "--model", required=True, metavar="RUN_OR_CHECKPOINT", help="a run's data.save_dir, a checkpoint, or zoo:NAME"
    )
    index.add_argument("--index", metavar="FOLDER", help=f"where the index is kept (default: {FOLDER} in FOLDER)")
    index.set_defaults(work=_index)
    query = commands.add_parser("query", help="rank the pictures of an index")
    query.add_argument("images", nargs="+", metavar="IMAGE", help="pictures of whom to find")
    query.add_argument(
        "--index", required=True, metavar="FOLDER", help="the index, or the folder of pictures it lies in"
    )
    query.add_argument("--model", metavar="RUN_OR_CHECKPOINT", help="default: where the index says its model lies")
    query.add_argument("--top", type=int, default=20, help="length of a ranked list (default: 20)")
    query.add_argument("--json", metavar="FILE", help="write the results as JSON")
    query.add_argument("--html", metavar="FILE", help="write them as one page that needs no other file")
    query.set_defaults(work=_query)
    for command in (index, query):
        command.add_argument(
            "--config-file", metavar="FILE", help="yaml file with the settings of a checkpoint that lies in no run"
        )
        command.add_argument("--batch-size", type=int, default=32, help="pictures in one forward pass (default: 32)")
        command.add_argument("--device", help="torch device (default: cuda where there is one, else cpu)")
    return parser


def _index(options):
    list_pictures(options.folder, leave_out=options.index)  # a wrong folder is said before the model is opened
    extractor = _open(options, options.model, options.config_file)
    model = describe(extractor, options.model, options.config_file)
    done = index_pictures(options.folder, extractor, model, options.index, lambda text: print(text, flush=True))
    _list_unreadable(done.unreadable)
    print(
        f"{done.count:,} pictures in '{shown(done.folder)}': {done.embedded:,} embedded now, {done.removed:,} "
        "that are gone removed"
    )


def _query(options):
    folder = find_index(options.index)
    if folder is None:
        raise DPMError(f"there is no index in '{shown(options.index)}'; make one with tools/search.py index")
    index = read_index(folder)
    source = options.model or index.model["source"]
    config_file = options.config_file if options.model else options.config_file or index.model["config_file"]
    if source is None:
        raise DPMError(f"index '{shown(folder)}' does not say where its model lies; name it with --model")
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


def _open(options, source, config_file):
    return DPMExtractor(source, config_file=config_file, device=options.device, batch_size=options.batch_size)


def _lines(answer):
    hidden = "" if answer.hidden is None else f"  ({answer.hidden:.0%} hidden)"
    yield f"{shown(answer.path)}{hidden}"
    name, matches = answer.lists[0]
    yield f"   rank   score{'   without mask' if name == 'mask on' else ''}   picture"
    for match in matches:
        other = "" if match.other_rank is None else f"   {'rank ' + str(match.other_rank):>12}"
        hidden = "" if match.hidden is None else f"  ({match.hidden:.0%} hidden)"
        yield f"   {match.rank:>4}  {match.score:>6.3f}{other}   {shown(match.name)}{hidden}"


def _list_unreadable(lines):
    if lines:
        print(f"{len(lines)} files were passed over:", file=sys.stderr)
        for line in lines:
            print(f"   {line}", file=sys.stderr)


def _as_json(answers, unreadable, index):
    def each(match):
        return {
            "rank": match.rank,
            "picture": match.name,
            "score": match.score,
            "other_rank": match.other_rank,
            "hidden": match.hidden,
        }

    return {
        "index": str(index.folder),
        "pictures": str(index.root),
        "model": index.model,
        "unreadable": unreadable,
        "queries": [
            {
                "query": str(answer.path),
                "hidden": answer.hidden,
                **{name.replace(" ", "_"): [each(match) for match in matches] for name, matches in answer.lists},
            }
            for answer in answers
        ],
    }
