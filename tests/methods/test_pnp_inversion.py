"""PnP Inversion: the source row keeps to its path, which overwriting and offsets say alike."""

import jax.numpy as jnp
import numpy as np

from diffedit_jax.core import Cond, chain
from diffedit_jax.methods.generate import guidance_edit
from diffedit_jax.methods.inversion import descend, editing_table, invert, passed, path
from diffedit_jax.transforms import Follow
from tests.methods.toy import toy, two_pictures


def rows_of(model, prompts):
    """[1, 2 branches, rows, tokens, width] of one edit."""
    told = model.condition(prompts).text
    return Cond(text=jnp.stack([jnp.zeros_like(told), told])[None])


def test_the_source_row_is_the_path_and_the_target_is_free():
    model, z0 = toy(), jnp.asarray(two_pictures()[:1])
    table = editing_table(model, steps=8, count=1)
    up = invert(model, z0, model.condition(["0.6"]), table=table)
    pivots = passed(up.recorded, z0)
    mask = jnp.asarray([0.0, 1.0])[None, :, None, None, None]
    held = Follow(mask=mask, path=pivots[:, :, None])
    x, cond = jnp.stack([up.x, up.x], axis=1), rows_of(model, ["0.6", "-0.4"])
    guide = guidance_edit(7.5, 0.0, 1)
    down = descend(model, chain(guide, held), table, x, cond, record=path)
    np.testing.assert_array_equal(down.recorded[:, :, 0], pivots)
    free = descend(model, guide, table, x, cond, record=path)
    np.testing.assert_allclose(down.recorded[:, :, 1], free.recorded[:, :, 1], atol=1e-6)
    # the official form: each step's own result from z*_t, plus the offset to z*_{t-1}
    before = jnp.concatenate([up.x[:, None], pivots[:, :-1]], axis=1)
    one = rows_of(model, ["0.6"])
    for i in range(8):
        step = table.replace(**{k: getattr(table, k)[i : i + 1] for k in (
            "index", "t", "alpha", "sigma", "alpha_next", "sigma_next", "t_next", "last",
            "active")})  # fmt: skip
        own = descend(model, guide, step, before[:, i, None], one).x[:, 0]
        offset = pivots[:, i] - own
        np.testing.assert_allclose(own + offset, pivots[:, i], atol=1e-5)


def test_a_soft_mask_blends_with_the_path():
    model, z0 = toy(), jnp.asarray(two_pictures())
    table = editing_table(model, steps=4, count=2)
    up = invert(model, z0, model.condition(["0", "0"]), table=table)
    mask = jnp.zeros((2, 6, 6, 1)).at[:, :3].set(1)
    edit = chain(guidance_edit(1.0, 0.0, 2), Follow(mask=mask, path=passed(up.recorded, z0)))
    cond = Cond(text=jnp.stack([model.condition(["0", "0"]).text,
                                model.condition(["0.9", "0.9"]).text], axis=1))  # fmt: skip
    x = np.asarray(descend(model, edit, table, up.x, cond).x)
    np.testing.assert_array_equal(x[:, 3:], z0[:, 3:])
    assert np.abs(x[:, :3] - z0[:, :3]).max() > 0.01
