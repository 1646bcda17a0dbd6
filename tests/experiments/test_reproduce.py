"""tools/reproduce.py: every subcommand on real tiny runs, what it writes, and one line for every mistake."""

import json

import numpy as np
import pytest
import reproduce
import torch
from PIL import Image

from dpm_plugin.apps.compare import run
from dpm_plugin.inference.open_run import open_run
from dpm_plugin.method.masked_cosine import masked_cosine
from experiments.reproduce import make, tables
from experiments.reproduce.setting import make_setting
from helpers.reproduce import CONFIG, TINY, cells, read_csv, real_runs

pytestmark = pytest.mark.slow

STOCK = "osnet_x0_25"


class Bench:
    """One output folder for all commands, whose runs are real; speeds are made up, and figures noted, not drawn."""

    def __init__(self, folder, patch):
        self.folder, self.out, self.asked, self.figure = folder, folder / "out", [], None
        patch.setattr(make, "training_speed", self._training_speed)
        for name in ("figure3", "figure4", "occlusion_curve"):
            patch.setattr(make, name, self._figure)

    def _training_speed(self, run, *, root, threads, cache):
        self.asked.append((run.model, dict(run.overrides), threads))
        return {STOCK: 5.0, "vit_baseline_tiny": 2.0}.get(run.model, 3.0)  # seconds an epoch

    def _figure(self, *folders, root, device, images=None):
        *folders, out = folders
        self.figure = [folder if isinstance(folder, list) else [folder] for folder in folders]
        assert (out, root, device in ("cpu", "cuda")) == (self.out, str(self.folder / "data"), True)

    def run(self, what, *args):
        places = ["--config-file", CONFIG, "--root", str(self.folder / "data"), "--out", str(self.out)]
        return reproduce.main([what, *places, "--threads", "1", *args, *TINY])

    def page(self, name):
        return (self.out / f"{name}.md").read_text(encoding="utf-8")

    def seeds(self):
        return sorted(path.parent for path in self.out.glob("runs/*/seed-*/results.json"))

    def entry(self, name, seed):
        (path,) = self.out.glob(f"runs/{name}-*/seed-{seed}/results.json")
        return json.loads(path.read_text())["datasets"]["synthetic_occluded"]


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reproduce")
    with pytest.MonkeyPatch.context() as patch, real_runs(folder / "server") as script:
        patch.setattr(run, "PROGRAM", (str(script),))
        bench = Bench(folder, patch)
        assert bench.run("table3", "--seeds", "1", "2", "--jobs", "2") == 0
        yield bench


def check_png(path):
    with Image.open(path) as image:
        assert min(image.size) > 100 and np.asarray(image.convert("L")).std() > 5


# ---- every subcommand ----


def test_table3_shows_mean_and_spread_of_its_runs_beside_the_papers_values(bench):
    mAP = [100 * bench.entry("dpm_vit_tiny-beta0", seed)["headline"]["mAP"] for seed in (1, 2)]
    row = cells(bench.page("table3"), "+DPM+HR")
    assert row[4] == f"{np.mean(mAP):.1f} ± {np.std(mAP, ddof=1):.1f}"
    assert row[5:9] == ["71.0", "82.9", "87.2", "61.0"]
    assert row[9] == "2" and row[11:] == ["2", "DPM paper, Table 3"]
    check_png(bench.out / "table3.png")


def test_the_page_names_command_setting_and_seeds(bench):
    page = bench.page("table3")
    assert "python tools/reproduce.py table3 --config-file" in page and "--seeds 1 2" in page
    assert "configs/dpm_synthetic.yaml" in page and "32x16 images" in page and "seeds 1, 2" in page
    assert "`sampler.num_instances 2`" in page and f"torch {torch.__version__.partition('+')[0]}" in page


