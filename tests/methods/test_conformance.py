"""Laws that every registered method keeps. A new method adds one row to CASES."""

import pathlib
import tempfile

import jax
import numpy as np
import pytest

import diffedit_jax as de
from tests.golden_models import style_file

pytestmark = pytest.mark.slow  # whoever runs a method first compiles it
HALF = np.zeros((32, 32), np.float32)
HALF[:, 16:] = 1
STYLES = [style_file(pathlib.Path(tempfile.mkdtemp()) / "style.safetensors", seed=k)
          for k in (0, 1)]  # fmt: skip
SHOWN = np.random.default_rng(5).integers(0, 256, (40, 60, 3), np.uint8)

# name -> (parameters, the same knobs turned, parameters that name no picture)
CASES = {
    "generate": (
        dict(prompt="a cat", steps=4, guidance=3.0, seed=0, height=32, width=32),
        dict(prompt="two dogs on a boat", guidance=5.0, seed=7),
    ),
    "sdedit": (
        dict(prompt="a cat", steps=4, strength=0.6, guidance=3.0, seed=0),
        dict(prompt="two dogs on a boat", strength=0.9, guidance=5.0, seed=7),
    ),
    "inpaint": (
        dict(prompt="a cat", steps=4, guidance=3.0, seed=0, mask=HALF),
        dict(prompt="two dogs on a boat", strength=0.7, guidance=5.0, seed=7, mask=1 - HALF),
    ),
    "diffedit": (
        dict(prompt="a cat", source="a bird", steps=4, guidance=3.0, seed=0, mask=HALF),
        dict(prompt="two dogs on a boat", strength=0.5, guidance=5.0, seed=7, mask=1 - HALF),
    ),
    "prompt_to_prompt": (
        dict(prompt="a cat", source="a bird", steps=4, guidance=3.0, seed=0),
        dict(prompt="two dogs on a boat", cross_replace_steps=0.5, guidance=5.0, seed=7),
    ),
    "ddim_inversion": (
        dict(prompt="a cat", source="a bird", steps=4, guidance=3.0, seed=0),
        dict(prompt="two dogs on a boat", strength=0.7, guidance=5.0, seed=7, label="source"),
    ),
    "direct_inversion": (
        dict(prompt="a cat", steps=4, guidance=3.0, seed=0),
        dict(prompt="two dogs on a boat", injection=0.2, injected_steps=2, guidance=5.0, seed=7),
    ),
    "edict": (
        dict(prompt="a cat", source="a bird", steps=4, guidance=3.0, seed=0),
        dict(prompt="two dogs on a boat", strength=0.5, mix=0.95, guidance=5.0, seed=7),
    ),
    "null_text": (
        dict(prompt="a cat", source="a bird", steps=4, guidance=3.0, inner=2, seed=0),
        dict(prompt="two dogs on a boat", strength=0.7, inner=3, rate=0.1, guidance=5.0, seed=7),
    ),
    "negative_prompt": (
        dict(prompt="a cat", source="a bird", steps=4, guidance=3.0, seed=0),
        dict(prompt="two dogs on a boat", strength=0.7, towards_null=0.5, guidance=5.0, seed=7),
    ),
    "pnp_inversion": (
        dict(prompt="a cat", source="a bird", steps=4, guidance=3.0, seed=0),
        dict(prompt="two dogs on a boat", cross_replace_steps=0.5, guidance=5.0, seed=7),
    ),
    "instruct_pix2pix": (
        dict(prompt="a cat", steps=4, guidance=3.0, image_guidance=1.0, seed=0),
        dict(prompt="two dogs on a boat", image_guidance=0.7, guidance=5.0, seed=7),
    ),
    "inst": (
        dict(style=STYLES[0], prompt="a *", steps=4, strength=0.6, guidance=3.0, seed=0),
        dict(style=STYLES[1], prompt="dogs in *", strength=0.9, adain=0.5, guidance=5.0, seed=7),
    ),
    "paint_by_example": (
        dict(example=SHOWN[:20], mask=HALF, steps=4, guidance=3.0, solver="ddim", seed=0),
        dict(example=SHOWN[:, 30:], mask=1 - HALF, guidance=5.0, seed=7),
    ),
}

# where the 4-channel model does not fit
MODELS = {"instruct_pix2pix": "tiny_instruct", "paint_by_example": "tiny_exemplar"}
# rows of one network call, where they are not (null, prompt)
ROWS = {"prompt_to_prompt": 4, "pnp_inversion": 4, "instruct_pix2pix": 3}
ASKED = {"edict": 2, "null_text": 2}  # network calls per row that is reported (null_text: inner=2)
BEGUN_BY_THE_PROMPT = {"inst"}  # the noise that it starts from is an answer to the prompt
# their null prompt is what they find, or what was learned
NO_NEGATIVE = {"null_text", "negative_prompt", "paint_by_example"}


