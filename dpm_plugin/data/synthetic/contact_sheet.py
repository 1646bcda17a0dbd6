"""A picture of a few identities: ``python -m dpm_plugin.data.synthetic.contact_sheet [OUTPUT.png]``."""

import sys
from pathlib import Path

from PIL import Image

from .generate import FOLDERS, generate
from .identity import id_ranges
from .spec import SyntheticSpec

_GAP = 3


def contact_sheet(root, spec, ids):
    """One row for each identity: its gallery images, a wider gap, its queries.

    Args:
        root: the data root; the data set is drawn where missing.
        spec: a ``SyntheticSpec``.
        ids: test identity numbers.

    Returns:
        An RGB picture.
    """
    folder = generate(spec, root)
    rows = []
    for pid in ids:
        row = [sorted((folder / FOLDERS[split]).glob(f"{pid:04d}_*.jpg")) for split in ("gallery", "query")]
        rows.append(row)
    columns = spec.gallery_images + spec.query_images
    step_x, step_y = spec.width + _GAP, spec.height + _GAP
    sheet = Image.new("RGB", (columns * step_x + 3 * _GAP, len(rows) * step_y + _GAP), "white")
    for i, (gallery, queries) in enumerate(rows):
        for j, path in enumerate(gallery + queries):
            x = _GAP + j * step_x + (2 * _GAP if j >= len(gallery) else 0)
            with Image.open(path) as image:
                sheet.paste(image, (x, _GAP + i * step_y))
    return sheet


def main(output):
    """Draw the picture of the README from the default data set: a group of look-alikes, then others."""
    spec = SyntheticSpec()
    first, count = id_ranges(spec)["test"]
    ids = [first + 3, first + 4, first + 5, first + count - 20, first + count - 11, first + count - 8]
    # 128 colours keep it a small file.
    sheet = contact_sheet("reid-data", spec, ids).quantize(128)
    sheet.save(output, optimize=True)
    print(f"wrote {output}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).with_suffix(".png"))
