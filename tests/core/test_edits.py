"""Edits over the loop: keys, guidance, blending, mixtures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax import solvers
from diffedit_jax.core import (
    Cond,
    Edited,
    Mixture,
    Prediction,
    Schedule,
    Transform,
    chain,
    row,
    sample,
    with_key,
)  # fmt: skip
from diffedit_jax.transforms import Blend, Combine, guidance_weights

from ..gaussian import Gaussian

SHAPE = (4, 4, 3)


def table(solver=None, count=4, **rest):
    steps = (solver or solvers.DDIM()).steps(Schedule(), count, **rest)
    return with_key(steps, jax.random.key(2))


class Draws(Transform):
    """Shows what it would draw, in `denoise` (through taps) and in `settle` (through memory)."""

    def init(self, x):
        return jnp.zeros_like(x)

    def denoise(self, inner, state):
        def ask(x, step, cond, control=None):
            said = inner(x, step, cond, control)
            return said.replace(taps={**said.taps, len(said.taps): step.normal(x)})

        return ask

    def settle(self, move, state):
        return move.x_next, move.step.normal(state)


def test_no_two_parts_of_an_edit_share_a_draw():
    edit = chain(Draws(), Draws(), Draws())
    steps = table(solvers.EulerAncestral(), 2)

    def shown(move):
        return [*move.prediction.taps.values(), move.step.normal(move.x)]

    result = sample(Gaussian(), solvers.EulerAncestral(), edit, steps, jnp.zeros(SHAPE), Cond(),
                    record=shown)  # fmt: skip
    draws = [np.ravel(a[i]) for a in result.recorded for i in range(2)]
    draws += [np.ravel(a) for a in result.state]
    assert len(draws) == 2 * 4 + 3
    assert len(np.unique(np.round(draws, 5), axis=0)) == len(draws)


def answers(kind="v_prediction"):
    """Three answers about one latent, as a denoiser that looks at its branch's text."""

    def ask(x, step, cond, control=None):
        scale = cond.text.reshape(-1, 1, 1, 1)
        return Prediction.of(kind, jnp.sin(scale * x) + scale, x, step.alpha, step.sigma)

    return ask


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_guidance_is_the_weighted_sum(kind):
    x, step = jax.random.normal(jax.random.key(0), SHAPE), row(table(), 1)
    cond = Cond(text=jnp.array([0.5, 1.0, 2.0]))
    weights = jnp.array([1 - 1.5, 1.5 - 7.0, 7.0])
    ask = Combine(weights=weights).denoise(answers(kind), ())
    said = [answers(kind)(x, step, Cond(text=t)).output for t in cond.text]
    expected = said[0] + 1.5 * (said[1] - said[0]) + 7.0 * (said[2] - said[1])
    np.testing.assert_allclose(ask(x, step, cond).output, expected[0], atol=2e-4)


def test_guidance_of_one_is_the_prompt_alone():
    x, step = jax.random.normal(jax.random.key(0), SHAPE), row(table(), 1)
    ask = Combine(weights=guidance_weights(1.0)).denoise(answers(), ())
    alone = answers()(x, step, Cond(text=jnp.array([2.0])))
    said = ask(x, step, Cond(text=jnp.array([0.5, 2.0])))
    np.testing.assert_allclose(said.eps, alone.eps[0], atol=1e-5)


def test_rescaled_guidance_is_diffusers():
    pipeline = pytest.importorskip("diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion")
    torch = pytest.importorskip("torch")
    x, step = jax.random.normal(jax.random.key(0), SHAPE), row(table(), 1)
    null, text = (
        np.asarray(answers()(x, step, Cond(text=jnp.array([t]))).output) for t in (0.5, 2.0)
    )
    guided = null + 7.5 * (text - null)
    theirs = pipeline.rescale_noise_cfg(torch.from_numpy(guided), torch.from_numpy(text), 0.7)
    ask = Combine(weights=guidance_weights(7.5), rescale=0.7).denoise(answers(), ())
    ours = ask(x, step, Cond(text=jnp.array([0.5, 2.0]))).output
    np.testing.assert_allclose(ours, theirs.numpy()[0], rtol=1e-4, atol=1e-4)


def run(denoiser, edit, x, cond, **rest):
    return sample(denoiser, solvers.DDIM(), edit, table(**rest), x, cond).x


def test_an_empty_mask_returns_the_source_and_a_full_one_does_nothing():
    x, source, eps = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    data = Gaussian(mean=0.4, spread=0.5)
    empty = Blend(mask=jnp.zeros((4, 4, 1)), x0=source, noise=eps)
    np.testing.assert_array_equal(run(data, empty, x, Cond()), source)
    full = empty.replace(mask=jnp.ones((4, 4, 1)))
    np.testing.assert_array_equal(run(data, full, x, Cond()), run(data, Transform(), x, Cond()))


@pytest.mark.parametrize("name", solvers.SOLVERS)
def test_blending_keeps_the_source_under_every_solver(name):
    """Also where a multistep memory or a corrector could bring the past back."""
    solver = solvers.named(name)
    x, source, eps = jax.random.normal(jax.random.key(0), (3, *SHAPE))
    mask = jnp.zeros((4, 4, 1)).at[:2].set(1.0)
    blend = Blend(mask=mask, x0=source, noise=eps)
    end = sample(Gaussian(mean=0.4), solver, blend, table(solver), x, Cond()).x
    np.testing.assert_array_equal(end[2:], source[2:])
    assert np.abs(end[:2] - source[:2]).max() > 0.1


def test_a_mixture_of_one_thing_is_that_thing():
    x = jax.random.normal(jax.random.key(0), SHAPE)
    data = Gaussian(mean=0.4, spread=0.5)
    mixture = Mixture(parts=(data, data), weights=jnp.array([0.3, 0.7]))
    np.testing.assert_allclose(
        run(mixture, Transform(), x, (Cond(), Cond())), run(data, Transform(), x, Cond()), atol=1e-5
    )


def test_a_mixture_of_edited_parts_adds_their_scores():
    """Equal spreads: mixing predictions is mixing means. Each part brings its own edit."""
    x = jax.random.normal(jax.random.key(0), SHAPE)
    means = jnp.array([-1.0, 2.0])
    guided = Edited(denoiser=Gaussian(spread=0.5), edit=Combine(weights=guidance_weights(1.5)))
    mixture = Mixture(
        parts=(guided, Gaussian(mean=0.5, spread=0.5)), weights=jnp.array([0.25, 0.75])
    )
    cond = (Cond(text=means.reshape(2, 1, 1, 1)), Cond())
    mean = 0.25 * (-0.5 * means[0] + 1.5 * means[1]) + 0.75 * 0.5
    expected = run(Gaussian(mean=mean, spread=0.5), Transform(), x, Cond())
    np.testing.assert_allclose(run(mixture, Transform(), x, cond), expected, atol=1e-4)
