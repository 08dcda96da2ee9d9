"""Attention rules on given probabilities against the official controllers and LocalBlend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.core import Controls, Move, Prediction, Site, counted, row, table
from diffedit_jax.errors import UserError
from diffedit_jax.transforms.attention import AttentionEdit, WordReader, word_maps
from diffedit_jax.transforms.attention_blend import KeepOutside, LocalBlend
from tests.golden_models import GOLDEN

LAYERS = [
    ("down", "cross", 3),
    ("down", "self", 3),
    ("mid", "cross", 2),
    ("up", "cross", 4),
    ("up", "self", 4),
]
HEADS, STEPS, TOKENS = 2, 4, 77
RUNS = {  # name: (kind of mapper, re-weighted, prompts, self window)
    "stable_replace": ("replace", False, 2, (0, 2)),
    "nulltext_replace": ("replace", False, 2, (0, 2)),
    "stable_replace_uneven": ("replace", False, 2, (1, 3)),
    "stable_replace_words": ("replace", False, 2, (0, 1)),
    "stable_replace3": ("replace", False, 3, (0, 2)),
    "stable_refine": ("refine", False, 2, (0, 1)),
    "stable_refine3": ("refine", False, 3, (0, 2)),
    "stable_reweight": ("same", True, 2, (0, 1)),
    "stable_reweight_replace": ("replace", True, 2, (0, 1)),
    "nulltext_reweight_replace": ("replace", True, 2, (0, 1)),
    "stable_reweight_refine": ("refine", True, 2, (0, 1)),
    "stable_reweight_rows": ("same", True, 3, (0, 1)),
}


def site(place, kind, side, heads=HEADS):
    return Site(f"{place}/{kind}/{side}", kind, place, 0, side, side, heads)


@pytest.fixture(scope="module")
def case():
    return dict(np.load(GOLDEN / "01_p2p" / "controllers.npz"))


def windows(alpha):
    """[N + 1, targets, tokens] 0/1, one interval per token -> [targets, tokens, 2]."""
    begin = np.argmax(alpha, axis=0)
    return np.stack([begin, begin + alpha.sum(axis=0).astype(int)], axis=-1)


def edit_of(case, run, **more):
    kind, weighed, count, window = RUNS[run]
    targets = count - 1
    eye = np.broadcast_to(np.eye(TOKENS, dtype=np.float32), (targets, TOKENS, TOKENS))
    mapper, fresh = eye, np.zeros((targets, TOKENS), np.float32)
    if kind == "replace":
        mapper = case[f"{run}_mapper"]
    elif kind == "refine":
        share = case[f"{run}_alphas"].reshape(targets, TOKENS)
        mapper = np.stack(
            [np.eye(TOKENS)[m].T * s for m, s in zip(case[f"{run}_mapper"], share, strict=True)]
        )
        fresh = 1 - share
    scale = np.ones((targets, TOKENS), np.float32)
    if weighed:
        scale = np.broadcast_to(case[f"{run}_equalizer"], scale.shape)
    return AttentionEdit(
        mapper=jnp.asarray(mapper, jnp.float32),
        fresh=jnp.asarray(fresh),
        scale=jnp.asarray(scale),
        cross=jnp.asarray(windows(case[f"{run}_alpha"][:, :, 0, 0])),
        self_window=jnp.asarray([window] * targets),
        **more,
    )


def official_out(case, run, step, layer):
    """What the controller returned; its first step's tensors were then summed into in place."""
    out = case[f"{run}_out_s{step}_l{layer}"]
    if step > 0:
        return out
    place, kind, _ = LAYERS[layer]
    np.testing.assert_array_equal(out, case[f"{run}_total_{place}_{kind}_0"])
    return out - sum(case[f"{run}_out_s{s}_l{layer}"] for s in range(1, STEPS))


def controls_of(edit, steps, control=None):
    """What the network would be given at each step."""
    seen = []

    def network(x, step, cond, control):
        seen.append(control)

    for i in range(steps):
        step = row(counted(table(np.arange(9), np.ones(9), np.ones(9))), i)
        edit.denoise(network, ())(None, step, None, control)
    return seen


def test_golden_names(case):
    assert {k.split("_out_")[0] for k in case if "_out_" in k} == set(RUNS)


