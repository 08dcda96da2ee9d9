"""Null-text inversion against the official code, update by update."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.core import Cond, chain, grid, levels, table
from diffedit_jax.methods import ddim_inversion, null_text
from diffedit_jax.methods.generate import guidance_edit
from diffedit_jax.methods.inversion import descend, invert, passed, path
from diffedit_jax.methods.null_text import fit_null_texts
from diffedit_jax.transforms import NullTexts
from tests.golden_models import GOLDEN, nhwc
from tests.methods.toy import as_uint8, toy, two_pictures

INNER, GUIDANCE = {"a": 3, "b": 8}, 2.5
TOLERANCE = {"a": -1.0, "b": 0.03549630617048098}  # manifest, 02


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "02_null_text" / "null_text.npz"))


class Bundle:
    def __init__(self, denoiser):
        self.denoiser = denoiser


@pytest.fixture(scope="module")
def runs(case):
    """Both official runs with the official network in float64."""
    pytest.importorskip("diffusers")
    from tests.torch_unet import torch_unet

    model, z0 = Bundle(torch_unet()), nhwc(case["latent"]).astype(np.float64)
    t = grid(1000, 4, "leading", 1).astype(int)
    abar = np.append(case["alphas_cumprod_f32"][t], case["alphas_cumprod_f32"][0])
    rows = table(np.append(t, 0), *levels(abar), dtype=np.float64)
    out = {}
    with jax.enable_x64(True):
        z0 = jnp.asarray(z0)
        up = invert(model, z0, Cond(text=jnp.float64(case["cond"])), table=rows)
        out["pivot"], cond = up.recorded, Cond(text=jnp.stack(
            [jnp.float64(case["uncond"]), jnp.float64(case["cond"])], axis=1))  # fmt: skip
        for name in "ab":
            fitted = fit_null_texts(model, rows, passed(up.recorded, z0), up.x, cond, GUIDANCE,
                                    inner=INNER[name], tolerance=TOLERANCE[name])  # fmt: skip
            edit = chain(NullTexts(texts=fitted.texts), guidance_edit(GUIDANCE, 0.0, 1))
            back = descend(model, edit, rows, up.x, cond, record=path)
            out[name] = fitted, back.recorded
    return jax.tree.map(np.asarray, out)


def test_the_pivots_are_the_official_ones(runs, case):
    error = np.abs(runs["pivot"][0] - nhwc(case["a_pivot"])[1:, 0]).max()
    print("pivot", error)
    assert error < 1e-8


@pytest.mark.parametrize("name", ["a", "b"])
def test_losses_updates_and_embeddings_are_the_official_ones(name, runs, case):
    fitted, back = runs[name]
    losses = fitted.loss[0][~np.isnan(fitted.loss[0])]
    relative = np.abs(losses / case[f"{name}_loss"] - 1).max()
    texts = np.abs(fitted.texts[0] - case[f"{name}_uncond_list"][:, 0]).max()
    walked = np.abs(back[0] - nhwc(case[f"{name}_traj"])[:, 0]).max()
    print(name, "loss", relative, "texts", texts, "trajectory", walked)
    assert relative < 1e-8 and texts < 1e-7 and walked < 1e-8
    expected = case["b_n_inner"] if name == "b" else np.full(4, 3)
    np.testing.assert_array_equal(fitted.updates[0], expected)
    np.testing.assert_allclose(fitted.x[0], back[0, -1], atol=1e-12)


def test_fitting_brings_guidance_back_to_the_picture():
    """The reconstruction at full guidance is far better than without fitting, and watching or
    batching changes nothing."""
    model, images = toy(), two_pictures()
    given = dict(source=["0.8", "-0.6"], steps=10, guidance=4.0)
    fitting = dict(inner=30, rate=0.1, tolerance=0.0)
    image = null_text(model, images, **given, **fitting).astype(int)
    fitted, plain = (
        np.abs(i - as_uint8(images)).mean()
        for i in (image, ddim_inversion(model, images, **given).astype(int))
    )
    assert fitted < 0.3 * plain
    seen = []
    watched = null_text(model, images, **given, **fitting, watch=lambda *a: seen.append(a[:2]))
    assert np.abs(watched - image).max() <= 1 and seen[-1] == (30, 30)
    alone = null_text(model, images[1:], **(given | dict(source=["-0.6"])), **fitting)
    assert np.abs(alone[0].astype(int) - image[1]).max() <= 1


@pytest.mark.parametrize(("wrong", "message"), [(dict(inner=-1), "inner must"),
                                                (dict(rate=0.0), "rate must")])  # fmt: skip
def test_what_cannot_be_meant_is_refused(wrong, message, tiny, picture):
    with pytest.raises(de.UserError, match=message):
        de.edit(tiny, picture, "null_text", source="a", steps=2, size=32, **wrong)
