"""Every pair of methods that goes together, on a network that costs nothing; why others do not."""

import pathlib
import re
import sys

import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax import solvers
from diffedit_jax.cli import main
from diffedit_jax.core import Cond, chain
from diffedit_jax.core.sample import sample_batch
from diffedit_jax.images import prepared_example
from diffedit_jax.methods.diffedit import diffedit_mask
from diffedit_jax.methods.generate import guidance_edit
from diffedit_jax.methods.registry import find
from diffedit_jax.methods.run import Draws, begin_noised
from diffedit_jax.methods.sdedit import partial_table
from diffedit_jax.transforms import Blend
from tests.methods.toy_attention import a_picture, toy
from tests.methods.toy_example import painter

SOURCE, TARGET = "a cat on a mat", "a dog on a mat"
COLUMNS = ("", "+diffedit", "+prompt_to_prompt", "+prompt_to_prompt+diffedit", "+paint_by_example")


def legal():
    """Every combination that is not refused, and every method that can be part of one."""
    names = [name for name, m in de.methods().items() if m.role in ("start", "edit")]
    found = []
    for name in (n + column for n in names for column in COLUMNS):
        try:
            found.append(find(name).name)
        except de.UserError:
            continue
    return found


def table():
    """The pairs as the documentation shows them."""
    head = ["begins with", "a mask of yours", *(c.replace("+", " + ").strip() for c in COLUMNS[1:])]
    rows = [head, ["---"] * len(head)]
    known = legal()
    for name, method in de.methods().items():
        if method.role == "start":
            told = ["tested" if name + c in known else "refused" for c in COLUMNS]
            rows.append([f"`{name}`", *told])
        elif method.role == "edit":
            rows.append([f"`{name}` alone", "tested", "tested", "", "", "refused"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


ALONE = [name for name in legal() if "+" not in name and 4 in find(name).channels]
ROWS = [name for name in legal() if "prompt_to_prompt" in name and "+diffedit" not in name]
MASKED = [name for name in legal() if "+diffedit" in name and 4 in find(name).channels]
PAINTED = [name for name in legal() if "+paint_by_example" in name]
SMALL = dict(steps=4, guidance=2.0, seed=[3])
HALF = np.zeros((1, 6, 6), np.float32)
HALF[:, :, 3:] = 1
PINNED = ("pnp_inversion", "prompt_to_prompt", "direct_inversion")  # only the source row is held
EXACT_SOURCE = {"edict": 1e-12, "direct_inversion": 1e-5} | dict.fromkeys(PINNED[:2], 0.0)
EXACT = dict(atol=3e-5, rtol=0)


@pytest.fixture(scope="module")
def model():
    return toy()


@pytest.fixture(autouse=True)
def latents(monkeypatch):
    """The methods give their last latents instead of pictures."""
    for name, module in sys.modules.items():
        if name.startswith("diffedit_jax.methods.") and hasattr(module, "pictures"):
            monkeypatch.setattr(module, "pictures", lambda model, x: np.asarray(x))


def run(model, name, **more):
    method = find(name)
    given = dict(prompt=[TARGET], source=[SOURCE], paste=False, inner=2, maps=2) | SMALL | more
    given = {k: v for k, v in given.items() if k in method.parameters}
    return method.function(model, a_picture(), **method.complete(given))


def test_the_documentation_lists_what_is_tested():
    text = (pathlib.Path(__file__).parents[2] / "docs" / "combinations.md").read_text()
    assert set(table().splitlines()) <= set(text.splitlines())
    assert set(ALONE) | set(ROWS) | set(MASKED) == {n for n in legal() if 4 in find(n).channels}


@pytest.mark.parametrize("name", [n for n in ALONE if n not in ("inpaint", "diffedit")])
def test_a_mask_of_ones_is_no_mask_and_one_of_zeros_keeps_the_picture(model, name):
    free, full = run(model, name), run(model, name, mask=0 * HALF + 1)
    np.testing.assert_allclose(full, free, **EXACT)
    shut, half = run(model, name, mask=0 * HALF), run(model, name, mask=HALF)
    kept = a_picture() if run is None else shut
    np.testing.assert_array_equal(half[:, :, :3], kept[:, :, :3])
    assert np.abs(half[:, :, 3:] - shut[:, :, 3:]).max() > 1e-3
    posterior = dict(posterior="mean") if "posterior" in find(name).parameters else {}
    if name != "prompt_to_prompt":  # whose source row is the reconstruction
        exact = run(model, name, mask=0 * HALF, **posterior)
        np.testing.assert_allclose(exact, a_picture(), atol=1e-6)


@pytest.mark.parametrize("name", ROWS)
def test_rows_keep_the_laws_on_every_start(model, name):
    """An empty mask gives the source row; so does the source prompt; ones are no mask."""
    given = dict(posterior="mean")
    edited, same = (run(model, name, mask=0 * HALF + 1, prompt=[p], **given)
                    for p in (TARGET, SOURCE))  # fmt: skip
    shut = run(model, name, mask=0 * HALF, **given)
    start = name.split("+")[0]
    if start in EXACT_SOURCE:
        np.testing.assert_allclose(shut, a_picture(), atol=EXACT_SOURCE[start], rtol=0)
    if start not in PINNED:
        np.testing.assert_allclose(same, shut, **EXACT)
    assert np.abs(edited - shut).max() > 1e-4
    np.testing.assert_allclose(run(model, name, **given), edited, **EXACT)
    kept = run(model, name, mask=HALF, **given)
    np.testing.assert_allclose(kept[:, :, :3], shut[:, :, :3], **EXACT)


@pytest.mark.parametrize("name", MASKED)
def test_the_mask_is_diffedits_own(model, name):
    """a+diffedit is a with the mask that diffedit finds, in the same compiled walk."""
    method = find(name.removesuffix("+diffedit"))
    told = dict(prompt=[TARGET], source=[SOURCE], steps=4, maps=2, seed=[3])
    found = diffedit_mask(model, a_picture(), **told)
    assert 0 < found.mean() < 1
    by_hand = run(model, name, mask=found)
    np.testing.assert_array_equal(run(model, name), by_hand)
    shared = {k: p.default for k, p in find(name).parameters.items() if not p.required}
    own = {k: v for k, v in shared.items() if k in method.parameters and k != "source"}
    alone = run(model, method.name, **(own | SMALL | dict(mask=found, paste=False, inner=2)))
    np.testing.assert_array_equal(by_hand, alone)


def test_the_numbers_of_the_start_reach_it(model):
    """Parameters of one method alone change the result of the combination."""
    for name, knob in {
        "edict+prompt_to_prompt": dict(mix=0.7),
        "ddim_inversion+prompt_to_prompt": dict(refine=2),
        "null_text+prompt_to_prompt": dict(rate=0.5),
        "direct_inversion+prompt_to_prompt": dict(injection=0.9),
        "negative_prompt+prompt_to_prompt": dict(proximal="l0"),
        "null_text + prompt_to_prompt": dict(proximal="l0"),
        "sdedit+diffedit": dict(threshold=0.1),
    }.items():
        assert np.abs(run(model, name, **knob) - run(model, name)).max() > 1e-6, name


def test_turning_any_knob_compiles_nothing_and_both_ways_are_one_program(model):
    """One program for EDICT's two ways with Prompt-to-Prompt in a mask, one for the search."""
    name = "edict+prompt_to_prompt+diffedit"
    sample_batch.clear_cache()
    first = run(model, name)
    assert sample_batch._cache_size() == 2
    turned = dict(prompt=["a big boat"], source=["a red dog on a sea"], guidance=5.0, mix=0.97,
                  threshold=0.2, cross_replace_steps=0.3, strength=0.5, seed=[8])  # fmt: skip
    assert np.abs(run(model, name, **turned) - first).max() > 1e-3
    assert sample_batch._cache_size() == 2


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("edict+ddim_inversion", "both say where the run begins"),
        ("generate+diffedit", "edits no picture"),
        ("diffedit+diffedit", "named twice"),
        ("inpaint+prompt_to_prompt", "for a source row to start from"),
        ("edict+", "joined by +"),
        ("edict+prompt_to_pompt", "did you mean 'prompt_to_prompt'"),
        ("paint_by_example+diffedit", "two texts, and this network reads none; give a mask"),
        ("paint_by_example+prompt_to_prompt", "attention of words, and this network reads none"),
        ("inpaint+paint_by_example", "both say what the network sees of the hole"),
        ("instruct_pix2pix+paint_by_example", "of 8 and of 9 channels"),
        ("null_text+paint_by_example", "fits null texts"),
        ("edict+paint_by_example+diffedit", "two texts"),
    ],
)
def test_what_cannot_mean_anything_is_refused_with_the_reason(name, said):
    with pytest.raises(de.UserError, match=re.escape(said)) as told:
        find(name)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("name", "knob", "said"),
    [
        ("edict+prompt_to_prompt", dict(solver="plms"), "walks with its own update rule"),
        ("edict+prompt_to_prompt", dict(inversion="ddim"), "is the inversion"),
        ("ddim_inversion+prompt_to_prompt", dict(eta=1.0), "tear the rows apart"),
        ("null_text+prompt_to_prompt", dict(negative="x"), "is what it finds"),
        ("edict+diffedit", dict(encode_prompt="x"), "encoded by the other"),
        ("edict+diffedit", dict(thresold=1), "did you mean 'threshold'"),
        ("edict+paint_by_example", dict(), "no parameter 'source': its network is told by the ex"),
        ("sdedit+paint_by_example", dict(), "no parameter 'source'; there are"),
    ],
)
def test_a_parameter_without_a_place_is_refused_with_the_reason(model, name, knob, said):
    given = dict(source=SOURCE, prompt=TARGET) | knob
    with pytest.raises(de.UserError, match=re.escape(said)):
        find(name).complete(given)