def test_the_page_shows_the_mask_on_off_and_shuffled_for_models_with_a_mask(bench):
    page = bench.page("table3")
    assert {"after/on", "after/off", "after/shuffled"} <= set(bench.entry("dpm_vit_tiny-beta0", 1)["rows"])
    line = cells(page, "+DPM+HR, R-1")
    assert (
        len(line) == 11
        and float(line[8].split(" ")[0]) >= 1
        and line[9:] == ["n/a", "n/a"]
        and "| baseline, R-1" not in page
    )


def test_the_csv_holds_every_seeds_value_and_every_published_one(bench):
    rows = read_csv(bench.out / "table3.csv")
    published = {(row["row"], row["metric"]): row for row in rows if row["kind"] == "published"}
    assert len(published) == 16 and published["baseline", "R-5"]["mean"] == "80.8"
    (measured,) = (row for row in rows if (row["row"], row["metric"], row["kind"]) == ("+DPM", "mAP", "measured"))
    values = [float(text.partition(":")[2]) for text in measured["values"].split()]
    assert len(values) == 2 and float(measured["mean"]) == pytest.approx(np.mean(values), abs=0.01)


def test_a_second_call_trains_nothing(bench, monkeypatch):
    monkeypatch.setattr(run, "PROGRAM", ("gone.py",))
    assert bench.run("table3", "--seeds", "1", "2") == 0


def test_table4_table5_and_figure5_share_the_runs_they_have_in_common(bench):
    before = len(bench.seeds())
    for name, args, more in (
        ("table4", (), 3),
        ("table5", (), 3),
        ("figure5", ("--alphas", "0.65", "0.5", "--betas", "0", "0.02", "0.1"), 2),
    ):
        assert bench.run(name, "--seeds", "1", *args) == 0
        check_png(bench.out / f"{name}.png")
        assert len(bench.seeds()) == before + more
        before += more
    assert cells(bench.page("table4"), "DPM S A")[5:9] == ["70.1", "82.8", "86.9", "59.9"]
    assert cells(bench.page("table5"), "Pn + Fn")[5:9] == ["69.5", "82.3", "86.8", "58.5"]
    assert cells(bench.page("table5"), "P")[1:5] == cells(bench.page("figure5"), "α = 0.65, β = 0.02")[1:5]
    assert cells(bench.page("figure5"), "α = 0.5, β = 0")[5:9] == ["71.0", "n/a", "n/a", "61.0"]


def test_table1_trains_the_others_as_long_as_dpm_and_lists_the_papers_rows(bench):
    bench.asked.clear()
    assert bench.run("table1", "--seeds", "1", "--models", STOCK) == 0
    page = bench.page("table1")
    assert [cells(page, name)[9] for name in ("DPM", "ViT baseline", "TransReID style", STOCK)] == ["2", "3", "3", "1"]
    # 2 epochs of 3 s each leave the others time for 3 epochs of 2 s and 1 of 5 s
    assert {model for model, _, _ in bench.asked} == {"dpm_vit_tiny", "vit_baseline_tiny", STOCK}
    plain = [overrides for model, overrides, _ in bench.asked if model == "vit_baseline_tiny"]
    assert {overrides.get("vit.camera_embedding", True) for overrides in plain} == {True, False}
    values = ["64.5", "53.6", "81.6", "72.1"]
    assert cells(page, "PAT*") == ["PAT*", *["n/a"] * 4, *values, "", "", "", "DPM paper, Table 1"]
    check_png(bench.out / "table1.png")


def test_table2_is_measured_on_the_drawn_benchmark_almost_without_occluders(bench):
    assert bench.run("table2", "--seeds", "1", "--models", STOCK, "--budget", "epochs") == 0
    page = bench.page("table2")
    assert {cells(page, name)[9] for name in ("DPM", "ViT baseline", STOCK)} == {"2"}
    assert "`synthetic.train_occluded 0.0`" in page and cells(page, "DPM")[5:9] == ["95.5", "89.7", "91.0", "82.6"]


