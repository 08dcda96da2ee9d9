"""One statement in every parametrisation: closed forms and round trips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.core import KINDS, Prediction

ALPHA, SIGMA = 0.8, 0.6


@pytest.fixture
def truth():
    """(x0, eps, x = alpha x0 + sigma eps)."""
    x0, eps = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    return x0, eps, ALPHA * x0 + SIGMA * eps


def spoken(kind, x0, eps):
    """What a perfect network of that kind says."""
    return {"epsilon": eps, "v_prediction": ALPHA * eps - SIGMA * x0, "sample": x0}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_tells_the_same_truth(kind, truth):
    x0, eps, x = truth
    said = Prediction.of(kind, spoken(kind, x0, eps), x, ALPHA, SIGMA)
    np.testing.assert_allclose(said.x0, x0, atol=1e-5)
    np.testing.assert_allclose(said.eps, eps, atol=1e-5)
    np.testing.assert_allclose(said.v, ALPHA * eps - SIGMA * x0, atol=1e-5)
    np.testing.assert_allclose(said.output, spoken(kind, x0, eps), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_another_answer_keeps_both_halves_in_step(kind, truth):
    x0, eps, x = truth
    said = Prediction.of(kind, spoken(kind, 0 * x0, eps), x, ALPHA, SIGMA)
    for other in (said.with_x0(x0), said.with_eps(eps), said.with_output(spoken(kind, x0, eps))):
        np.testing.assert_allclose(other.x0, x0, atol=1e-5)
        np.testing.assert_allclose(other.eps, eps, atol=1e-5)


def test_ends_of_the_schedule_lose_nothing(truth):
    """v at alpha 0 and x0 at sigma 1: both halves finite."""
    x0, eps, _ = truth
    for kind, output in (("v_prediction", -x0), ("sample", x0)):
        said = Prediction.of(kind, output, eps, 0.0, 1.0)
        np.testing.assert_allclose(said.x0, x0)
        np.testing.assert_allclose(said.eps, eps)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_that_sum_to_one_mix_alike_in_every_kind(kind, truth):
    x0, eps, x = truth
    outputs = jnp.stack([spoken(kind, x0, eps), 2 * spoken(kind, x0, eps) + 1])
    said = Prediction.of(kind, outputs, jnp.stack([x, x]), ALPHA, SIGMA)
    mixed = said.combined(jnp.array([-1.5, 2.5]))
    np.testing.assert_allclose(mixed.output, -1.5 * outputs[0] + 2.5 * outputs[1], atol=1e-4)
    np.testing.assert_allclose(ALPHA * mixed.x0 + SIGMA * mixed.eps, x, atol=1e-4)


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="flow"):
        Prediction.of("flow", jnp.zeros(1), jnp.zeros(1), 1.0, 1.0)