@pytest.mark.parametrize("run", RUNS)
def test_rules_do_what_the_official_controllers_do(run, case):
    count = RUNS[run][2]
    every = np.broadcast_to(np.eye(TOKENS, dtype=np.float32), (count, TOKENS, TOKENS))
    grids = ((3, 3), (2, 2), (4, 4))
    reader = WordReader(select=jnp.asarray(every), grids=grids, tag="all")
    totals = {}
    for s, control in enumerate(controls_of(edit_of(case, run), STEPS, reader)):
        for layer, (place, kind, side) in enumerate(LAYERS):
            given = case[f"in_P{count}_s{s}_l{layer}"].astype(np.float32) / np.float32(255)
            probs = jnp.asarray(given).reshape(2, count, HEADS, *given.shape[1:])
            here = site(place, kind, side)
            assert control.wants(here)
            edited, reads = control(probs, here)
            np.testing.assert_array_equal(edited[0], probs[0])
            out = edited[1].reshape(count * HEADS, *given.shape[1:])
            np.testing.assert_allclose(out, official_out(case, run, s, layer), atol=2e-6)
            if kind == "cross":
                (maps,) = word_maps({here.name: reads}, "all")
                totals[place] = totals.get(place, 0) + maps
    for place, total in totals.items():
        official = case[f"{run}_total_{place}_cross_0"].reshape(count, HEADS, -1, TOKENS).sum(1)
        ours = total.reshape(count, TOKENS, -1).transpose(0, 2, 1)
        np.testing.assert_allclose(ours, official, atol=1e-5)


def test_self_attention_is_edited_up_to_its_limit(case):
    for limit, taken in ((256, False), (1024, True)):
        (control, *_) = controls_of(edit_of(case, "stable_replace", self_cells=limit), 1)
        assert control.wants(Site("x", "self", "down", 0, 16, 16, 1))
        assert control.wants(Site("x", "self", "down", 0, 16, 18, 1)) == taken
        assert control.wants(Site("x", "cross", "down", 0, 64, 64, 1))


def test_without_guidance_there_is_no_branch(case):
    (control, *_) = controls_of(edit_of(case, "stable_replace"), 1)
    probs = jax.random.uniform(jax.random.key(0), (2, 2, HEADS, 9, TOKENS))
    both, _ = control(probs, site("down", "cross", 3))
    alone, _ = control(probs[1], site("down", "cross", 3))
    np.testing.assert_array_equal(both[1], alone)


def test_closed_windows_change_no_bit(case):
    edit = edit_of(case, "stable_reweight_replace")
    edit = edit.replace(cross=edit.cross * 0, self_window=edit.self_window * 0)
    (control, *_) = controls_of(edit, 1)
    for place, kind, side in LAYERS:
        keys = TOKENS if kind == "cross" else side**2
        probs = jax.random.uniform(jax.random.key(1), (2, 2, HEADS, side**2, keys))
        np.testing.assert_array_equal(control(probs, site(place, kind, side))[0], probs)


def test_the_source_row_never_depends_on_targets(case):
    (control, *_) = controls_of(edit_of(case, "stable_replace3"), 1)
    probs = jax.random.uniform(jax.random.key(2), (3, HEADS, 9, TOKENS))
    edited, _ = control(probs, site("down", "cross", 3))
    other, _ = control(probs.at[1:].set(0.5), site("down", "cross", 3))
    np.testing.assert_array_equal(edited[0], probs[0])
    np.testing.assert_array_equal(other[0], probs[0])


def test_readers_stand_beside_other_rules():
    probs = jax.random.uniform(jax.random.key(3), (2, HEADS, 9, 5))
    readers = [
        WordReader(select=jnp.full((2, 1, 5), w), grids=((3, 3),), tag=str(w)) for w in (1.0, 2.0)
    ]
    _, reads = Controls(rules=tuple(readers))(probs, site("up", "cross", 3))
    (one,), (two,) = (word_maps({"a": reads, "b": None}, tag) for tag in ("1.0", "2.0"))
    np.testing.assert_allclose(one[:, 0].reshape(2, 9), probs.sum((1, 3)), rtol=1e-6)
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


BLENDS = {  # name: (rows, size, threshold, threshold of the words that must not change, start)
    "stable_t30": (2, (64, 64), 0.3, 0.3, 0),
    "stable_t30_small": (2, (24, 40), 0.3, 0.3, 0),
    "stable_t60": (2, (64, 64), 0.6, 0.3, 0),
    "stable_absent_word": (2, (64, 64), 0.3, 0.3, 0),
    "nulltext": (2, (64, 64), 0.3, 0.3, 1),
    "nulltext_sub": (2, (64, 64), 0.3, 0.5, 0),
    "nulltext_P3": (3, (64, 64), 0.4, 0.3, 0),
}


@pytest.fixture(scope="module")
def blends():
    return dict(np.load(GOLDEN / "01_p2p" / "localblend.npz"))


def blend_of(case, name):
    rows, _, threshold, other, start = BLENDS[name]
    none = np.zeros((rows, TOKENS), np.float32)
    words = case.get(f"{name}_alpha_layers", none)
    without = case.get(f"{name}_substruct_layers", none)
    return LocalBlend(
        select=jnp.asarray(np.stack([words, without], axis=1)),
        threshold=jnp.asarray([threshold, other]),
        start=jnp.int32(start),
        grid=(16, 16),
    )


