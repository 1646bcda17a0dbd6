"""The same drawn people as Occluded-Duke, as a table and as a folder whose names a pattern reads."""

import csv
import shutil
from pathlib import Path

from dpm_plugin.data import SyntheticSpec
from dpm_plugin.data.own import read_people
from dpm_plugin.data.synthetic import generate
from helpers.data import draw

SPEC = dict(height=64, width=32, cameras=3, train_ids=4, train_images=4, test_ids=6, query_images=1)
SPEC |= dict(gallery_images=3, distractor_ids=2)
SPLITS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


def three_ways(root):
    """Below ``root``: Occluded_Duke, people.csv over its images, and people/{train,query,gallery} with other names."""
    drawn = generate(SyntheticSpec(**SPEC), root / "drawn", verbose=False)
    top, rows = root / "Occluded_Duke", []
    for split, folder in SPLITS.items():
        (source,) = [path for path in drawn.iterdir() if path.name in (split, folder)]
        shutil.copytree(source, top / folder)
        for path in sorted((top / folder).glob("*.jpg")):
            pid, camera, *_ = path.stem.split("_")
            rows.append((f"Occluded_Duke/{folder}/{path.name}", str(int(pid)), f"Platz {camera}", split))
            copy = root / "people" / split / f"p{pid}-{camera}-{path.name}"
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    write_csv(root / "people.csv", ("path", "pid", "camid", "split"), rows[::-1])


def write_csv(path, header, rows):
    """A table at ``path``, whose folder is made."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def draw_people(root, people=8, images=4, cameras=0):
    """Folders root/p0, root/p1, ... of drawn images; with ``cameras`` their names end in _c0, _c1, ..."""
    for person in range(people):
        for number in range(images):
            suffix = f"_c{number % cameras}" if cameras else ""
            draw(Path(root) / f"p{person}" / f"{number}{suffix}.jpg", (person * 20, number * 30, 90), (16, 32))
    return root


def problems(name, root=""):
    """[(kind, text)] of what is wrong with the people of ``name``."""
    return [(problem.kind, problem.text) for problem in read_people(str(name), root).problems]
