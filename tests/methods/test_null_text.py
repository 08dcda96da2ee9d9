"""Null-text inversion against the official code, update by update."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.core import Cond, chain, counted, grid, levels, row, table
from diffedit_jax.core.sample import sample_batch
from diffedit_jax.methods import ddim_inversion, null_text
from diffedit_jax.methods.generate import guidance_edit
from diffedit_jax.methods.inversion import descend, invert, passed, path
from diffedit_jax.methods.negative_prompt import proximal_guidance
from diffedit_jax.methods.null_text import fit_null_texts
from diffedit_jax.methods.registry import find
from diffedit_jax.transforms import NullTexts
from tests.golden_models import GOLDEN, nhwc
from tests.methods.toy import as_uint8, toy, two_pictures
from tests.methods.toy_attention import a_picture
from tests.methods.toy_attention import toy as looking

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


GIVEN = dict(source=["0.2", "-0.1"], steps=5, guidance=3.0, inner=3, rate=0.1)
OTHER = ["0.9", "-0.5"]


def proximal(**more):
    return null_text(toy(), two_pictures(), **(GIVEN | dict(prompt=OTHER) | more)).astype(int)


def test_without_proximal_guidance_its_numbers_change_nothing():
    turned = dict(proximal=None, quantile=0.2, pull=0.5, pull_below=900.0, dilate=3)
    np.testing.assert_array_equal(proximal(**turned), proximal())


@pytest.mark.parametrize("kind", ["l0", "l1"])
def test_what_proximal_guidance_drops_comes_back(kind):
    """All of it: the reconstruction; the larger the share, the smaller the edit."""
    same = proximal(prompt=None)
    assert np.abs(proximal(proximal=kind, quantile=1.0) - same).max() <= 1
    some, most, free = (np.abs(proximal(**how) - same).mean() for how in (
        dict(proximal=kind, quantile=0.3), dict(proximal=kind, quantile=0.8), {}))  # fmt: skip
    assert 0 < most < some < free


@pytest.mark.parametrize("kind", ["l0", "l1"])
def test_a_proximal_step_is_the_formula_in_torch(kind):
    torch = pytest.importorskip("torch")
    rng, w, quantile, rate = np.random.default_rng(3), 4.0, 0.6, 0.3
    x, z0 = rng.normal(size=(2, 1, 6, 6, 3)).astype(np.float32)
    rows = table(np.array([300, 200]), *levels(np.array([0.5, 0.8])))
    texts = jnp.asarray(rng.normal(size=(3, 2, 3)), jnp.float32)  # null, source, prompt
    knobs = dict(guidance=w, quantile=quantile, rate=rate, until=400.0)
    guide = proximal_guidance(kind, jnp.asarray(z0), 1, 1, knobs, from_null=True)
    edit, model = chain(NullTexts(texts=texts[None, :1]), guide), toy()
    told = Cond(text=texts[None].at[:, 0].set(9.0))  # which the null text of the row replaces
    ours = np.asarray(descend(model, edit, rows, jnp.asarray(x), told).x)[0]

    step, picture = row(counted(rows), 0), jnp.asarray(x[0])
    u, s, p = (torch.tensor(np.asarray(model.denoiser(picture, step, Cond(text=t)).eps))
               for t in texts)  # fmt: skip
    size = (p - s).abs()
    threshold = torch.quantile(size, quantile)
    kept = {"l0": torch.nn.functional.hardshrink, "l1": torch.nn.functional.softshrink}[kind]
    eps = u + w * (s - u) + w * kept(p - s, threshold.item())
    before, after = 0.5, 0.8
    clean = (torch.tensor(x[0]) - (1 - before) ** 0.5 * eps) / before**0.5
    edited = torch.nn.functional.max_pool2d((size > threshold).float().movedim(-1, 0), 3, 1, 1)
    clean = clean - rate * (1 - edited.movedim(0, -1)) * (clean - torch.tensor(z0[0]))
    official = after**0.5 * clean + (1 - after) ** 0.5 * eps
    assert 0 < edited.mean() < 1
    np.testing.assert_allclose(ours, official.numpy(), atol=2e-5)


def test_turning_proximal_numbers_compiles_nothing():
    sample_batch.clear_cache()
    first = proximal(proximal="l1", pull=0.1)
    before = sample_batch._cache_size()
    turned = proximal(proximal="l1", quantile=0.3, pull=0.6, pull_below=900.0, guidance=5.0)
    assert sample_batch._cache_size() == before and np.abs(turned - first).max() > 1


@pytest.mark.parametrize("kind", ["l0", "l1"])
def test_rows_that_are_dropped_are_the_source_row(kind, monkeypatch):
    """Under Prompt-to-Prompt without shared attention, as the fitted null texts lead it."""
    monkeypatch.setattr(sys.modules["diffedit_jax.methods.prompt_to_prompt"], "pictures",
                        lambda model, x: np.asarray(x))  # fmt: skip
    method = find("null_text+prompt_to_prompt")
    given = dict(source=["a cat on a mat"], prompt=["a dog on a mat"], steps=4, inner=3, seed=[3],
                 guidance=3.0, cross_replace_steps=0.0, self_replace_steps=0.0)  # fmt: skip

    def run(**more):
        return method.function(looking(), a_picture(), **method.complete(given | more))

    free, same = run(), run(prompt=given["source"])
    dropped = run(proximal=kind, quantile=1.0)
    np.testing.assert_allclose(dropped, same, atol=3e-5, rtol=0)
    assert np.abs(free - same).max() > 1e-2
    told = method.complete(given | dict(proximal=kind))
    assert method.evaluations(told) == (4 * 7, 6)


def test_proximal_guidance_has_no_rescale():
    method = find("null_text+prompt_to_prompt")
    told = method.complete(dict(source=["a"], prompt=["b"], steps=2, rescale=0.5, proximal="l0"))
    with pytest.raises(de.UserError, match="no rescale"):
        method.function(looking(), a_picture(), **told)


@pytest.mark.parametrize(("wrong", "message"), [(dict(proximal="l2"), "proximal must"),
                                                (dict(inner=-1), "inner must"),
                                                (dict(rate=0.0), "rate must")])  # fmt: skip
def test_what_cannot_be_meant_is_refused(wrong, message, tiny, picture):
    with pytest.raises(de.UserError, match=message):
        de.edit(tiny, picture, "null_text", source="a", steps=2, size=32, **wrong)
