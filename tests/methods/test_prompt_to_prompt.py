"""Prompt-to-Prompt against the official code's runs, and its laws."""

import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax import solvers
from diffedit_jax.core import Cond, Schedule, chain
from diffedit_jax.methods.controls import counted_calls
from diffedit_jax.methods.generate import guidance_edit
from diffedit_jax.methods.inversion import path
from diffedit_jax.methods.run import walk
from diffedit_jax.transforms import AttentionEdit, LocalBlend, NullTexts
from tests.golden_models import GOLDEN, golden_bundle, nhwc

TOKENS, STEPS = 77, 5
RUNS = {  # name: (self window, blend threshold, blend start, self cells)
    "empty": ((0, 0), -1.0, 0, 256),
    "replace": ((0, 2), -1.0, 0, 256),
    "replace_blend": ((0, 2), 0.75, 0, 256),
    "refine": ((0, 2), -1.0, 0, 256),
    "reweight_replace": ((0, 2), -1.0, 0, 256),
    "replace_pndm": ((0, 2), -1.0, 0, 256),
    "identity": ((0, 2), -1.0, 0, 256),
    "nulltext_blend": ((0, 3), 0.75, 1, 1024),
}


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "01_p2p" / "full_run.npz"))


@pytest.fixture(scope="module")
def model(case):
    return golden_bundle("unet_sd1", {"": case["empty_uncond"]}, schedule=Schedule())


def rules(case, run, **more):
    """The official controller's arrays as ours; without a table nothing is edited."""
    table = case.get(f"{run}_alpha_table", np.zeros((STEPS + 1, 1, 1, 1, TOKENS)))[:, 0, 0, 0]
    begin = np.argmax(table, axis=0)
    cross = np.stack([begin, begin + table.sum(axis=0).astype(int)], axis=-1)
    mapper, fresh = case.get(f"{run}_mapper", np.eye(TOKENS)[None])[0], np.zeros(TOKENS)
    if f"{run}_alphas" in case:
        share = case[f"{run}_alphas"].reshape(TOKENS)
        mapper, fresh = np.eye(TOKENS)[mapper].T * share, 1 - share
    scale = case.get(f"{run}_equalizer", np.ones((1, TOKENS)))[0]
    window, threshold, start, cells = RUNS[run]
    words = case.get(f"{run}_blend_layers", np.zeros((2, TOKENS)))
    edit = AttentionEdit(
        *(jnp.asarray(a, jnp.float32)[None, None] for a in (mapper, fresh, scale)),
        cross=jnp.asarray(cross)[None, None],
        self_window=jnp.asarray(window)[None, None],
        self_cells=cells,
        **more,
    )
    blend = LocalBlend(
        select=jnp.asarray(np.stack([words, 0 * words], axis=1), jnp.float32)[None],
        threshold=jnp.asarray([[threshold, 0.3]]),
        start=jnp.asarray([start]),
        grid=(16, 16),
    )
    return edit, blend


def nulls(case, run):
    """A null prompt per step, where the run has one."""
    texts = case.get(f"{run}_uncond_list")
    return [] if texts is None else [NullTexts(texts=jnp.asarray(texts)[None, :, 0])]


