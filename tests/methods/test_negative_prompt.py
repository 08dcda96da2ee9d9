"""Negative-prompt inversion and proximal guidance: closed forms and laws."""

import jax.numpy as jnp
import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.methods import ddim_inversion, negative_prompt
from diffedit_jax.methods.negative_prompt import source_as_null
from diffedit_jax.methods.run import guided
from diffedit_jax.transforms import Proximal
from tests.methods.toy import toy, two_pictures

GIVEN = dict(source=["0.2", "0.1"], steps=5)


def test_with_the_source_prompt_guidance_has_no_effect():
    images = two_pictures()
    plain = ddim_inversion(toy(), images, guidance=1.0, **GIVEN)
    for guidance in (1.0, 7.5):
        image = negative_prompt(toy(), images, guidance=guidance, **GIVEN)
        assert np.abs(image.astype(int) - plain).max() <= 1


def test_the_null_prompt_turns_from_source_to_empty():
    model = toy()
    cond = guided(model, ["0.7"], ["0.4"])
    np.testing.assert_allclose(source_as_null(cond, model, 0.0).text, cond.text, atol=1e-7)
    told = model.replace(denoiser=model.denoiser)
    a, b = jnp.array([[[1.0, 0.0, 0.0]]]), jnp.array([[[0.0, 1.0, 0.0]]])
    cond = cond.replace(text=jnp.stack([a, a], axis=1))

    class Other(type(told)):
        def condition(self, prompts, **sizes):
            return cond.replace(text=b)

    half = source_as_null(cond, Other(model.denoiser), 0.5).text[0, 0, 0]
    np.testing.assert_allclose(half, np.array([1, 1, 0]) / np.sqrt(2), atol=1e-6)
    whole = source_as_null(cond, Other(model.denoiser), 1.0).text[0, 0, 0]
    np.testing.assert_allclose(whole, [0, 1, 0], atol=1e-6)


def proximal(kind, quantile):
    return Proximal(scale=1.0, base=jnp.array([1.0, 0.0]), quantile=quantile, source=0.0, rate=0.0,
                    until=0.0, kind=kind)  # fmt: skip


def test_the_thresholds_are_hard_and_soft():
    d = jnp.arange(-5.0, 6.0).reshape(1, 11, 1)
    kept, exceeds = proximal("l0", 0.5).proximal(d)  # the median of |d| is 3
    np.testing.assert_array_equal(kept[0, :, 0], [-5, -4, 0, 0, 0, 0, 0, 0, 0, 4, 5])
    soft, same = proximal("l1", 0.5).proximal(d)
    np.testing.assert_array_equal(soft[0, :, 0], [-2, -1, 0, 0, 0, 0, 0, 0, 0, 1, 2])
    np.testing.assert_array_equal(exceeds, same)


@pytest.mark.parametrize("kind", ["l0", "l1"])
def test_proximal_guidance_changes_less(kind):
    images = two_pictures()
    given = GIVEN | dict(prompt=["0.9", "-0.5"], guidance=3.0)
    same = negative_prompt(toy(), images, **GIVEN).astype(int)
    free, held = (
        np.abs(negative_prompt(toy(), images, proximal=p, quantile=0.8, **given) - same).mean()
        for p in (None, kind)
    )
    assert 0 < held < 0.8 * free


@pytest.mark.parametrize(
    ("wrong", "message"),
    [(dict(proximal="l2"), "proximal must"), (dict(proximal="l0", quantile=1.1), "quantile must"),
     (dict(proximal="l0", dilate=-1), "dilate must")],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(wrong, message):
    with pytest.raises(de.UserError, match=message):
        negative_prompt(toy(), two_pictures(), **GIVEN, **wrong)


def test_a_missing_source_is_named(tiny, picture):
    for name in ("negative_prompt", "null_text", "edict", "ddim_inversion", "pnp_inversion"):
        with pytest.raises(de.UserError, match=f"{name} needs source"):
            de.edit(tiny, picture, name, prompt="a dog", size=32)