@pytest.mark.parametrize(
    "name, betas", [("figure3", [[0.0]]), ("figure4", [[0.0], [0.02]]), ("occlusion", [[0.02], [0.02], [0.02]])]
)
def test_figures_get_the_folders_of_trained_runs_and_their_page_the_command(bench, name, betas):
    assert bench.run(name, "--seeds", "1") == 0
    opened = [[open_run(folder) for folder in group] for group in bench.figure]
    assert [[run.config.loss.dpm.beta for run in group] for group in opened] == betas
    if name == "occlusion":
        dpm, baseline, parts = (group[0].model for group in opened)
        assert (dpm.has_mask, baseline.has_mask, parts.feature_dim) == (True, False, 4 * dpm.feature_dim)
    assert f"python tools/reproduce.py {name} " in bench.page(name)


def test_parts_stand_beside_dpm_at_other_widths_and_in_the_time_that_they_take(bench):
    assert bench.run("parts", "--seeds", "1") == 0
    page = bench.page("parts")
    names = "baseline; baseline with parts; DPM; parts; 1 part, 96 channels; DPM, budget; baseline, budget".split("; ")
    names += [f"{part}, {width} channels each" for part, width in (("parts", 16), ("parts", 2), ("3 parts", 16))]
    assert all(cells(page, name)[1] for name in names)
    assert all(-1 <= float(found) <= 1 for found in cells(page, "parts, R-1")[9:])
    assert cells(page, "DPM, R-1")[9:] == ["n/a", "n/a"]
    assert bench.asked[-1][0] == "vit_baseline_tiny" and cells(page, "DPM, budget")[5] == cells(page, "DPM")[5]
    assert int(cells(page, "baseline, budget")[5]) > int(cells(page, "parts")[5])


def test_all_makes_everything_and_each_page_has_its_own_command(bench, monkeypatch):
    line = ("all", "--seeds", "1", "--models", STOCK, "--alphas", "0.8", "--betas", "0.005", "--budget", "epochs")
    with monkeypatch.context() as patch:
        patch.setattr(run, "PROGRAM", ("gone.py",))  # what these alphas and betas ask for is still to be trained
        assert bench.run(*line) == 2
    assert bench.run(*line) == 0
    for name in make.WHAT:
        assert f"python tools/reproduce.py {name} " in bench.page(name)


# ---- mistakes ----


@pytest.mark.parametrize(
    "args, expected",
    [
        (["table9"], "'table5'"),
        (["table3", "--dataset", "ocluded_duke"], "'occluded_duke'"),
        (["table3", "--seeds", "x"], "--seeds"),
        (["table3", "--jobs", "0"], "--jobs"),
        (["table3", "--epochs", "0"], "--epochs"),
        (["table3", "train.lr"], "pairs"),
        (["table3", "train.lrr", "1"], "'train.lr'"),
        (["table3", "train.seed", "1"], "--seeds"),
        (["table3", "data.save_dir", "x"], "--out"),
        (["table3", "model.name", "vit_baseline"], "no mask"),
        (["table3", "--config-file", "gone.yaml"], "gone.yaml"),
        (["table3", "data.targets", "[market1501, occluded_duke]"], "one data set"),
        (["table3", "--dataset", "market1501", "--root", "nowhere"], "Market-1501"),
    ],
)
def test_a_mistake_is_one_line_with_exit_code_2(capsys, tmp_path, monkeypatch, args, expected):
    monkeypatch.chdir(tmp_path)
    assert reproduce.main(args) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and expected in error


def test_a_failed_run_is_one_line_with_exit_code_2_that_names_its_log(bench, capsys, tmp_path, monkeypatch):
    (tmp_path / "main.py").write_text("import sys; sys.exit('error: no luck')")
    monkeypatch.setattr(run, "PROGRAM", (str(tmp_path / "main.py"),))
    assert bench.run("table3", "--seeds", "99", "--jobs", "4") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 4 of 4 runs failed") and error.count("\n") == 1
    assert "no luck" in error and "sweep.log" in error