def test_the_first_role_gives_the_default():
    method = find("diffedit+prompt_to_prompt+edict")
    assert method.name == "edict+prompt_to_prompt+diffedit"
    assert method.parameters["guidance"].default == find("edict").parameters["guidance"].default
    assert "strength" not in method.per_image and "guidance" in method.per_image
    assert all(p.doc for p in method.parameters.values())


def test_evaluations_and_reports_of_a_combination_are_counted(model):
    name, seen = "edict+prompt_to_prompt+diffedit", []
    p = find(name).complete(dict(source=[SOURCE], prompt=[TARGET], maps=2, **SMALL))
    find(name).function(model, a_picture(), watch=lambda *said: seen.append(said[:2]), **p)
    rows = int(4 * 0.8)
    assert seen == [(i, 2 + 2 * rows) for i in range(1, 2 + 2 * rows + 1)]
    assert find(name).evaluations(p) == (2 + 4 * rows, 4)


def test_a_mask_that_confines_nothing_or_everything_is_refused(tiny, picture):
    for mask, said in ((0, "is empty"), (1, "covers the whole picture")):
        given = dict(prompt=TARGET, mask=np.full((32, 32), mask), size=32)
        with pytest.raises(de.UserError, match=said):
            de.edit(tiny, picture, "sdedit", **given)


