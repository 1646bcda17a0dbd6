#!/usr/bin/env python
"""Draw a sheet of a few identities of the synthetic benchmark: ``python tools/contact_sheet.py [OUTPUT.png]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # runs from any folder, installed or not

from dpm_plugin.data.synthetic import SyntheticSpec, generate
from dpm_plugin.data.synthetic.generate import FOLDERS, read_visibility
from dpm_plugin.data.synthetic.identity import id_ranges, lookalikes

SHEET = Path(__file__).resolve().parents[1] / "configs" / "synthetic_contact_sheet.png"
GAP, WIDE_GAP, LINE = 8, 16, 15  # pixels; LINE is the height of a line of text
NAMES = 92  # pixels for the names of the rows


def contact_sheet(root: str | Path, spec: SyntheticSpec, pids: Sequence[int]) -> Image.Image:
    """One named row for each identity: its gallery images, a wider gap, its queries with what hides them.

    Args:
        root: the data root; the data set is drawn where missing.
        pids: test identities.
    """
    folder = generate(spec, root)
    visibility = read_visibility(folder)
    step_x, step_y = spec.width + GAP, spec.height + LINE + GAP
    starts = {"gallery": NAMES, "query": NAMES + spec.gallery_images * step_x + WIDE_GAP}
    size = (starts["query"] + spec.query_images * step_x, 2 * LINE + len(pids) * step_y)
    sheet = Image.new("RGB", size, "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(10)
    for split, title in (("gallery", "gallery: nothing in the way"), ("query", "query: occluded")):
        draw.text((starts[split], GAP), title, "black", font)
    for row, pid in enumerate(pids):
        y = 2 * LINE + row * step_y
        group = lookalikes(spec, pid)
        kind = f"look-alikes\n{group[0]} to {group[-1]}" if len(group) > 1 else "like no other"
        draw.text((GAP, y), f"identity {pid}\n{kind}", "black", font)
        for split, start in starts.items():
            for column, path in enumerate(sorted((folder / FOLDERS[split]).glob(f"{pid:04d}_*.jpg"))):
                x = start + column * step_x
                with Image.open(path) as image:
                    sheet.paste(image, (x, y))
                record = visibility[f"{FOLDERS[split]}/{path.name}"]
                camera = f"camera {path.name.split('_')[1][1:]}"
                seen = f"{record['occluder']} {record['hidden']:.0%}" if split == "query" else camera
                draw.text((x, y + spec.height), seen, "black", font)
    return sheet


def main(argv: list[str] | None = None) -> None:
    """Draw identities of the default data set: a group of look-alikes, then others."""
    parser = argparse.ArgumentParser(description="Draw a sheet of a few identities of the synthetic benchmark.")
    parser.add_argument("output", nargs="?", default=SHEET, help="configs/synthetic_contact_sheet.png by default")
    parser.add_argument("--root", default="reid-data", help="folder of the data sets (default: %(default)s)")
    args = parser.parse_args(argv)
    spec = SyntheticSpec()
    pids = id_ranges(spec)["test"]
    chosen = [*pids[3:6], *(pids[-number] for number in (20, 11, 8))]
    # 128 colours keep it a small file.
    contact_sheet(args.root, spec, chosen).quantize(128).save(args.output, optimize=True)
    print(f"wrote {args.output}")


if __name__ == "__main__":
    main()
