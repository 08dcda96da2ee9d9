"""Prompt-to-Prompt against the official code's runs, and its laws."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax import solvers
from diffedit_jax.core import Cond, Schedule, chain
from diffedit_jax.methods.controls import counted_calls
from diffedit_jax.methods.generate import guidance_edit
from diffedit_jax.methods.inversion import path
from diffedit_jax.methods.rows import block_size
from diffedit_jax.methods.run import walk
from diffedit_jax.methods.sites import cross_sites, reading_grid
from diffedit_jax.transforms import AttentionEdit, LocalBlend, NullTexts
from tests.golden_models import GOLDEN, golden_bundle, nhwc
from tests.methods.toy_attention import a_picture, toy

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


@pytest.fixture(scope="module")
def model6():
    return toy()


SOURCE, TARGET = "a cat on a mat", "a dog on a mat"
EXACT = dict(atol=2e-5, rtol=0)


@pytest.fixture(autouse=True)
def latents(monkeypatch):
    """The methods give their last latents instead of pictures."""
    for name in ("prompt_to_prompt", "generate"):
        module = sys.modules[f"diffedit_jax.methods.{name}"]
        monkeypatch.setattr(module, "pictures", lambda model, x: np.asarray(x))


def edited(model, images=None, **more):
    given = dict(source=[SOURCE], prompt=[TARGET], steps=4, guidance=3.0) | more
    return de.methods.prompt_to_prompt(model, images, **given)


def plain(model, prompt, **more):
    return de.methods.generate(model, prompt=[prompt], steps=4, guidance=3.0, **more)


def test_without_any_window_it_is_plain_generation(model6):
    off = edited(model6, cross_replace_steps=0.0, self_replace_steps=0.0, seed=3)
    np.testing.assert_allclose(off, plain(model6, TARGET, seed=3), **EXACT)
    on = edited(model6, cross_replace_steps=1.0, self_replace_steps=1.0, seed=3)
    assert np.abs(on - off).max() > 1e-2


def test_each_window_alone_has_an_effect(model6):
    none = dict(cross_replace_steps=0.0, self_replace_steps=0.0)
    off = edited(model6, **none)
    for name in none:
        assert np.abs(edited(model6, **(none | {name: 1.0})) - off).max() > 1e-3


def test_the_same_prompt_gives_the_source(model6):
    same = edited(model6, prompt=[SOURCE], seed=5)
    np.testing.assert_allclose(same, plain(model6, SOURCE, seed=5), **EXACT)


def test_factors_of_one_change_nothing_and_others_do(model6):
    base = edited(model6, seed=1)
    np.testing.assert_array_equal(edited(model6, seed=1, equalizer="dog=1"), base)
    assert np.abs(edited(model6, seed=1, equalizer="dog=-4") - base).max() > 1e-3


def test_targets_of_one_edit_are_what_they_are_alone(model6):
    """Same seed, same source: one edit of four rows; the targets do not see each other."""
    prompts = [TARGET, "a cat on a boat", "a big cat"]
    words = dict(equalizer=["dog=2", None, "big=3"], cross_replace_steps=[0.5, "0.2:0.8", 1.0])
    batch = edited(model6, source=[SOURCE] * 3, prompt=prompts, seed=[2, 2, 2], **words)
    other = edited(model6, source=[SOURCE] * 3, prompt=prompts, seed=[2, 2, 9], **words)
    for i, prompt in enumerate(prompts):
        own = {name: value[i] for name, value in words.items()}
        alone = edited(model6, prompt=[prompt], seed=2, **own)
        np.testing.assert_allclose(alone[0], batch[i], **EXACT)
        if i < 2:
            np.testing.assert_allclose(other[i], batch[i], **EXACT)


def test_outside_the_region_the_target_is_the_source(model6):
    """A region that nothing can enter, and one that nothing can leave."""
    source = plain(model6, SOURCE, seed=4)
    free = edited(model6, seed=4)
    shut = edited(model6, seed=4, blend_words="cat dog", blend_threshold=1.0, blend_start=0.0)
    np.testing.assert_allclose(shut, source, **EXACT)
    wide = edited(model6, seed=4, blend_words="cat dog", blend_threshold=0.0)
    np.testing.assert_allclose(wide, free, **EXACT)
    some = edited(model6, seed=4, blend_words="cat dog", blend_threshold=0.9)
    kept = (np.abs(some - source) < 1e-5).all(axis=-1)
    assert kept.any() and not kept.all()


@pytest.fixture(scope="module")
def smooth(model6):
    """A network whose answers differ wherever the prompts do: no tanh or softmax at its end."""
    return model6.replace(denoiser=jax.tree.map(lambda a: 0.1 * a, model6.denoiser))


APART = dict(cross_replace_steps=0.0, self_replace_steps=0.0)  # each prompt has maps of its own


def region(model, **more):
    """[h, w] where the target may differ from the source row: to the bit, in one program."""
    given = dict(seed=4, blend_threshold=0.97) | APART | more
    shut = edited(model, **(given | dict(blend_threshold=1.0, blend_start=0.0)))
    return (edited(model, **given) != shut).any(axis=-1)[0]


def test_a_word_of_the_source_alone_gives_every_target_the_same_region(smooth):
    dog, boat = (region(smooth, prompt=[f"a {word} on a mat"], blend_words="cat")
                 for word in ("dog", "boat"))  # fmt: skip
    np.testing.assert_array_equal(dog, boat)
    assert dog.any() and not dog.all()


def test_a_region_is_that_of_either_prompt_s_word(smooth):
    """At the last step alone, so that the targets' maps are those of one free run."""
    cat, dog, both = (region(smooth, blend_words=words, blend_start=0.75)
                      for words in ("cat", "dog", "cat dog"))  # fmt: skip
    assert cat.any() and dog.any() and (cat != dog).any() and not both.all()
    np.testing.assert_array_equal(cat | dog, both)