@pytest.mark.parametrize("run", RUNS)
def test_runs_are_the_official_ones(run, case, model, highest):
    rule = solvers.named("plms" if run == "replace_pndm" else "ddim")
    table = rule.steps(model.schedule, STEPS).replace(active=None)
    more = {}
    if run == "replace_pndm":
        more["calls"] = {k: v[None] for k, v in counted_calls(rule, table).items()}
    null = np.broadcast_to(case[f"{run}_uncond"], case[f"{run}_cond"].shape)
    cond = Cond(text=jnp.asarray(np.stack([null, case[f"{run}_cond"]]))[None])
    x = jnp.asarray(nhwc(case["latent"]))
    x = jnp.broadcast_to(x[:, None], (1, 2, *x.shape[1:]))
    edit = chain(*nulls(case, run), guidance_edit(7.5, 0.0, 1), *rules(case, run, **more))
    result = walk(model.denoiser, rule, edit, table, x, cond, record=path)
    official = nhwc(case[f"{run}_traj"])
    if run == "replace_pndm":  # two questions of the first step are one row
        official = official[1:]
    ours = np.asarray(result.recorded)[0]
    if "blend" in run:  # a cell at the threshold may flip
        assert (np.abs(ours - official) > 2e-4).mean() < 0.005
    else:
        np.testing.assert_allclose(ours, official, atol=2e-4, rtol=0)
    if run == "identity":
        np.testing.assert_array_equal(ours[:, 0], ours[:, 1])
    print(run, np.abs(ours - official).max())


def test_sites_are_found_without_running(model):
    sites = cross_sites(model, (32, 32, 4))
    assert [s.height for s in sites] == [32, 32, 16, 16, 8, 16, 16, 16, 32, 32, 32]
    assert reading_grid(model, (32, 32, 4)) == (16, 16)
    assert reading_grid(model, (32, 32, 4), 8) == (8, 8)
    with pytest.raises(de.UserError, match="there are: 8 x 8, 16 x 16, 32 x 32"):
        reading_grid(model, (32, 32, 4), 12)


def test_blocks_of_equal_pictures_become_targets():
    assert [block_size(keys) for keys in ("a", "aa", "ab", "aabb", "aab", "abab")] == [
        1, 2, 1, 2, 1, 1]  # fmt: skip


DRAWN = dict(steps=3, guidance=3.0, height=32, width=32)


def drawn(model, **more):
    given = dict(source="a cat on a mat", prompt="a dog on a mat") | DRAWN | more
    return de.edit(model, None, "prompt_to_prompt", **given).image.astype(int)


def plain(model, prompt, **more):
    return de.generate(model, prompt, **(DRAWN | more)).image.astype(int)


def test_without_any_window_it_is_plain_generation(tiny):
    off = drawn(tiny, cross_replace_steps=0.0, self_replace_steps=0.0, seed=3)
    assert np.abs(off - plain(tiny, "a dog on a mat", seed=3)).max() <= 1
    on = drawn(tiny, cross_replace_steps=1.0, self_replace_steps=1.0, seed=3)
    assert np.abs(on - off).max() > 1


def test_the_same_prompt_gives_the_source(tiny):
    same = drawn(tiny, prompt="a cat on a mat", seed=5)
    assert np.abs(same - plain(tiny, "a cat on a mat", seed=5)).max() <= 1


def test_factors_of_one_change_nothing_and_others_do(tiny):
    base = drawn(tiny, seed=1)
    np.testing.assert_array_equal(drawn(tiny, seed=1, equalizer="dog=1"), base)
    assert (drawn(tiny, seed=1, equalizer="dog=-4") != base).any()


def test_targets_of_one_edit_are_what_they_are_alone(tiny):
    """Same seed, same source: one edit of three rows; the targets do not see each other."""
    prompts = ["a dog on a mat", "a cat on a boat", "a big cat"]
    batch = drawn(tiny, prompt=prompts, seed=[2, 2, 2])
    for prompt, image in zip(prompts, batch, strict=True):
        assert np.abs(drawn(tiny, prompt=prompt, seed=2) - image).max() <= 1


