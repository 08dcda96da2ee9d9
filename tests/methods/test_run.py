"""What methods share: noise by name, runs that stop at NaN, guards at the border."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.core import Cond, Schedule, Transform
from diffedit_jax.errors import NotFiniteError, UserError
from diffedit_jax.methods.run import Draws, check_steps, per_image, to_uint8, walk
from diffedit_jax.solvers import DDIM
from tests.gaussian import Gaussian

SHAPE = (4, 4, 2)


def test_an_images_noise_depends_on_seed_and_index_alone():
    batch = Draws(8, seed=3)("start", SHAPE)
    for index in (0, 5):
        alone = Draws(1, seed=3, index=index)("start", SHAPE)
        np.testing.assert_array_equal(alone[0], batch[index])
    assert len({a.tobytes() for a in np.asarray(batch)}) == 8


def test_one_seed_per_image_means_each_alone():
    batch = Draws(2, seed=[3, 9])("start", SHAPE)
    np.testing.assert_array_equal(batch[1], Draws(1, seed=9)("start", SHAPE)[0])


def test_purposes_draw_apart():
    draws = Draws(1, seed=0)
    assert not np.array_equal(draws("start", SHAPE), draws("posterior", SHAPE))


def test_noise_is_standard_normal():
    noise = np.asarray(Draws(4, seed=1)("start", (64, 64, 4)))
    error = noise.size**-0.5  # of the mean; that of the deviation is smaller by sqrt(2)
    assert abs(noise.mean()) < 4 * error and abs(noise.std() - 1) < 4 * error


def test_given_noise_is_taken_and_checked():
    given = np.ones((2, *SHAPE), np.float32)
    np.testing.assert_array_equal(Draws(2, 0, given=given)("start", SHAPE), given)
    np.testing.assert_array_equal(Draws(2, 0, given={"masked": given})("masked", SHAPE), given)
    with pytest.raises(UserError, match=r"shape \(2, 4, 4, 2\), expected \(3, 4, 4, 2\)"):
        Draws(3, 0, given=given)("start", SHAPE)
    with pytest.raises(UserError, match="no part 'stat'"):
        Draws(2, 0, given={"stat": given})


class Break(Transform):
    """Divides by zero at one step."""

    at: int = 0

    def settle(self, move, state):
        return jnp.where(move.step.index == self.at, jnp.nan, move.x_next), state


@pytest.mark.parametrize("watched", [False, True])
def test_nan_stops_a_run_with_the_steps_number(watched):
    solver = DDIM()
    steps = solver.steps(Schedule(), 10)
    x = jnp.ones((2, *SHAPE))
    cond = Cond(text=jnp.zeros((2, *SHAPE)))
    watch = (lambda done, total, preview: None) if watched else None
    edit = Break(at=jnp.array([6, 3]))
    with pytest.raises(NotFiniteError, match=r"step 4 of 10 \(t = 601\)"):
        walk(Gaussian(), solver, edit, steps, x, cond, watch=watch)


def test_numbers_are_one_or_one_per_image():
    np.testing.assert_array_equal(per_image(2, 3, "guidance"), [2, 2, 2])
    with pytest.raises(UserError, match="guidance has 2 values for 3 pictures"):
        per_image([1, 2], 3, "guidance")


@pytest.mark.parametrize("steps", [0, -1, 1001])
def test_impossible_step_counts_are_refused(steps):
    model = type("Model", (), {"schedule": Schedule()})
    with pytest.raises(UserError, match="between 1 and 1000"):
        check_steps(model, steps)


def test_bytes_round_trip_exactly():
    every = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_uint8(every.astype(np.float32) / 127.5 - 1), every)
