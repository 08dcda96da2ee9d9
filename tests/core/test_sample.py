"""The laws of the loop: one program, one image, one body, named randomness, gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from jax.test_util import check_grads

from diffedit_jax import solvers
from diffedit_jax.core import (
    Cond,
    Prediction,
    Transform,
    image_axes,
    sample,
    sample_batch,
    stream,
    window,
)

from . import tiny

KINDS = {
    "ddim": solvers.DDIM(),
    "euler_ancestral": solvers.EulerAncestral(),
    "plms": solvers.PLMS(),
    "unipc": solvers.UniPC(),
}


@pytest.fixture(scope="module", params=KINDS)
def solver(request):
    return KINDS[request.param]


def close(ours, expected):
    """Equal to 1e-5 of the largest number."""
    assert np.abs(ours - expected).max() <= 1e-5 * np.abs(expected).max()


def batch(solver, images=3, count=4, first=0, **rest):
    steps = tiny.keyed(solver, count, images, first=first, **rest)
    x, cond = tiny.noise(images, first=first), tiny.texts(images)
    return tiny.network(), solver, tiny.edit(images), steps, x, cond


def test_nothing_that_is_turned_like_a_knob_recompiles():
    solver = solvers.EulerAncestral()
    network, _, edit, steps, x, cond = batch(solver)
    sample_batch(network, solver, edit, steps, x, cond)
    before = sample_batch._cache_size()
    changed = jax.tree.map(lambda p: p * 1.1, network.params)
    runs = [
        (network, tiny.edit(3, scale=7.0), steps, tiny.texts(3)),
        (network, tiny.edit(3, seed=6), steps, tiny.texts(3)),  # masks
        (network, edit, steps, tiny.texts(3, seed=4)),  # prompts
        (network, edit, tiny.keyed(solver, 4, 3, start=2), cond),  # strength
        (network, edit, tiny.keyed(solver, 4, 3, seed=9), cond),
        (network, edit, window(steps, 1, 3), cond),
        (network, edit, tiny.keyed(solver, 4, 3, spacing="leading"), cond),
        (network.replace(params=changed), edit, steps, cond),
    ]
    for network, edit, steps, cond in runs:
        sample_batch(network, solver, edit, steps, x, cond)
    assert sample_batch._cache_size() == before


def test_a_batch_is_a_loop_over_images(solver):
    network, _, edit, steps, x, cond = batch(solver)
    together = sample_batch(network, solver, edit, steps, x, cond).x
    alone = jax.jit(lambda *a: sample(network, solver, *a).x)
    for i in range(len(x)):
        own = jax.tree.map(lambda a, i=i: a[i], (edit, x, cond))
        one = alone(own[0], steps.replace(key=steps.key[i]), own[1], own[2])
        close(one, together[i])


def test_a_stream_ends_where_the_loop_ends(solver):
    arguments = batch(solver, start=1)
    *_, last = stream(*arguments)
    whole = sample_batch(*arguments)
    close(last.x, whole.x)
    np.testing.assert_array_equal(last.broken, whole.broken)


def test_a_stream_with_a_strength_for_each_image():
    solver = KINDS["plms"]
    arguments = list(batch(solver))
    active = np.arange(4) >= np.array([[0], [2], [3]])
    arguments[3] = arguments[3].replace(active=active)
    *_, last = stream(*arguments)
    close(last.x, sample_batch(*arguments).x)


def test_a_strength_for_each_image_is_each_image_alone(solver):
    network, _, edit, steps, x, cond = batch(solver)
    active = np.arange(4) >= np.array([[0], [2], [3]])
    together = sample_batch(network, solver, edit, steps.replace(active=active), x, cond).x
    for i in range(3):
        own = jax.tree.map(lambda a, i=i: a[i : i + 1], (edit, x, cond))
        table = steps.replace(key=steps.key[i : i + 1], active=active[i])
        alone = sample_batch(network, solver, own[0], table, own[1], own[2]).x[0]
        close(alone, together[i])


def test_an_image_does_not_depend_on_its_batch():
    """Image 5 alone and as the sixth of eight: noise equal to the bit, result to 1e-5."""
    solver = solvers.EulerAncestral()
    eight, one = batch(solver, 8), batch(solver, 1, first=5)
    np.testing.assert_array_equal(eight[4][5], one[4][0])

    @jax.jit
    def draws(steps):
        rows = jax.vmap(lambda row: row.normal(jnp.zeros(tiny.SHAPE)))
        return jax.vmap(rows, (image_axes(steps),))(steps)

    np.testing.assert_array_equal(draws(eight[3])[5], draws(one[3])[0])
    own = jax.tree.map(lambda a: a[5:6], (eight[2], eight[5]))
    alone = sample_batch(*one[:2], own[0], one[3], one[4], own[1]).x[0]
    close(alone, sample_batch(*eight).x[5])


def test_gradients_through_a_rematerialised_run(solver):
    """By the guidance weights and by x, against finite differences."""
    network, _, edit, steps, x, cond = batch(solver, images=1, count=4, start=2)
    edit, x, cond = jax.tree.map(lambda a: a[0], (edit, x, cond))
    steps = steps.replace(key=steps.key[0])

    @jax.jit
    def end(weights, x):
        links = (edit.links[0].replace(weights=weights), edit.links[1])
        own = edit.replace(links=links)
        result = sample(network, solver, own, steps, x, cond, remat=True)
        return jnp.mean(result.x**2)

    check_grads(end, (edit.links[0].weights, x), 1, ["rev"], 1e-3, 1e-2, 3e-3)


def test_remat_changes_no_number():
    arguments = batch(KINDS["ddim"])
    stored, recomputed = (sample_batch(*arguments, remat=remat).x for remat in (False, True))
    close(stored, recomputed)


class Breaks(struct.PyTreeNode):
    """Says nothing, and NaN in row `at` to the image that is marked."""

    at: Any

    def __call__(self, x, step, cond, control=None):
        wrong = (step.index == self.at) & (cond.text > 0)
        eps = jnp.where(wrong, jnp.nan, 0.0) * jnp.ones_like(x)
        return Prediction.of("epsilon", eps, x, step.alpha, step.sigma)


def test_nan_is_reported_with_its_step_and_image(solver):
    steps = tiny.keyed(solver, 6, 3)
    cond = Cond(text=jnp.array([0.0, 1.0, 0.0]))
    result = sample_batch(Breaks(jnp.int32(3)), solver, Transform(), steps, tiny.noise(3), cond)
    assert result.broken[1] == 3
    assert (result.broken[jnp.array([0, 2])] > 1000).all()


def test_what_is_recorded_is_one_entry_per_row(solver):
    arguments = batch(solver, start=2)
    result = sample_batch(*arguments, record=record_x)
    assert result.recorded.shape == (3, 4, *tiny.SHAPE)
    np.testing.assert_array_equal(result.recorded[:, -1], result.x)
    np.testing.assert_array_equal(result.recorded[:, :2], 0)


def record_x(move):
    return move.x_next


def test_a_step_that_must_draw_and_cannot_says_so():
    solver = solvers.EulerAncestral()
    network, _, edit, steps, x, cond = batch(solver)
    with pytest.raises(ValueError, match="with_key"):
        sample_batch(network, solver, edit, steps.replace(key=None), x, cond)


def test_given_noise_replaces_the_keys_draws():
    solver = solvers.EulerAncestral()
    network, _, edit, steps, x, cond = batch(solver)
    keys = steps.key
    drawn = jax.vmap(jax.vmap(lambda key: jax.random.normal(key, tiny.SHAPE)))(keys)
    given = sample_batch(network, solver, edit, steps.replace(key=None, noise=drawn), x, cond).x
    own = sample_batch(network, solver, edit, steps, x, cond).x
    close(given, own)
