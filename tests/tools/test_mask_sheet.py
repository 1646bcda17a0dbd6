"""tools/mask_sheet.py: a column for each kind of occluder, of a run whose masks have parts."""

import mask_sheet
import numpy as np
import pytest
from PIL import Image

from dpm_plugin.apps.visualize.query_view import Viewer
from dpm_plugin.inference.run_extractor import Extractor
from helpers.scripts import check_mistake
from helpers.visualized import evaluated_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return evaluated_run(tmp_path_factory.mktemp("sheet"), "dpm_vit_parts_tiny", vit__parts=3)


def test_it_shows_the_first_query_of_each_kind_and_darkens_what_its_mask_ignores(run, tmp_path):
    assert mask_sheet.main([str(run), str(tmp_path / "sheet.png")]) == 0
    viewer = Viewer(Extractor(run), channels=1, drivers="gradient")
    positions = mask_sheet.first_of_each_kind(viewer)
    kinds = [viewer.dataset.visibility[path]["occluder"] for path in viewer.query.paths]
    assert sorted(kinds[position] for position in positions) == sorted(set(kinds))
    assert all(kinds[position] not in kinds[:position] for position in positions)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"), dtype=float)
    width, height = mask_sheet.SIZE
    tops = [mask_sheet.LINE + mask_sheet.GAP + row * (height + mask_sheet.GAP) for row in range(2)]
    for column, position in enumerate(positions):
        left = mask_sheet.NAMES + column * (width + mask_sheet.GAP) + width // 2  # right of the written numbers
        query, counted = (sheet[top : top + height, left : left + width // 2] for top in tops)
        for part, weight in enumerate(viewer.view(position).parts):
            rows = slice(part * height // 3 + 2, (part + 1) * height // 3 - 2)
            if weight < 0.8:
                assert counted[rows].mean() < query[rows].mean() - 2


def test_a_run_without_parts_is_refused_in_one_line(dpm_run, tmp_path, capsys):
    check_mistake(mask_sheet.main, [dpm_run, tmp_path / "sheet.png"], capsys, "no run of a model with parts")