def test_the_command_line_explains_a_combination(capsys):
    assert main(["methods", "prompt_to_prompt+edict"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("edict+prompt_to_prompt: edict says where the run begins")
    assert "mix " in said and "equalizer " in said and "Hertz" in said and "Wallace" in said
    assert main(["methods", "edict+sdedit"]) == 2
    assert "both say where the run begins" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif("instruct_pix2pix" not in de.methods(), reason="the method is not there")
def test_an_instruction_keeps_to_a_mask_and_finds_its_own(tiny_instruct):
    """Ones are no mask, zeros keep the picture, the search asks the network of 8 channels."""
    method, both = find("instruct_pix2pix"), find("instruct_pix2pix+diffedit")
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 32, 32, 3)).astype(np.float32)
    given = dict(prompt=["a red cat"], steps=2, seed=[3])

    def told(m, **more):
        return m.function(tiny_instruct, picture, **m.complete(given | more))

    found = diffedit_mask(tiny_instruct, picture, prompt=["a red cat"], steps=2, maps=1, seed=[3])
    np.testing.assert_array_equal(told(both, maps=1), told(method, mask=found))
    np.testing.assert_allclose(told(method, mask=0 * found + 1), told(method), atol=1e-4)
    kept = tiny_instruct.encode(picture)
    np.testing.assert_allclose(told(method, mask=0 * found), kept, atol=1e-4)
    with pytest.raises(de.UserError, match="for a source row to start from"):
        find("instruct_pix2pix+prompt_to_prompt")
    with pytest.raises(de.UserError, match="both say where the run begins"):
        find("instruct_pix2pix+edict")


def test_only_starts_without_words_of_their_own_take_an_example():
    assert [name.split("+")[0] for name in PAINTED] == [
        n for n in de.methods() if n in ("sdedit", "ddim_inversion", "direct_inversion", "edict")
    ]


@pytest.fixture(scope="module")
def painting():
    """(name, knobs) -> [1, h, w, c] the last latents of a run that fills the right half."""
    model, example = painter(), np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8)

    def run(name, **more):
        method = find(name)
        given = dict(example=[example], mask=HALF, posterior="mean", **SMALL) | more
        return method.function(model, a_picture(), **method.complete(given))

    return run


