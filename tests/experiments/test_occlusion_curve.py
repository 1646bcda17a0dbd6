"""The occlusion curve: redrawn queries are the benchmark's own, a point is what a naive evaluation finds."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.functional import normalize, resize, to_tensor

from dpm_plugin import DPMError
from dpm_plugin.config.arguments import synthetic_spec
from dpm_plugin.data.synthetic import Occluder, generate, render
from dpm_plugin.data.synthetic.generate import relative_path
from dpm_plugin.data.synthetic.scene import camera
from dpm_plugin.method.retrieval import shuffled_masks
from experiments.reproduce import occlusion, redrawn
from experiments.reproduce.occlusion import occlusion_curve
from experiments.reproduce.redrawn import query_rows, redrawn_queries
from helpers.reproduce import read_csv
from helpers.runs import change as edit_checkpoint
from helpers.runs import finished_run

pytestmark = pytest.mark.slow

SHARES, KINDS = (0.3, 0.6), ("any", "wall", "corner")


@pytest.fixture(scope="module", autouse=True)
def few_sets():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(occlusion, "SHARES", SHARES)
        patch.setattr(occlusion, "DRAWN_KINDS", KINDS)
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def runs(root, tmp_path_factory):
    """{name: (folder, model, config)}: two seeds of DPM, one with parts, one baseline."""
    folder = tmp_path_factory.mktemp("runs")
    changes = {"dpm-1": {}, "dpm-2": {"train__seed": 2}, "baseline": {"model__name": "vit_baseline_tiny"}}
    changes["parts"] = {"vit__parts": 2}
    # After one epoch all features are almost the same, and rounding would decide the ranks.
    done = {name: finished_run(folder / name, root, train__max_epoch=15, **change) for name, change in changes.items()}
    for name in ("dpm-1", "dpm-2", "parts"):  # as it starts, the mask generator gives every channel the same
        model = done[name][1]
        for linear in filter(None, (model.mask_generator.linear, model.mask_generator.part_linear)):
            torch.nn.init.normal_(linear.weight, std=2)
        path = done[name][0] / "model" / "last.pth.tar"
        checkpoint = torch.load(path, weights_only=True)
        torch.save({**checkpoint, "state_dict": model.state_dict()}, path)
    return done


@pytest.fixture(scope="module")
def spec(runs):
    return synthetic_spec(runs["dpm-1"][2])


@pytest.fixture(scope="module")
def curve(runs, root, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new" / "folder"
    folders = [runs[name][0] for name in ("dpm-1", "dpm-2")], [runs["baseline"][0]], [runs["parts"][0]]
    return occlusion_curve(*folders, out, root=root), out


def point(curve, series, kind, share):
    (found,) = [p for p in curve[0]["points"] if (p["series"], p["kind"], p["share"]) == (series, kind, share)]
    return found


# ---- queries drawn again ----


def test_drawn_as_planned_a_query_is_the_file_of_the_data_set_byte_for_byte(spec, root, tmp_path):
    folder = generate(spec, root)
    rows = query_rows(spec)
    got = redrawn_queries(spec, tmp_path, rows, "as planned")
    visibility = json.loads((folder / "visibility.json").read_text())
    names = [relative_path(spec, "query", *row) for row in rows]
    assert sorted(names) == sorted(name for name in visibility if name.startswith("query/"))
    assert got.jpegs == [(folder / name).read_bytes() for name in names]
    labels = [f"query/{pid:04d}_c{camid + 1}" for pid, camid in zip(got.pids, got.camids)]
    assert labels == [name[:13] for name in names]
    assert got.hidden.tolist() == pytest.approx([visibility[name]["hidden"] for name in names], abs=1e-4)
    assert got.kinds.tolist() == [visibility[name]["occluder"] for name in names]


def same(a, b):
    return a.jpegs == b.jpegs and all(np.array_equal(x, y) for x, y in zip(a[1:], b[1:]))


def test_a_set_is_drawn_once_and_a_damaged_file_again(spec, tmp_path, monkeypatch):
    rows, occluder = query_rows(spec)[:3], Occluder("car", 0.3, 0.4)
    first = redrawn_queries(spec, tmp_path, rows, occluder)
    drawn = []
    monkeypatch.setattr(redrawn, "render", lambda *a, **k: drawn.append(a) or render(*a, **k))
    assert same(redrawn_queries(spec, tmp_path, rows, occluder), first) and not drawn
    others = query_rows(spec)[1:4]  # as many, but not the same queries
    got = redrawn_queries(spec, tmp_path, others, occluder)
    assert len(drawn) == 3 and got.pids.tolist() == [pid for pid, _ in others]
    (file,) = tmp_path.rglob("*.npz")
    for content in (b"", b"no archive", file.read_bytes()[:-100]):
        file.write_bytes(content)
        drawn.clear()
        assert same(redrawn_queries(spec, tmp_path, rows, occluder), first) and len(drawn) == 3
    assert len(list(file.parent.iterdir())) == 1  # nothing temporary is left


def test_a_root_that_cannot_be_written_costs_only_the_cache(spec, tmp_path):
    (tmp_path / "synthetic_occluded").touch()
    rows = query_rows(spec)[:2]
    assert len(redrawn_queries(spec, tmp_path, rows, None).jpegs) == 2


def test_the_data_set_stays_as_it_was_written(curve, spec, root):
    assert generate(spec, root).is_dir()  # refuses a changed folder


# ---- a point of the curve ----


def embed(run, file, camid):
    _, model, config = run
    with Image.open(file) as image:
        pixels = to_tensor(resize(image.convert("RGB"), [config.data.height, config.data.width]))
    pixels = normalize(pixels, config.data.norm_mean, config.data.norm_std)
    with torch.no_grad():
        return model.embed(pixels[None], torch.tensor([camid]))


def naive_accuracy(run, spec, root, occluder, keep=None, mask=None):
    """Rank-1 and mAP by loops; ``mask`` None for off, "on" or "shuffled"."""
    folder = generate(spec, root)
    gallery = []
    for path in sorted((folder / "bounding_box_test").glob("*.jpg")):
        pid, camid = int(path.name[:4]), int(path.name[6]) - 1
        gallery.append((embed(run, path, camid).embedding[0], pid, camid))
    queries = []
    for pid, index in query_rows(spec):
        pixels, _, kind, *_ = render(spec, "query", pid, index, occluder=occluder)
        camid = int(relative_path(spec, "query", pid, index)[len("query/0001_c")]) - 1
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=camera(spec.seed, spec.cameras, camid).quality)
        if keep in (None, kind):
            queries.append((embed(run, file, camid), pid, camid))
    masks = [torch.ones(len(gallery[0][0])) for _ in queries]
    if mask:
        masks = torch.cat([embedding.mask for embedding, _, _ in queries])
        masks = shuffled_masks(masks) if mask == "shuffled" else masks
    first, precisions = [], []
    for (embedding, pid, camid), m in zip(queries, masks):
        feature = embedding.embedding[0]
        ranked = sorted(
            (1 - torch.cosine_similarity(feature, m * other, dim=0).item(), p == pid)
            for other, p, c in gallery
            if (p, c) != (pid, camid)
        )
        hits = [position for position, (_, hit) in enumerate(ranked, start=1) if hit]
        first.append(hits[0] == 1)
        precisions.append(np.mean([number / position for number, position in enumerate(hits, start=1)]))
    return np.mean(first), np.mean(precisions)


@pytest.mark.parametrize(
    "series, name, mask",
    [
        ("DPM, mask on", "dpm-1", "on"),
        ("DPM, mask off", "dpm-1", None),
        ("DPM, shuffled masks", "dpm-1", "shuffled"),
        ("baseline", "baseline", None),
    ],
)
def test_share_0_is_the_evaluation_of_unoccluded_queries_by_hand(curve, runs, spec, root, series, name, mask):
    got = point(curve, series, "none", 0)
    rank1, mAP = naive_accuracy(runs[name], spec, root, None, mask=mask)
    assert (got["rank1_runs"][0], got["mAP_runs"][0]) == pytest.approx((rank1, mAP), abs=1e-5)
    assert (got["hidden"], got["queries"]) == (0, 8)


def test_a_share_is_drawn_within_its_bounds_and_evaluated_without_the_queries_of_another_kind(curve, runs, spec, root):
    occluder = Occluder("corner", 0.55, 0.65)
    drawn = [render(spec, "query", *row, occluder=occluder) for row in query_rows(spec)]
    hidden = [each.hidden for each in drawn if each.occluder == "corner"]
    got = point(curve, "DPM, mask on", "corner", 0.6)
    assert 2 <= len(hidden) < 8  # the case has both: corners, and walls that took their place
    assert got["queries"] == len(hidden) and got["hidden"] == pytest.approx(np.mean(hidden))
    expected = naive_accuracy(runs["dpm-2"], spec, root, occluder, keep="corner", mask="on")
    assert (got["rank1_runs"][1], got["mAP_runs"][1]) == pytest.approx(expected, abs=1e-5)


def test_the_series_differ_so_that_the_tests_above_tell_them_apart(curve):
    maps = {series: point(curve, series, "none", 0)["mAP_runs"][0] for series in occlusion.SERIES}
    assert len(set(maps.values())) == len(maps) == 7


def test_a_point_is_mean_and_sample_deviation_over_the_runs(curve):
    numbers, _ = curve
    assert numbers["runs"] == {"DPM": 2, "parts": 1, "baseline": 1} and numbers["queries"] == 8
    assert len(numbers["points"]) == 7 * (1 + 3 * 2)  # series x (unoccluded, kinds x shares above 0)
    for p in numbers["points"]:
        for metric in ("rank1", "mAP"):
            values = p[f"{metric}_runs"]
            assert len(values) == (2 if p["series"].startswith("DPM") else 1)
            assert p[metric] == pytest.approx(sum(values) / len(values))
            spread = abs(values[0] - values[-1]) / 2**0.5  # of two values; 0 for one
            assert p[f"{metric}_std"] == pytest.approx(spread)


# ---- what is written ----


def test_every_point_is_in_the_csv_and_the_plot_is_drawn(curve):
    numbers, out = curve
    rows = read_csv(out / "occlusion.csv")
    assert [(row["series"], row["kind"]) for row in rows] == [(p["series"], p["kind"]) for p in numbers["points"]]
    for name in ("share", "hidden", "queries", "rank1", "rank1_std", "mAP", "mAP_std"):
        assert [float(row[name]) for row in rows] == [p[name] for p in numbers["points"]]
    with Image.open(out / "occlusion.png") as plot:
        assert plot.width > 1000


def test_the_text_has_a_line_for_every_share_and_kind_and_the_gain_within_a_run(curve):
    text = (curve[1] / "occlusion.md").read_text(encoding="utf-8")
    p = point(curve, "DPM, mask on", "any", 0.3)
    assert f"| {100 * p['hidden']:.1f} | 8 | {100 * p['rank1']:.1f} ± {100 * p['rank1_std']:.1f} / " in text
    for kind in KINDS:
        assert f"\n| {kind} | " in text
    gains = np.subtract(p["rank1_runs"], point(curve, "DPM, mask off", "any", 0.3)["rank1_runs"])
    assert f"| {100 * gains.mean():+.1f} ± {100 * gains.std(ddof=1):.1f} |" in text
    assert str(curve[1]) not in text


def test_the_baseline_alone_has_a_curve_too(runs, root, tmp_path):
    numbers = occlusion_curve([], [runs["baseline"][0]], [], tmp_path, root=root)
    assert {p["series"] for p in numbers["points"]} == {"baseline"}
    assert "What the mask adds" not in (tmp_path / "occlusion.md").read_text(encoding="utf-8")


# ---- mistakes ----


def edited(run, to, change):
    """A copy of the run with ``change(configuration)`` applied to its checkpoint."""
    shutil.copytree(run[0], to)
    edit_checkpoint(to / "model" / "last.pth.tar", lambda content: change(content["config"]))
    return to


@pytest.mark.parametrize(
    "section, setting, message",
    [
        ("data", {"targets": ["market1501"]}, "for synthetic_occluded only.*was tested on market1501"),
        ("synthetic", {"seed": 7}, "different drawings of synthetic_occluded"),
    ],
)
def test_another_data_set_and_another_drawing_are_an_error(runs, root, tmp_path, section, setting, message):
    folder = edited(runs["dpm-1"], tmp_path / "run", lambda config: config[section].update(setting))
    with pytest.raises(DPMError, match=message):
        occlusion_curve([runs["dpm-2"][0], folder], [], [], tmp_path / "out", root=root)


@pytest.mark.parametrize(
    "names, message",
    [
        ((["baseline"], []), "baseline.*has no mask; it cannot stand for DPM"),
        (([], ["dpm-1"]), "dpm-1.*has a mask; it cannot stand for baseline"),
        (([], []), "needs the folder of at least one finished run"),
    ],
)
def test_runs_that_fit_no_series_are_an_error(runs, root, tmp_path, names, message):
    with pytest.raises(DPMError, match=message):
        occlusion_curve(*([runs[name][0] for name in group] for group in names), [], tmp_path, root=root)


def test_an_output_folder_that_cannot_be_made_is_an_error(runs, root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DPMError, match="file' cannot be written"):
        occlusion_curve([runs["dpm-1"][0]], [], [], tmp_path / "file", root=root)
