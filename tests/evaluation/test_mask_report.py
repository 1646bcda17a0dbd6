"""What is said of the queries' masks: naive counts are the oracles."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dpm_plugin.evaluation.mask_report import participation_ratio, rank_correlation, report_masks, visible_shares


def record(person, hidden):
    return {"hidden": sum(hidden), "occluder": "car", "person_bands": person, "hidden_bands": hidden}


@pytest.mark.parametrize("count, width", [(40, 6), (6, 40)])
def test_the_participation_ratio_is_that_of_the_covariances_eigenvalues(count, width):
    mask = torch.rand(count, width, generator=torch.Generator().manual_seed(0))
    values = np.linalg.eigvalsh(np.cov(mask.double().numpy().T))
    assert participation_ratio(mask) == pytest.approx(values.sum() ** 2 / (values**2).sum())
    assert participation_ratio(torch.full((3, 4), 0.5)) == 0
    assert participation_ratio(torch.rand(9, 1) * torch.tensor([[1.0, -2.0, 3.0]])) == pytest.approx(1)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=12))
def test_rank_correlation_is_that_of_mean_ranks(pairs):
    def naive_ranks(values):
        return [sum(v < value for v in values) + (sum(v == value for v in values) + 1) / 2 for value in values]

    left, right = map(list, zip(*pairs))
    found = rank_correlation(np.array(left), np.array(right))
    if len(set(left)) == 1 or len(set(right)) == 1:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(np.corrcoef(naive_ranks(left), naive_ranks(right))[0, 1])


def test_a_stripe_is_as_visible_as_its_share_of_the_person_and_unknown_where_there_is_none():
    one = record([0.0, 0.2, 0.2, 0.2, 0.4, 0.0], [0.0, 0.0, 0.1, 0.2, 0.0, 0.0])
    assert visible_shares([one], 3).tolist() == [[1.0, pytest.approx(0.25), 1.0]]
    assert np.isnan(visible_shares([one], 6)[0, [0, 5]]).all()
    # A stripe of four cuts the second band in halves.
    assert visible_shares([one], 4)[0, 1] == pytest.approx(1 - 0.1 / 0.3)


def test_a_mask_that_copies_the_visible_shares_correlates_fully_and_its_opposite_not():
    rng = np.random.default_rng(0)
    records = [record([1 / 6] * 6, list(rng.random(6) / 6)) for _ in range(20)]
    shares = torch.from_numpy(visible_shares(records, 3))
    report = report_masks(torch.rand(20, 9), shares, records)
    assert report.parts == pytest.approx([1, 1, 1]) and report.overall == pytest.approx(1)
    opposite = report_masks(torch.rand(20, 9), -shares, records)
    assert opposite.mean == pytest.approx(-1) and "-1.00" in str(opposite)
    # Within each part the masks follow, between the parts they do not.
    mixed = report_masks(torch.rand(20, 9), shares + 5 * torch.arange(3), records)
    assert mixed.mean == pytest.approx(1) and mixed.overall < 0.7


def test_without_parts_or_bands_only_the_directions_are_said():
    mask, parts = torch.rand(5, 4), torch.rand(5, 2)
    old = [{"hidden": 0.1, "occluder": "car"}] * 5
    for report in (report_masks(mask, None, []), report_masks(mask, parts, []), report_masks(mask, parts, old)):
        assert report.parts is None and report.mean is None and "follow" not in str(report)
    never_hidden = [record([0.5, 0.5], [0.0, 0.0])] * 5
    assert report_masks(mask, parts, never_hidden).parts is None