def moved(x, maps, position, tag="local_blend"):
    """A step that ends at x, whose network was read as the given probabilities say."""
    step = row(counted(table(np.arange(9), np.ones(9), np.ones(9))), position)
    taps = {}

    def network(x, step, cond, control):
        for i, probs in enumerate(maps):
            here = Site(str(i), "cross", "down", i, 16, 16, 1)
            taps[str(i)] = control(probs, here)[1]
        return Prediction.of("epsilon", x, x, 1.0, 1.0, taps=taps)

    return step, network, lambda p: Move(x=x, x_next=x, prediction=p, step=step)


def rows_of(case, name):
    rows, size = BLENDS[name][:2]
    x = case[f"x_P{rows}_{size[0]}x{size[1]}"]
    maps = [
        jnp.asarray(case[f"maps_P{rows}_{i}"].astype(np.float32) / np.float32(255))[:, None]
        for i in range(5)
    ]
    return jnp.asarray(np.moveaxis(x, 1, -1)), maps


@pytest.mark.parametrize("name", BLENDS)
def test_local_blend_is_the_official_one(name, blends):
    x, maps = rows_of(blends, name)
    blend = blend_of(blends, name)
    state = blend.init(x)
    calls = sum(f"{name}_call{k}_out" in blends for k in range(3))
    for k in range(calls):
        step, network, move = moved(x, maps, k)
        prediction = blend.denoise(network, state)(x, step, None)
        out, state = blend.settle(move(prediction), state)
        official = np.moveaxis(blends[f"{name}_call{k}_out"], 1, -1)
        np.testing.assert_allclose(out, official, atol=1e-6)
    if f"{name}_mask" in blends:
        region = blend.region(state, x.shape[1:3])[1:, ..., 0]
        np.testing.assert_array_equal(region, blends[f"{name}_mask"][:, 0])


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_prompt_that_lacks_the_word_leaves_the_region_to_the_other(lacking):
    """As the official code has it: its own map is 0/0, which is above no threshold."""
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(3).random((2, 16, 16), np.float32)
    maps[lacking] = 0
    blend = LocalBlend(select=jnp.zeros((2, 2, TOKENS)), threshold=jnp.asarray([0.9, 0.3]),
                       start=jnp.int32(0), grid=(16, 16))  # fmt: skip
    totals = jnp.stack([jnp.asarray(maps), jnp.zeros((2, 16, 16))], axis=1)
    pooled = torch.nn.functional.max_pool2d(torch.tensor(maps)[:, None], 3, 1, 1)
    wide = torch.nn.functional.interpolate(pooled, size=(32, 48))
    share = wide / wide.amax((2, 3), keepdim=True)
    assert share[lacking].isnan().all()
    official = (share[:1].gt(0.9) | share.gt(0.9))[1, 0].numpy()
    alone = share[1 - lacking, 0].gt(0.9).numpy()
    np.testing.assert_array_equal(blend.region(totals, (32, 48))[1, ..., 0], official)
    np.testing.assert_array_equal(official, alone)
    assert official.any() and not official.all()


def test_a_pair_of_latents_is_blended_both(blends):
    x, maps = rows_of(blends, "stable_t30")
    blend = blend_of(blends, "stable_t30")
    step, network, move = moved(x, maps, 0)
    prediction = blend.denoise(network, blend.init(x))(x, step, None)
    one, _ = blend.settle(move(prediction), blend.init(x))
    pair, _ = blend.settle(move(prediction).replace(x_next=(x, 2 * x)), blend.init(x))
    np.testing.assert_array_equal(pair[0], one)
    np.testing.assert_allclose(pair[1], 2 * one, rtol=1e-6)


def test_a_grid_that_the_network_lacks_is_named(blends):
    x, _ = rows_of(blends, "stable_t30")
    blend = blend_of(blends, "stable_t30")
    _, _, move = moved(x, [], 0)
    with pytest.raises(UserError, match="no cross attention of 16 x 16"):
        blend.settle(move(Prediction.of("epsilon", x, x, 1.0, 1.0)), blend.init(x))


def test_a_mask_keeps_the_targets_on_the_source_row():
    x = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
    mask = jnp.zeros((4, 4, 1)).at[1:3].set(1.0).at[0].set(0.5)
    out, _ = KeepOutside(mask=mask).settle(Move(x=x, x_next=x, prediction=None, step=None), ())
    np.testing.assert_array_equal(out[0], x[0])
    np.testing.assert_array_equal(out[:, 1:3], x[:, 1:3])
    np.testing.assert_array_equal(out[1:, 3], np.broadcast_to(x[0, 3], (2, 4, 2)))
    np.testing.assert_allclose(out[1, 0], (x[0, 0] + x[1, 0]) / 2, rtol=1e-6)
