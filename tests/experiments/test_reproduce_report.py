"""Numbers over seeds, the published values, and how a page shows them."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dpm_plugin.apps.compare.page import add_command
from dpm_plugin.apps.compare.run import Run
from dpm_plugin.apps.compare.spread import mean_spread
from experiments.reproduce import published
from experiments.reproduce.plots import sweep_png, table_png
from experiments.reproduce.report import csv_table, markdown
from experiments.reproduce.tables import Row, Table
from helpers.reproduce import CONFIG, cells

RUNS = tuple(Run("model", CONFIG, "dpm_vit_tiny", (), seed) for seed in (1, 2, 3))


def results_of(values, gallery=12, mask=True, static=True):
    """results.json of each run: rank-1 and mAP alike, given in percent."""
    found = {}
    for run, value in zip(RUNS, values):
        row = {"rank1": value / 100, "mAP": value / 100, "cmc": [value / 100] * gallery}
        off = {"rank1": 0.1, "mAP": 0.1, "cmc": [0.1] * gallery}
        masked = {"after/on": row, "after/off": off, "after/shuffled": off}
        masked |= {"after/static": off} if static else {}
        rows = masked if mask else {"after/off": row}
        entry = {"headline": {"row": next(iter(rows)), **row}, "rows": rows, "phases": {"train": {"seconds": 60.0}}}
        entry |= {"masks": {"directions": value / 10, "parts": None, "overall": None, "mean": None}} if static else {}
        found[run] = {"run": {"config": {"train": {"max_epoch": 5}}}, "datasets": {"d": entry}}
    return found


def table(*rows):
    return Table("table3", "A title", rows, ("Occluded-Duke R-1",))


@given(st.lists(st.floats(0, 100), max_size=5))
def test_a_number_is_shown_as_mean_and_sample_deviation_and_never_with_a_spread_of_one_seed(numbers):
    text = mean_spread(numbers)
    if not numbers:
        assert text == "n/a"
    elif len(numbers) == 1:
        assert text == f"{numbers[0]:.1f}"
    else:
        assert text == f"{statistics.mean(numbers):.1f} ± {statistics.stdev(numbers):.1f}"


def test_a_page_shows_spread_gain_and_what_is_missing():
    rows = Row("measured", RUNS, None), Row("listed", (), published.TABLE3["baseline"])
    page = markdown(table(*rows), results_of([40, 50, 60]), "d", command="the command")
    assert cells(page, "measured") == ["measured", *["50.0 ± 10.0"] * 4, "n/a", "5", "60 s", "3", ""]
    assert cells(page, "listed") == ["listed", *["n/a"] * 4, "64.8", "", "", "", "DPM paper, Table 3"]
    assert cells(page, "measured, R-1")[5:] == [*["+40.0 ± 10.0"] * 3, "5.00 ± 1.00", "n/a", "n/a"]
    assert "```\nthe command\n```" in page and "![table3](table3.png)" in page


def test_runs_from_before_the_static_control_show_that_it_is_missing():
    page = markdown(table(Row("old", RUNS)), results_of([40, 50, 60], static=False), "d", command="c")
    gains = ["+40.0 ± 10.0", "+40.0 ± 10.0", *["n/a"] * 4]
    assert cells(page, "old, R-1")[4] == "n/a" and cells(page, "old, R-1")[5:] == gains


def test_a_rank_beyond_the_gallery_is_not_available():
    page = markdown(table(Row("one", RUNS[:1])), results_of([40], gallery=6, mask=False), "d", command="c")
    assert cells(page, "one")[1:5] == ["40.0", "40.0", "n/a", "40.0"] and "one, R-1" not in page


def test_a_bar_in_a_name_does_not_break_the_table():
    page = markdown(table(Row("a|b", RUNS[:1])), results_of([40]), "d", command="c")
    assert "| a\\|b | 40.0 |" in page


def test_the_csv_leaves_out_what_was_not_measured():
    text = csv_table(table(Row("listed", (), published.TABLE1["FPR"])), {}, "d")
    assert text.splitlines()[1:] == [
        'listed,published,Occluded-REID,R-1,78.3,,,,"DPM paper, Table 1"',
        'listed,published,Occluded-REID,mAP,68.0,,,,"DPM paper, Table 1"',
    ]


def test_plots_need_neither_spread_nor_published_values():
    rows = Row("one", RUNS[:1]), Row("listed", (), published.TABLE3["baseline"])
    found = results_of([40])
    assert table_png(table(*rows), found, "d").startswith(b"\x89PNG")
    sweep = table(rows[0])._replace(axes={"alpha": {0.5: "one"}, "beta": {0.1: "one"}})
    assert sweep_png(sweep, found, "d").startswith(b"\x89PNG")


def test_a_figures_page_gets_its_command_once(tmp_path):
    path = tmp_path / "figure3.md"
    path.write_text("# Figure\n")
    add_command(path, "the command")
    add_command(path, "the command")
    assert path.read_text().count("the command") == 1 and path.read_text().startswith("# Figure\n")


# ---- the paper ----


@pytest.mark.parametrize(
    "rows, methods, values",
    [
        (published.TABLE1, 15, 40),
        (published.TABLE2, 11, 44),
        (published.TABLE3, 4, 16),
        (published.TABLE4, 5, 20),
        (published.TABLE5, 4, 16),
    ],
)
def test_every_published_value_is_a_percentage_with_its_source(rows, methods, values):
    assert len(rows) == methods and sum(len(row.values) for row in rows.values()) == values
    for row in rows.values():
        assert row.source.startswith("DPM paper, Table ")
        assert all(30 < value < 100 for value in row.values.values())


def test_values_that_the_paper_prints_in_several_places_agree():
    full = {key: value for key, value in published.TABLE1["DPM"].values.items() if key.startswith("Occluded-Duke")}
    assert full.items() <= published.TABLE3["+DPM+HR+HEM"].values.items()
    assert published.TABLE5["Pn"].values == published.TABLE3["+DPM+HR+HEM"].values
    assert published.TABLE4["DPM S A"].values == published.TABLE3["+DPM"].values
    assert published.TABLE4["baseline S"].values == published.TABLE3["baseline"].values
    assert published.alpha_value(0.5).values.items() <= published.TABLE3["+DPM+HR"].values.items()
    assert published.beta_value(0.1) == published.TABLE3["+DPM+HR+HEM"] and published.alpha_value(0.3) is None
