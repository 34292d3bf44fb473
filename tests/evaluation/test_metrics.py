"""Metrics against torch-fidelity's own way, closed forms and invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch_fidelity
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import Dataset
from torch_fidelity.feature_extractor_base import FeatureExtractorBase

from fusedream_nb.evaluation import metrics


class Pixels(FeatureExtractorBase):
    """Sixteen linear features of a picture, and ten more as logits."""

    @staticmethod
    def get_provided_features_list():
        return ("features", "logits")

    @staticmethod
    def get_default_feature_layer_for_metric(metric):
        return "logits" if metric == "isc" else "features"

    @staticmethod
    def can_be_compiled():
        return False

    @staticmethod
    def get_dummy_input_for_compile():
        return torch.zeros(2, 3, 4, 4, dtype=torch.uint8)

    def __init__(self, name, features_list, **kwargs):
        super().__init__(name, features_list)
        rng = torch.Generator().manual_seed(1)
        self.register_buffer("first", torch.randn(48, 16, generator=rng) / 500)
        self.register_buffer("second", torch.randn(48, 10, generator=rng) / 500)

    def forward(self, x):
        flat = x.flatten(1).float()
        every = {"features": flat @ self.first, "logits": flat @ self.second}
        return tuple(every[name] for name in self.features_list)


class Pictures(Dataset):
    def __init__(self, n, seed, top):
        rng = torch.Generator().manual_seed(seed)
        self.tensor = torch.randint(top, (n, 3, 4, 4), generator=rng, dtype=torch.uint8)

    def __len__(self):
        return len(self.tensor)

    def __getitem__(self, index):
        return self.tensor[index]


@pytest.mark.filterwarnings("ignore")
def test_numbers_are_those_that_torch_fidelity_gives_for_the_pictures():
    ours, real = Pictures(400, 2, 200), Pictures(500, 3, 256)
    torch_fidelity.register_feature_extractor("pixels", Pixels)
    theirs = torch_fidelity.calculate_metrics(
        input1=ours, input2=real, feature_extractor="pixels", cuda=False, cache=False, verbose=False,
        isc=True, fid=True, kid=True, prc=True, rng_seed=0, isc_splits=10, samples_shuffle=True,
        kid_subsets=metrics.SUBSETS, kid_subset_size=400, save_cpu_ram=True,
    )  # fmt: skip
    network = Pixels("pixels", ["features", "logits"])
    (x, y), (reference, _) = network(ours.tensor), network(real.tensor)
    near = metrics.precision_recall(x, reference)
    assert (metrics.kid(x, reference)) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-4)
    assert metrics.fid(x, reference) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-4)
    assert metrics.inception_score(y)[0] == pytest.approx(theirs["inception_score_mean"], rel=1e-4)
    assert near == pytest.approx((theirs["precision"], theirs["recall"]), rel=1e-4)
    assert 0 < near[0] < 1 or 0 < near[1] < 1  # not all alike: there is something to compare


def normal(n, d, seed):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@given(shift=st.lists(st.floats(-3, 3), min_size=4, max_size=4), scale=st.floats(0.2, 4))
@settings(max_examples=25, deadline=None)
def test_fid_of_a_shifted_and_stretched_cloud_is_the_closed_form(shift, scale):
    x, v = normal(60, 4, 0), torch.tensor(shift, dtype=torch.float64)
    moved = scale * (x - x.mean(0)) + x.mean(0) + v
    trace = float(torch.cov(x.T).trace())  # tr(Σ + s²Σ - 2sΣ) = (1 - s)² tr Σ
    expected = float(v.square().sum()) + (1 - scale) ** 2 * trace
    assert metrics.fid(moved, x) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_a_rotation_of_both_changes_nothing():
    x, y = normal(90, 6, 1), 1.3 * normal(80, 6, 2) + 0.2
    q = torch.linalg.qr(normal(6, 6, 3)).Q
    for metric in (metrics.fid, metrics.kid, metrics.precision_recall):
        assert metric(x @ q, y @ q) == pytest.approx(metric(x, y), rel=1e-6)


def test_the_inception_score_lies_between_one_and_the_number_of_classes():
    sure = 100 * torch.eye(8).repeat(50, 1)
    assert metrics.inception_score(sure, splits=1)[0] == pytest.approx(8, rel=1e-6)
    assert metrics.inception_score(torch.randn(1, 8).repeat(50, 1))[0] == pytest.approx(1, rel=1e-6)


def test_kid_of_one_law_is_zero_within_its_spread_and_grows_with_the_distance():
    draws = [metrics.kid(normal(200, 8, i), normal(200, 8, 100 + i), 1) for i in range(20)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / 20**0.5
    assert min(draws) < 0  # unbiased: some are below
    near, far = (metrics.kid(normal(200, 8, 0) + shift, normal(200, 8, 1)) for shift in (0.3, 0.6))
    assert 0 < near < far


def test_precision_and_recall_tell_a_narrow_law_from_a_wide_one():
    wide, narrow = normal(400, 3, 0), 0.2 * normal(400, 3, 1)
    precision, recall = metrics.precision_recall(narrow, wide)
    assert precision > 0.95 and recall < 0.5
    assert metrics.precision_recall(wide, narrow) == (recall, precision)
    assert metrics.precision_recall(wide, wide) == (1, 1)


def test_kid_leads_and_a_warning_tells_why_where_pictures_are_few(rng):
    x, y = normal(60, 4, 0), normal(70, 4, 1)
    with pytest.warns(UserWarning, match="60 pictures, fewer than 2,048"):
        found = metrics.of_pictures(x, x, y, rng)
    assert list(found) == ["KID", "FID", "IS", "precision", "recall"]
    assert found["FID"].value == metrics.fid(x, y)
    assert all(e.low < e.value < e.high for e in list(found.values())[:3])
    assert all(0 <= e.low <= e.value <= e.high <= 1 for e in list(found.values())[3:])


@pytest.mark.filterwarnings("error")
def test_is_leads_where_pictures_are_many_and_intervals_can_be_left_out(rng):
    x, y = normal(2048, 2, 0), normal(2048, 2, 1)
    found = metrics.of_pictures(x, x, y, rng, halves=0)
    assert next(iter(found)) == "IS" and all(np.isnan(e.low) and np.isnan(e.high) for e in found.values())


def test_the_interval_from_halves_is_as_wide_as_new_draws_spread():
    """Of the mean cosine-like number FID: the halves' spread against that of forty fresh samples."""
    reference, rng = normal(300, 3, 0), torch.Generator().manual_seed(0)
    fresh = np.std([metrics.fid(1.5 * normal(300, 3, 10 + i), reference) for i in range(40)])
    x = 1.5 * normal(300, 3, 5)
    with pytest.warns(UserWarning):
        found = metrics.of_pictures(x, x, reference, rng, halves=40)["FID"]
    assert 0.5 < (found.high - found.low) / 2 / 1.96 / fresh < 2


def test_the_bootstrap_of_a_mean_is_the_normal_interval(rng):
    values = normal(400, 1, 7)[:, 0]
    found, error = metrics.mean_interval(values, rng), float(values.std()) / 20
    assert found.value == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(found.value - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(found.value + 1.96 * error, abs=0.2 * error)
    assert str(metrics.mean_interval(torch.ones(5), rng)) == "1 [1, 1]"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: metrics.fid(torch.zeros(3, 2), torch.zeros(3, 4)), r"\[n, d\] and \[m, d\]"),
        (lambda: metrics.kid(torch.zeros(1, 2), torch.zeros(3, 2)), "requires 2 pictures"),
        (lambda: metrics.precision_recall(torch.zeros(4, 2), torch.zeros(9, 2)), "requires 5 pictures"),
        (lambda: metrics.inception_score(torch.zeros(3, 2)), "split into 10"),
        (lambda: metrics.mean_interval(torch.zeros(0), torch.Generator()), "no values"),
        (lambda: metrics.of_pictures(*[torch.zeros(5, 2)] * 3, torch.Generator()), "at least 20"),
    ],
)
def test_what_cannot_be_measured_is_told(call, words):
    with pytest.raises(ValueError, match=words):
        call()