def test_words_of_each_prompt_count_in_that_prompt_alone(smooth):
    """Named for one prompt, a word that both have is as one that the other prompt lacks."""
    both = dict(source=["a cat or dog on a mat"], prompt=["a boat or big cat"])
    own = region(smooth, blend_words={"source": "dog", "prompt": "boat"}, **both)
    np.testing.assert_array_equal(own, region(smooth, blend_words="dog boat", **both))
    source, target, shared = (
        region(smooth, blend_words=words, blend_start=0.75, **both)
        for words in ({"source": "cat"}, {"prompt": "cat"}, "cat")
    )
    assert source.any() and target.any() and (source != target).any() and not shared.all()
    np.testing.assert_array_equal(source | target, shared)


def test_targets_with_words_of_their_own_are_what_they_are_alone(smooth):
    """The region of one is not another's, whatever they share."""
    words = {TARGET: "dog", "a boat on a mat": "boat", "a cat on a boat": ""}
    given = dict(blend_threshold=0.97) | APART
    batch = edited(smooth, source=[SOURCE] * 3, prompt=list(words), seed=[4, 4, 4],
                   blend_words=list(words.values()), **given)  # fmt: skip
    for z, (prompt, word) in zip(batch, words.items(), strict=True):
        alone = edited(smooth, prompt=[prompt], seed=4, blend_words=word, **given)
        np.testing.assert_allclose(z, alone[0], **EXACT)


def test_no_knob_compiles_anything(model6):
    """Windows, words, factors, regions, thresholds, prompts: all are data."""
    seen = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    edited(model6, blend_words="cat dog")
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        edited(model6, source=["a red boat"], prompt=["a blue big boat at night"],
               controller="refine", mapper="official", equalizer="blue=3, night=-1",
               cross_replace_steps="0.2:0.9, boat=0.4", self_replace_steps=0.9, blend_words="boat",
               blend_without="red blue", blend_start=0.5, blend_threshold=0.6,
               blend_without_threshold=0.8, guidance=5.0, seed=9)  # fmt: skip
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not seen


