"""Pictures that a run shows of itself: of what it has learned by then, of the same noise always."""

import numpy as np
import pytest
from PIL import Image

from diffedit_jax.bundles import load
from diffedit_jax.bundles.adapters import with_embedding
from diffedit_jax.methods.generate import generate
from diffedit_jax.training import looks, pairs
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.examples import Examples
from diffedit_jax.training.launch import load_config
from diffedit_jax.training.loop import fit
from diffedit_jax.training.settings import complete
from diffedit_jax.training.state import TrainState
from diffedit_jax.training.tasks import (
    dreambooth,
    instruct_pix2pix,
    paint_by_example,
    textual_inversion,
)
from tests.golden_models import exemplar_folder
from tests.training import golden

CONFIGS = golden.GOLDEN.parents[2] / "configs"
WAYS = dict(look_count=2, look_steps=2, look_guidance=3.0)


def config_of(name, **changes):
    config = complete(load_config(CONFIGS / f"{name}.py"))
    config.update(dict(steps=2, batch=4, save_every=10, log_every=10, **WAYS) | changes)
    return config


def state_of(trained):
    """All that a look reads of a state."""
    return TrainState(*[None] * len(TrainState.__dataclass_fields__)).replace(trained=trained)


@pytest.fixture(scope="module")
def model():
    return golden.tiny()


def test_a_word_is_drawn_as_it_is_by_then(model, tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for k in range(2):
        pixels = np.random.default_rng(k).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    config = config_of("textual_inversion", word="<toy>", look_every=1, templates="a {}|the {}")
    longer, rows = textual_inversion.with_word(model, "<toy>", 2)
    make = textual_inversion.inversion_batches(longer, config, folder, rows)
    task = textual_inversion.inversion_task(longer, config, rows)
    look = looks.of_prompts(longer, task, config, textual_inversion.prompts(config))
    state = fit(task, Stepped(make), config, tmp_path / "out", look=look, quiet=True)
    shown = [np.array(Image.open(tmp_path / "out" / "pictures" / f"word-00000{k}.png"))
             for k in (1, 2)]  # fmt: skip
    path = tmp_path / "learned_embeds.safetensors"
    textual_inversion.write_word(path, "<toy>", state.trained)
    wanted = generate(with_embedding(model, path), None, prompt=["a <toy>", "the <toy>"],
                      seed=config.seed, steps=2, guidance=3.0)  # fmt: skip
    last = np.stack(np.split(shown[1], 2, axis=1)).astype(int)
    assert np.abs(last - wanted).max() <= 1
    assert (shown[0] != shown[1]).any()  # the rate is high, and so two steps differ


def test_dreambooth_looks_at_the_class_where_it_is_to_stay(model):
    config = config_of(
        "dreambooth", word="sks", kind="cat", templates="a {}", class_prompts="my {}"
    )
    assert dreambooth.prompts(model, config) == {"subject": ("a sks cat",), "class": ("my cat",)}
    assert set(dreambooth.prompts(model, config_of("dreambooth", kind="cat", prior=0.0))) == {
        "subject"
    }


@pytest.mark.slow
def test_an_edit_is_shown_between_what_was_and_what_should_be(model):
    wide = instruct_pix2pix.widened(model)
    config, rng = config_of("train_instruct_pix2pix"), np.random.default_rng(0)
    latents = rng.normal(size=(3, 2, 8, 8, 4)).astype(np.float16)
    latents[1] = np.nan  # left out
    data = pairs.Pairs(latents, 1.0, ("a", "b", "c"), np.float64([0.5, 0, 0.5]))
    task = instruct_pix2pix.instruct_task(wide, config)
    look = looks.of_pairs(wide, task, config, data)
    state = state_of(task.selection.init(task.params, None))
    found, again = (look(k, state)["edits"] for k in (3, 9))
    np.testing.assert_array_equal(found, again)
    side = 8 * wide.factor
    assert found.shape == (2, 3 * side, side, 3) and found.dtype == np.uint8


@pytest.mark.slow
def test_a_hole_is_shown_filled(tmp_path):
    made = load(exemplar_folder(tmp_path))
    config, rng = config_of("train_paint_by_example"), np.random.default_rng(0)
    keep = np.ones((3, 8, 8, 1), np.float16)
    keep[1:, 2:5, 3:6] = 0  # the first has no hole
    shown = rng.integers(0, 256, (3, 28, 28, 3), np.uint8)
    data = Examples(rng.normal(size=(3, 4, 8, 8, 4)).astype(np.float16), keep, shown)
    task = paint_by_example.example_task(made, config)
    look = looks.of_examples(made, task, config, data)
    found = look(1, state_of(task.selection.init(task.params, None)))["holes"]
    side = 8 * made.factor
    assert found.shape == (2, 3 * side, side, 3)
    wanted = np.array(Image.fromarray(shown[1]).resize((side, side), Image.BICUBIC))
    np.testing.assert_array_equal(found[0, side : 2 * side], wanted)
