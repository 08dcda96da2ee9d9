"""Frechet distance: closed forms, scipy's root, singular covariances; pairs of subjects."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from diffedit_jax.errors import UserError
from diffedit_jax.metrics import (
    features,
    frechet_distance,
    mean_distance,
    statistics,
    subject_fidelity,
)

RNG = np.random.default_rng(0)


def test_gaussians_that_commute_have_a_closed_form():
    """Diagonal covariances: |m|^2 + sum (s_a - s_b)^2."""
    mean, a, b = RNG.normal(size=8), RNG.random(8), RNG.random(8)
    found = frechet_distance((mean, np.diag(a**2)), (np.zeros(8), np.diag(b**2)))
    np.testing.assert_allclose(found, (mean**2).sum() + ((a - b) ** 2).sum(), rtol=1e-10)


def test_scipys_root_of_the_product():
    x, y = RNG.normal(size=(400, 16)), RNG.normal(size=(300, 16)) @ RNG.normal(size=(16, 16)) + 1
    (ma, ca), (mb, cb) = statistics(x), statistics(y)
    np.testing.assert_allclose(ca, np.cov(x.T), atol=1e-12)
    wanted = ((ma - mb) ** 2).sum() + np.trace(ca + cb - 2 * sqrtm(ca @ cb).real)
    np.testing.assert_allclose(frechet_distance(x, y), wanted, rtol=1e-9)
    np.testing.assert_allclose(mean_distance(x, y), ((ma - mb) ** 2).sum(), rtol=1e-10)


def test_fewer_pictures_than_features():
    """Singular covariances: equal sets are at 0, a shift is its square, and order is nothing."""
    x, shift = RNG.normal(size=(5, 64)), RNG.normal(size=64)
    assert frechet_distance(x, x) < 1e-6
    np.testing.assert_allclose(frechet_distance(x, x + shift), (shift**2).sum(), rtol=1e-6)
    y = RNG.normal(size=(7, 64))
    np.testing.assert_allclose(frechet_distance(x, y), frechet_distance(y, x), rtol=1e-9)


def test_features_of_batches_are_joined():
    found = features([np.ones((2, 4, 4, 3)), np.zeros((1, 4, 4, 3))], lambda x: x.mean((1, 2)))
    np.testing.assert_array_equal(found, [[1] * 3, [1] * 3, [0] * 3])
    with pytest.raises(UserError, match="no pictures"):
        features([], None)


@pytest.mark.parametrize("bad", [np.ones((1, 4)), np.ones(4), np.full((3, 2), np.nan)])
def test_what_has_no_statistics_is_refused(bad):
    with pytest.raises(UserError, match="features"):
        statistics(bad)


def test_other_widths_are_refused():
    with pytest.raises(UserError, match="cannot be compared"):
        frechet_distance(np.eye(4), np.eye(5))


def test_subject_fidelity_is_the_mean_of_all_pairs():
    x, y = RNG.normal(size=(4, 6)), RNG.normal(size=(3, 6))
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in x for b in y]
    np.testing.assert_allclose(subject_fidelity(x, y), np.mean(cosines), rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="cannot be compared"):
        subject_fidelity(x, y[:0])