def test_no_knob_compiles_anything(tiny):
    """Windows, words, factors, regions, thresholds, prompts: all are data."""
    seen = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    drawn(tiny, blend_words="cat dog")
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        drawn(tiny, source="a red boat", prompt="a blue big boat at night", controller="refine",
              mapper="official", cross_replace_steps="0.2:0.9, boat=0.4", self_replace_steps=0.9,
              equalizer="blue=3, night=-1", blend_words="boat", blend_without="red blue",
              blend_start=0.5, blend_threshold=0.6, blend_without_threshold=0.8, guidance=5.0,
              seed=9)  # fmt: skip
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not seen


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (dict(prompt="a big dog on a mat", controller="replace"), "use controller='refine'"),
        (dict(controller="swap"), "controller 'swap' is not one of"),
        (dict(mapper="other"), "mapper 'other' is not one of"),
        (dict(cross_replace_steps="0.8, lion=0.4"), "'lion' is not in the prompt"),
        (dict(equalizer="mats=2"), "did you mean 'mat'"),
        (dict(blend_words="lion"), "'lion' is not in the prompt"),
        (dict(blend_words="cat"), "blend_words needs a word of each prompt"),
        (dict(blend_words="mat", blend_start=2), "blend_start must be a share"),
        (dict(blend_words="mat", blend_resolution=5), "there are: "),
        (dict(source=None), "prompt_to_prompt needs source"),
        (dict(solver="ddpm"), "draws noise"),
        (dict(inversion="ddim"), "takes no inversion"),
        (dict(strength=0.5), "takes no strength"),
        (dict(compat="diffusers"), "compat must be 'official'"),
        (dict(self_replace_steps="much"), "self_replace_steps needs a number"),
    ],
)
def test_mistakes_are_answered_in_one_line(wrong, named, tiny):
    with pytest.raises(de.UserError, match=named) as told:
        drawn(tiny, **wrong)
    assert "\n" not in str(told.value)


def test_a_picture_is_needed_where_it_is_needed(tiny):
    with pytest.raises(de.UserError, match="sdedit needs a picture"):
        de.edit(tiny, None, "sdedit", prompt="a cat")


def of_picture(model, picture, **more):
    given = dict(source="a cat on a mat", prompt="a dog on a mat", steps=3, guidance=3.0, size=32)
    return de.edit(model, picture, "prompt_to_prompt", **(given | more)).image.astype(int)


@pytest.fixture(scope="module")
def rebuilt(tiny, picture):
    """The picture as the autoencoder gives it back."""
    from diffedit_jax.methods.run import encode, pictures

    return pictures(tiny, encode(tiny, picture[None].astype(np.float32) / 127.5 - 1))[0].astype(int)


def test_an_edict_pair_comes_back_when_the_prompt_is_the_source(tiny, picture, rebuilt):
    same = of_picture(tiny, picture, inversion="edict", prompt="a cat on a mat")
    assert np.abs(same - rebuilt).max() <= 1


def test_negative_prompt_inversion_cancels_guidance_in_the_source(tiny, picture):
    given = dict(inversion="negative_prompt", prompt="a cat on a mat")
    images = [of_picture(tiny, picture, guidance=g, **given) for g in (1.0, 9.0)]
    assert np.abs(images[0] - images[1]).max() <= 1


def test_on_the_inverted_path_the_background_is_the_sources_own(tiny, picture, monkeypatch):
    """pnp_inversion ends its source row on the picture's latent; a mask keeps targets there."""
    import sys

    from diffedit_jax.methods.run import encode

    module = sys.modules["diffedit_jax.methods.prompt_to_prompt"]
    monkeypatch.setattr(module, "pictures", lambda model, x: np.asarray(x))
    image = picture[None].astype(np.float32) / 127.5 - 1
    half = np.zeros((1, 32, 32), np.float32)
    half[:, :, 16:] = 1
    z = de.methods.prompt_to_prompt(tiny, image, source=["a cat"], prompt=["a dog"], mask=half,
                                    steps=3, guidance=3.0)  # fmt: skip
    z0, middle = np.asarray(encode(tiny, image)), z.shape[2] // 2
    np.testing.assert_array_equal(z[:, :, :middle], z0[:, :, :middle])
    assert (z[:, :, middle:] != z0[:, :, middle:]).all()


def test_an_unknown_inversion_is_named(tiny, picture):
    with pytest.raises(de.UserError, match="inversion 'magic' is not one of ddim"):
        of_picture(tiny, picture, inversion="magic")
