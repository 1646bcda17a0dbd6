#!/usr/bin/env python
"""Draw what the masks of a run with parts count: ``python tools/mask_sheet.py RUN_FOLDER [OUTPUT.png]``.

Of the synthetic benchmark's queries the first one of each kind of occluder: the query, how much each part of it counts
by its mask, and the nearest gallery image without and with the mask.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder, installed or not

from PIL import Image, ImageDraw, ImageFont

from dpm_plugin.apps.query_page.parts import parts_panel
from dpm_plugin.apps.visualize.png import COLOURS
from dpm_plugin.apps.visualize.query_view import QueryView, Viewer
from dpm_plugin.data.synthetic.occluders import KINDS
from dpm_plugin.inference.run_extractor import Extractor
from dpm_plugin.utils.command import Parser, exit_code
from dpm_plugin.utils.errors import DPMError
from dpm_plugin.utils.files import check_output
from dpm_plugin.utils.images import read_image

SHEET = Path(__file__).resolve().parents[1] / "configs" / "mask_sheet.png"
SIZE = 72, 144  # width and height of an image in pixels
GAP, NAMES, LINE = 8, 96, 15  # pixels; NAMES for the names of the rows, LINE is the height of a line of text
ROWS = ("query", "what its\nmask counts", "nearest\nwithout mask", "nearest\nwith the mask")


def mask_sheet(viewer: Viewer, positions: Sequence[int]) -> Image.Image:
    """One column for each of the queries at ``positions`` of a run with parts."""
    step_x, step_y = SIZE[0] + GAP, SIZE[1] + GAP
    sheet = Image.new("RGB", (NAMES + len(positions) * step_x, LINE + GAP + len(ROWS) * step_y), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for row, name in enumerate(ROWS):
        pen.text((GAP, LINE + GAP + row * step_y), name, "black", font)
    for column, position in enumerate(positions):
        view, x = viewer.view(position), NAMES + column * step_x
        pen.text((x, GAP // 2), f"{view.occlusion['occluder']} {view.occlusion['hidden']:.0%}", "black", font)
        for row, (image, right) in enumerate(_images(viewer, view)):
            y = LINE + GAP + row * step_y
            sheet.paste(image, (x, y))
            if right is not None:  # the frame of a right match is the thicker one, too
                pen.rectangle((x, y, x + SIZE[0] - 1, y + SIZE[1] - 1), outline=COLOURS[right], width=5 if right else 2)
    return sheet


def _images(viewer: Viewer, view: QueryView) -> list[tuple[Image.Image, bool | None]]:
    """The images of a column, and of a match whether it is right."""
    query = read_image(view.path).resize(SIZE, Image.Resampling.LANCZOS)
    (counted,) = parts_panel(query, view.parts).tiles
    images: list[tuple[Image.Image, bool | None]] = [(query, None), (counted.image, None)]
    for ranking in (view.off, view.on):
        nearest = read_image(viewer.gallery.paths[ranking.order[0]]).resize(SIZE, Image.Resampling.LANCZOS)
        images.append((nearest, bool(ranking.right[0])))
    return images


def first_of_each_kind(viewer: Viewer) -> list[int]:
    """Positions of queries; DPMError where the data set does not know what hides them."""
    kinds = [viewer.dataset.visibility[path]["occluder"] for path in viewer.query.paths]
    return [kinds.index(kind) for kind in KINDS if kind in kinds]


def main(argv: Sequence[str] | None = None) -> int:
    """Return the exit code: 0, or 2 for an error in one line."""
    parser = Parser(prog="mask_sheet", description="Draw what the masks of a run with parts count.")
    parser.add_argument("run", metavar="RUN_FOLDER", help="of a model with parts, tested on the synthetic benchmark")
    parser.add_argument("output", nargs="?", default=SHEET, help="configs/mask_sheet.png by default")
    parser.add_argument("--root", help="folder that holds the data sets (default: the run's)")
    args = parser.parse_args(argv)
    return exit_code(lambda: _draw(args))


def _draw(args: argparse.Namespace) -> None:
    check_output(args.output, [args.run])
    run = Extractor(args.run, root=args.root)
    viewer = Viewer(run, channels=1, drivers="gradient")  # which are not drawn
    if run.model.part_features is None or not run.model.has_mask or not hasattr(viewer.dataset, "visibility"):
        raise DPMError(f"'{args.run}' is no run of a model with parts on the synthetic benchmark")
    # 128 colours keep it a small file.
    mask_sheet(viewer, first_of_each_kind(viewer)).quantize(128).save(args.output, optimize=True)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    sys.exit(main())