@pytest.mark.parametrize("name", PAINTED)
def test_an_example_goes_into_the_hole_and_the_rest_is_kept(painting, name):
    """Outside the hole the picture's own latent; inside, what the example says, by its scale."""
    found, other = painting(name), dict(example=[np.full((20, 20, 3), 255, np.uint8)])
    np.testing.assert_allclose(found[:, :, :3], a_picture()[:, :, :3], atol=1e-6)
    assert np.abs((painting(name, **other) - found)[:, :, 3:]).max() > 1e-3
    untold = painting(name, guidance=0.0)  # nobody is asked about the example
    np.testing.assert_array_equal(painting(name, guidance=0.0, **other), untold)
    several = painting(name, example=[np.full((20, 20, 3), 255, np.uint8)], layout="inpaint")
    assert np.abs(several - painting(name, **other)).max() > 1e-3  # the network sees the hole


def test_inversions_come_back_where_the_example_has_no_say(painting):
    """Both ways are told "no example" then, so the hole too ends on the picture's latent."""
    found = painting("edict+paint_by_example", guidance=0.0)
    np.testing.assert_allclose(found, a_picture(), atol=1e-12, rtol=0)
    plain, refined = (
        np.abs(painting("ddim_inversion+paint_by_example", guidance=0.0, refine=n) - a_picture())
        for n in (0, 30)
    )
    assert refined.max() < 1e-4 < plain.max()


def test_sdedit_with_an_example_is_its_chain_written_out(painting):
    """Noised picture, guidance by the example, the hole's channels, the picture noised around."""
    model, example = painter(), np.random.default_rng(1).integers(0, 256, (20, 20, 3), np.uint8)
    rule, image = solvers.named("ddim"), a_picture()
    table, eps = partial_table(model, rule, 4, 0.5, None, 1), Draws(1, [3])("start", (6, 6, 3))
    x = begin_noised(table, image, eps)
    shown = model.example(prepared_example(example, 8)[None])
    told = np.stack([0 * np.asarray(shown.text), shown.text], axis=1)
    keep = 1 - HALF[..., None]
    seen = np.concatenate([image * keep, keep], -1)
    cond = Cond(text=told, channels=np.stack([seen, seen], axis=1))
    edit = chain(guidance_edit(2.0, 0.0, 1), Blend(mask=1 - keep, x0=image, noise=eps))
    by_hand = sample_batch(model.denoiser, rule, edit, table, x, cond).x
    np.testing.assert_allclose(
        painting("sdedit+paint_by_example", strength=0.5), by_hand, atol=1e-5
    )


def test_turning_the_example_or_the_hole_compiles_nothing(painting):
    """EDICT's two ways are one program, and one more inside the mask."""
    sample_batch.clear_cache()
    painting("edict+paint_by_example")
    before, hole = sample_batch._cache_size(), HALF[:, :, ::-1]
    painting("edict+paint_by_example", mask=hole, guidance=5.0, seed=[9], strength=0.5, mix=0.95,
             example=[np.zeros((9, 30, 3), np.uint8)])  # fmt: skip
    assert before == 2 == sample_batch._cache_size()


@pytest.mark.slow
def test_a_painted_combination_is_an_edit_like_others(tiny_exemplar, picture, monkeypatch):
    hole = np.zeros((32, 32))
    hole[8:24, 8:24] = 1
    given = dict(example=255 - picture, size=32, steps=2, strength=0.5, seed=3)
    monkeypatch.undo()  # pictures, not latents
    name, seen = "paint_by_example+sdedit", []
    done = de.edit(tiny_exemplar, picture, name, mask=hole, paste=True, band=0,
                   watch=lambda *said: seen.append(said[:2]), **given)  # fmt: skip
    np.testing.assert_array_equal(done.image[hole == 0], picture[hole == 0])
    assert np.abs(done.image[hole == 1].astype(int) - picture[hole == 1]).max() > 1
    assert seen == [(1, 1)] and done.recipe["method"] == "sdedit+paint_by_example"
    assert set(done.recipe["inputs"]) == {"image", "mask", "example"}
    with pytest.raises(de.UserError, match="the mask is empty"):
        de.edit(tiny_exemplar, picture, name, mask=0 * hole, **given)
    with pytest.raises(de.UserError, match="needs example"):
        de.edit(tiny_exemplar, picture, name, mask=hole, steps=2)


def test_a_network_of_texts_is_refused_for_an_example(tiny_inpaint):
    with pytest.raises(de.UserError, match="is told by texts"):
        find("sdedit+paint_by_example").check_model(tiny_inpaint)
