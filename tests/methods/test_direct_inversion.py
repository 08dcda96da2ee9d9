"""Direct Inversion against the official code's runs, and what the aligned variant promises."""

import sys
import types

import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.core import Schedule
from diffedit_jax.methods import direct_inversion
from diffedit_jax.methods.direct_inversion import _official_tables, aligned_table
from diffedit_jax.methods.inversion import upward
from tests.golden_models import GOLDEN, golden_bundle, nhwc

# run: K, N, guidance, lambda, injected steps, what is injected, source (manifest, 04)
RUNS = {
    0: (10, 10, 3.0, 0.5, 10, "noise", None),
    1: (10, 10, 3.0, 1.0, 10, "noise", None),
    2: (10, 10, 7.5, 0.0, 10, "noise", None),
    3: (10, 5, 7.5, 0.0, 5, "latent", None),
    4: (10, 10, 1.0, 0.5, 4, "noise", ["inv"]),
    5: (5, 5, 3.0, 0.3, 3, "latent", None),
}
ALIGNED = (0, 1, 2, 4)


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "04_direct_inversion" / "direct_inversion.npz"))


@pytest.fixture(scope="module")
def bundle(case):
    told = {"": case["emb_empty"], "target": case["emb_target"], "inv": case["emb_inversion"]}
    return golden_bundle("unet_sd1", told)


@pytest.fixture
def latents(monkeypatch):
    """The method's latents instead of its pictures."""
    module = sys.modules["diffedit_jax.methods.direct_inversion"]
    monkeypatch.setattr(module, "pictures", lambda model, x: np.asarray(x))


def edited(bundle, case, run, **more):
    steps, sampling, guidance, amount, until, inject, source = RUNS[run]
    image = case["image_u8"].astype(np.float32)[None] / 127.5 - 1
    if more:
        more |= dict(sampling_steps=sampling, inject=inject)
    return direct_inversion(bundle, image, prompt=["target"], source=source, steps=steps,
                            guidance=guidance, injection=amount, injected_steps=until,
                            noise=nhwc(case["posterior_noise"]), **more)  # fmt: skip


@pytest.mark.parametrize("run", RUNS)
def test_the_official_variant_ends_where_the_code_does(run, bundle, case, latents, highest):
    x = edited(bundle, case, run, compat="official")
    theirs = nhwc(case[f"O{run}_traj"])[-1]
    print(f"O{run}", np.abs(x - theirs).max())
    np.testing.assert_allclose(x, theirs, atol=1e-3, rtol=0)


@pytest.mark.parametrize("run", ALIGNED)
def test_the_aligned_variant_walks_the_levels_of_its_inversion(run, bundle, case, latents, highest):
    x = edited(bundle, case, run)
    theirs = nhwc(case[f"A{run}_traj"])[-1]
    print(f"A{run}", np.abs(x - theirs).max())
    np.testing.assert_allclose(x, theirs, atol=1e-3, rtol=0)


def test_lambda_one_gives_the_picture_back(bundle, case, latents, highest):
    x = edited(bundle, case, 1)
    z0 = 0.18215 * (case["posterior_mean"] + case["posterior_std"] * case["posterior_noise"])
    print("lambda 1", np.abs(x - nhwc(z0)).max())
    np.testing.assert_allclose(x, nhwc(z0), atol=1e-4, rtol=0)


def test_the_decoded_picture_is_the_official_one(bundle, case, highest):
    image = edited(bundle, case, 0, compat="official")
    theirs = np.clip(nhwc(case["O0_image"]) / 2 + 0.5, 0, 1) * 255
    assert np.abs(image - theirs).max() <= 0.51  # 0.5 is rounding


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(compat="oficial"), "compat"),
        (dict(injection=1.5), "between 0 and 1"),
        (dict(sampling_steps=5), "need compat"),
        (dict(compat="official", steps=30), "divide 1000"),
        (dict(compat="official", sampling_steps=5), "sampling_steps must be steps"),
        (dict(steps=10, strength=0.1), "leaves no move"),
        (dict(inject="eps"), "inject must"),
    ],
)
def test_what_cannot_be_meant_is_refused(tiny, picture, wrong, message):
    given = dict(prompt="a cat", steps=10) | wrong
    with pytest.raises(de.UserError, match=message):
        de.edit(tiny, picture, "direct_inversion", size=32, **given)


@pytest.mark.parametrize("compat", ["official", ""])
def test_levels_and_indices_replay_the_recorded_run(compat, case):
    """At lambda 1 the network has no say: the recorded noise alone leads along the official run."""
    model = types.SimpleNamespace(schedule=Schedule())
    noise, z0 = nhwc(case["O1_eps_recorded"])[:, 0], latent_of(case)
    if compat:
        up, down = _official_tables(model, 10, 10, 1.0, "noise")
        rows, theirs = np.arange(10), nhwc(case["O1_traj"])[:, 0]
    else:
        up = down = aligned_table(model, 10, 1.0, 1)
        rows, theirs = np.flatnonzero(up.active), nhwc(case["A1_traj"])[:, 0]
    rising = upward(up, "source")
    told = rising.t[::-1][rows][::-1]
    np.testing.assert_array_equal(told, 100.0 * np.arange(len(rows)))
    x, kept = z0, np.zeros((10, *z0.shape))
    for k, i in enumerate(np.sort(9 - rows)):
        kept[i] = noise[k]
        x = stepped(x, noise[k], rising, i)
    mixed = kept[::-1]
    for i, expected in zip(rows, theirs, strict=True):
        x = stepped(x, mixed[i], down, i)
        np.testing.assert_allclose(x, expected, atol=1e-4)
    if not compat:
        np.testing.assert_allclose(x, z0, atol=1e-4)


def stepped(x, eps, rows, i):
    clean = (x - rows.sigma[i] * eps) / rows.alpha[i]
    return rows.alpha_next[i] * clean + rows.sigma_next[i] * eps


def latent_of(case):
    drawn = case["posterior_mean"] + case["posterior_std"] * case["posterior_noise"]
    return nhwc(0.18215 * drawn)[0].astype(np.float64)