def test_plms_can_count_as_the_official_code_does(model6):
    """The same windows, but for the one step whose two questions it tells apart."""
    given = dict(solver="plms", cross_replace_steps=0.5, self_replace_steps=0.5)
    ours, theirs = (edited(model6, compat=compat, **given) for compat in ("", "official"))
    assert np.isfinite(theirs).all() and np.abs(ours - theirs).max() > 1e-4


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        (dict(prompt=["a big dog on a mat"], controller="replace"), "use controller='refine'"),
        (dict(controller="swap"), "controller 'swap' is not one of"),
        (dict(mapper="other"), "mapper 'other' is not one of"),
        (dict(cross_replace_steps="0.8, lion=0.4"), "'lion' is not in the prompt"),
        (dict(equalizer="mats=2"), "did you mean 'mat'"),
        (dict(blend_words="cat lion"), "'lion' is in no prompt; there are: a, cat, on, mat, dog$"),
        (dict(blend_words="mat", blend_without="mats"), "'mats' is in no prompt"),
        (dict(blend_words={"source": "dog"}), "'dog' is not in the prompt 'a cat on a mat'"),
        (dict(blend_words={"target": "dog"}), "has words of 'source' and 'prompt', not of target"),
        (
            dict(
                source=[SOURCE] * 2,
                prompt=[TARGET, "a boat on a mat"],
                seed=[2, 2],
                blend_words="dog",
            ),
            "nor 'a boat on a mat' has a word of blend_words",
        ),
        (dict(blend_words="mat", blend_start=2), "blend_start must be a share"),
        (dict(blend_words="mat", blend_resolution=5), "there are: 6 x 6"),
        (dict(solver="ddpm"), "draws noise"),
        (dict(inversion="ddim"), "takes no inversion"),
        (dict(strength=0.5), "takes no strength"),
        (dict(compat="diffusers"), "compat must be 'official'"),
        (dict(self_replace_steps="much"), "self_replace_steps needs a number"),
        (dict(images=a_picture(), inversion="magic"), "inversion 'magic' is not one of ddim"),
        (dict(images=a_picture(), height=8), "takes no height"),
        (dict(images=a_picture(), solver="plms"), "begun by pnp_inversion takes no solver"),
        (dict(images=a_picture(), inversion="negative_prompt", negative=["fog"]), "no negative"),
        (dict(images=a_picture(), inversion="direct_inversion", spacing="trailing"), "no spacing"),
        (
            dict(images=a_picture(), inversion="edict", negative=["fog"], self_cells=-1),
            "self_cells",
        ),
        (dict(equalizer="mat=nan"), "equalizer needs a number"),
        (dict(blend_words="mat", blend_threshold=7), "blend_threshold must be a share"),
    ],
)
def test_mistakes_are_answered_in_one_line(wrong, named, model6):
    with pytest.raises(de.UserError, match=named) as told:
        edited(model6, **wrong)
    assert "\n" not in str(told.value)


def test_what_a_model_recommends_is_not_what_a_caller_asks(model6):
    plain = edited(model6, a_picture())
    object.__setattr__(model6, "defaults", {"solver": "ddim"})  # as a bundle has them
    try:
        np.testing.assert_array_equal(edited(model6, a_picture(), solver="ddim"), plain)
    finally:
        object.__delattr__(model6, "defaults")


def test_self_cells_of_0_leave_self_attention_alone(model6):
    off, none, all_of_it = (
        edited(model6, cross_replace_steps=0.0, self_replace_steps=window, self_cells=cells)
        for window, cells in ((0.8, 0), (0.0, None), (0.8, None))
    )
    np.testing.assert_array_equal(off, none)
    assert np.abs(all_of_it - none).max() > 1e-4


def test_what_is_missing_is_named(model6):
    with pytest.raises(de.UserError, match="prompt_to_prompt needs source"):
        de.edit(model6, None, "prompt_to_prompt", prompt="a cat")
    with pytest.raises(de.UserError, match="sdedit needs a picture"):
        de.edit(model6, None, "sdedit", prompt="a cat")


def test_an_edict_pair_comes_back_when_the_prompt_is_the_source(model6):
    image = a_picture()
    same = edited(model6, image, inversion="edict", prompt=[SOURCE])
    np.testing.assert_allclose(same, image, atol=1e-4)


def test_negative_prompt_inversion_cancels_guidance_in_the_source(model6):
    given = dict(inversion="negative_prompt", prompt=[SOURCE])
    one, nine = (edited(model6, a_picture(), guidance=g, **given) for g in (1.0, 9.0))
    np.testing.assert_allclose(one, nine, **EXACT)


@pytest.mark.parametrize("inversion", ["ddim", "pnp_inversion", "null_text", "edict"])
def test_every_inversion_leads_an_edit(inversion, model6):
    """The edit differs from the picture and from what another prompt gives."""
    image = a_picture()
    dog, boat = (edited(model6, image, inversion=inversion, prompt=[f"a {word} on a mat"],
                        guidance=2.0) for word in ("dog", "boat"))  # fmt: skip
    assert np.isfinite(dog).all() and np.abs(dog - image).max() > 1e-3
    assert np.abs(dog - boat).max() > 1e-4


def test_on_the_inverted_path_the_background_is_the_sources_own(model6):
    """pnp_inversion ends its source row on the picture's latent; a mask keeps targets there."""
    image, half = a_picture(), np.zeros((1, 6, 6), np.float32)
    half[:, :, 3:] = 1
    z = edited(model6, image, mask=half)
    np.testing.assert_array_equal(z[:, :, :3], image[:, :, :3])
    assert (z[:, :, 3:] != image[:, :, 3:]).all()


def test_partial_strength_counts_its_own_steps(model6):
    """Half of eight steps is four rows, and a window of all of them edits all of them."""
    given = dict(steps=8, strength=0.5, self_replace_steps=0.0)
    full, none = (edited(model6, a_picture(), cross_replace_steps=c, **given) for c in (1.0, 0.0))
    assert np.abs(full - none).max() > 1e-4