@pytest.fixture
def tiny(tiny, request):
    """The tiny model that the test's method fits."""
    own = MODELS.get(request.node.callspec.params["name"])
    return request.getfixturevalue(own) if own else tiny


def run(model, picture, name, **parameters):
    if name == "generate":
        return de.generate(model, **parameters)
    return de.edit(model, picture, name, size=32, **parameters)


@pytest.fixture
def compilations():
    """Counts what XLA compiles from here on."""
    seen = []

    def listen(event, duration, **kwargs):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    jax.jit(lambda x: x + 1)(0)  # a new function: what is counted must be seen to count
    assert seen
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)


def test_every_method_has_a_case():
    assert set(CASES) == set(de.methods())


@pytest.mark.parametrize("name", CASES)
def test_turning_the_knobs_compiles_nothing(tiny, picture, name, compilations):
    given, turned = CASES[name]
    first = run(tiny, picture, name, **given).image
    before = len(compilations)
    second = run(tiny, picture, name, **(given | turned)).image
    assert len(compilations) == before
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("name", CASES)
def test_a_batch_is_a_loop(tiny, picture, name):
    given, turned = CASES[name]
    both = [given | turned, given]
    telling = "prompt" if "prompt" in given else "example"
    lists = {k: [b[k] for b in both] for k in (telling, "guidance")}
    batch = run(tiny, [picture, picture[::-1]], name, **(given | lists)).image
    for index, (source, one) in enumerate(zip([picture, picture[::-1]], both, strict=True)):
        own = given | {k: one[k] for k in lists} | {"index": index}
        alone = run(tiny, source, name, **own).image
        # a float difference of 1e-5 may still tip a pixel over a rounding edge
        assert np.abs(alone.astype(int) - batch[index]).max() <= 1
        assert (alone != batch[index]).mean() < 0.01


@pytest.mark.parametrize("name", CASES)
def test_the_same_call_gives_the_same_bits(tiny, picture, name):
    given, _ = CASES[name]
    images = [run(tiny, picture, name, **given).image for _ in range(2)]
    np.testing.assert_array_equal(*images)


@pytest.mark.parametrize("name", CASES)
def test_watching_changes_nothing(tiny, picture, name):
    given, _ = CASES[name]
    seen = []

    def watch(done, total, preview):
        seen.append((done, total, preview().shape))

    plain = run(tiny, picture, name, **given).image
    watched = run(tiny, picture, name, watch=watch, **given).image
    assert np.abs(plain.astype(int) - watched).max() <= 1
    assert [s[0] for s in seen] == list(range(1, seen[0][1] + 1))
    assert seen[0][2] == (1, 32, 32, 3)


@pytest.mark.parametrize("name", CASES)
def test_guidance_zero_and_one_are_honoured(tiny, picture, name):
    given, turned = CASES[name]
    other = given | {k: turned[k] for k in ("prompt", "example") if k in turned}
    if name not in BEGUN_BY_THE_PROMPT:  # at 0 the prompt has no say
        shown = [run(tiny, picture, name, **(g | {"guidance": 0.0})).image for g in (given, other)]
        np.testing.assert_array_equal(*shown)
    if name in NO_NEGATIVE:
        return
    negative = dict(guidance=1.0, negative="something else")
    followed = [
        run(tiny, picture, name, **(given | n)).image for n in ({"guidance": 1.0}, negative)
    ]
    assert np.abs(followed[0].astype(int) - followed[1]).max() <= 1  # at 1 the negative has none


@pytest.mark.parametrize("name", CASES)
def test_parameters_are_documented(name):
    known = de.methods()[name]
    assert known.summary and known.paper
    assert not [p.name for p in known.parameters.values() if not p.doc]


@pytest.mark.parametrize("name", CASES)
def test_a_typo_is_answered_with_the_nearest_name(tiny, picture, name):
    given, _ = CASES[name]
    with pytest.raises(de.UserError, match="did you mean 'guidance'"):
        run(tiny, picture, name, guidence=3, **given)


@pytest.mark.parametrize("name", CASES)
def test_evaluations_are_counted_right(tiny, picture, name, monkeypatch):
    """The plan's number of network calls is the number of rows that are walked."""
    given, _ = CASES[name]
    seen = []
    run(tiny, picture, name, watch=lambda done, total, preview: seen.append(done), **given)
    known = de.methods()[name]
    calls, rows = known.evaluations(known.complete(given))
    assert (calls, rows) == (seen[-1] * ASKED.get(name, 1), ROWS.get(name, 2))