def test_options_end_where_key_value_pairs_begin():
    args = reproduce.parse("table3 --seeds 1 2 train.lr 0.1 --jobs 2 test.eval_freq -1".split())
    assert (args.what, args.seeds, args.jobs) == ("table3", (1, 2), 2)
    assert args.opts == ["train.lr", "0.1", "test.eval_freq", "-1"]
    args = reproduce.parse("figure5 --alphas 0.2 .5 --betas 0 train.lr 1".split())
    assert (args.alphas, args.betas, args.opts) == ((0.2, 0.5), (0.0,), ["train.lr", "1"])


# ---- rows ----


def test_with_renormalisation_pn_is_p_to_the_last_bit_so_table5_need_not_train_both():
    generator = torch.Generator().manual_seed(1)
    x, w, m = (torch.rand(5, 7, generator=generator) - shift for shift in (0.5, 0.5, 0))
    for after, before in (("Pn", "P"), ("Pn+Fn", "P+F")):
        renormalised = masked_cosine(x, w, m, after, renormalise=True)
        assert torch.equal(renormalised, masked_cosine(x, w, m, before))
        assert not torch.allclose(renormalised, masked_cosine(x, w, m, after, renormalise=False))


def test_table3_and_4_take_the_parts_away_that_the_paper_takes_away():
    setting = make_setting()
    base, dpm, hierarchy, full = (row.runs[0].config() for row in tables.table3(setting).rows)
    assert base.model.name == "vit_baseline_tiny" and full == setting.config.clone()
    assert (dpm.vit.mask_blocks, dpm.loss.dpm.beta) == ([3], 0)
    assert (hierarchy.vit.mask_blocks, hierarchy.loss.dpm.beta) == ([1, 3], 0)
    heads = [
        (row.runs[0].config().loss.dpm.cls, row.runs[0].config().loss.dpm.mask)
        for row in tables.table4(setting).rows[2:]
    ]
    assert heads == [("softmax", "softmax"), ("margin", "margin"), ("softmax", "margin")]
    assert tables.table4(setting).rows[4].runs == tables.table3(setting).rows[1].runs


def test_table1_baselines_differ_in_camera_embedding_and_stride():
    asked = {}
    tables.comparison("table1", make_setting(), (), lambda label, model, changes: asked.update({label: changes}) or ())
    plain, transreid = asked.values()
    assert plain == {"vit.camera_embedding": False, "vit.stride": 16}
    assert transreid == {"vit.camera_embedding": True, "vit.stride": 12}


def test_depth_and_patch_come_from_the_backbone_where_the_config_names_none():
    assert make_setting("occluded_duke").architecture == (12, 16)


def test_figure5_sweeps_the_papers_grid_at_the_papers_weights_and_one_around_other_weights():
    assert tables.default_betas(make_setting("occluded_duke").config) == (0, 0.05, 0.1, 0.15, 0.2)
    assert tables.default_alphas(make_setting("occluded_duke").config) == (0.1, 0.3, 0.5, 0.7, 0.9)
    own = make_setting(overrides=["loss.dpm.alpha", "0.8", "loss.dpm.beta", "0.005"]).config
    assert tables.default_betas(own) == (0, 0.0025, 0.005, 0.01, 0.05, 0.1)
    assert tables.default_alphas(own) == (0.2, 0.35, 0.5, 0.65, 0.8, 0.9)


@pytest.mark.parametrize(
    "dataset, source, file",
    [
        (None, "synthetic_occluded", "dpm_synthetic"),
        ("occluded_duke", "occluded_duke", "dpm_occduke"),
        ("partial_reid", "market1501", "dpm_occreid"),
        ("p_dukemtmc", "p_dukemtmc", "dpm_occduke"),
        ("msmt17", "msmt17", "dpm_occduke"),
    ],
)
def test_a_data_set_brings_its_config_and_one_without_training_images_trains_on_market(dataset, source, file):
    setting = make_setting(dataset)
    assert setting.config.data.sources == [source] and setting.config_file.endswith(f"{file}.yaml")
    assert setting.config.data.targets == [dataset or "synthetic_occluded"]
