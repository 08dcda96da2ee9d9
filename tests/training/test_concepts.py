"""A folder of folders becomes a file for each concept."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from diffedit_jax.bundles.adapters import with_embedding, with_lora
from diffedit_jax.errors import UserError
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.farm import train_farm
from diffedit_jax.training.launch import load_config
from diffedit_jax.training.loop import fit
from diffedit_jax.training.settings import complete
from diffedit_jax.training.tasks import concepts, dreambooth, textual_inversion
from diffedit_jax.training.tasks.shared import learned
from tests.training import golden

CONFIGS = golden.GOLDEN.parents[2] / "configs"


@pytest.fixture(scope="module")
def model():
    return golden.tiny()


@pytest.fixture
def folders(tmp_path):
    """Two concepts of two pictures each; the second says what it starts from."""
    rng = np.random.default_rng(0)
    for name in ("bear", "toy"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for k in range(2):
            pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / name / f"{k}.png")
    tell(tmp_path / "data" / "toy", {"initial": "dog", "word": "<car>"})
    return tmp_path / "data"


def tell(folder, settings):
    (folder / "concept.json").write_text(json.dumps(settings))


def config_of(name="textual_inversion", **changes):
    config = complete(load_config(CONFIGS / f"{name}.py"))
    small = dict(steps=2, batch=2, save_every=2, log_every=1, initial="cat", templates="object")
    config.update((small if name == "textual_inversion" else {}) | changes)
    return config


@pytest.mark.slow
def test_words_are_those_of_separate_runs(model, folders, tmp_path):
    config, out = config_of(), tmp_path / "out"
    found = concepts.concepts_of(folders, config)
    plan = concepts.lessons(model, found, out)
    assert plan.called == ["<bear>", "<car>"]
    names = [each.name for each in found]
    train_farm(plan.tasks, plan.data, config, out, watch=concepts.write_all(plan, names, out),
               quiet=True)  # fmt: skip
    own = config_of(word="<car>", initial="dog", seed=config.seed + 1)
    longer, rows = textual_inversion.with_word(model, "<car>", own.vectors)
    batches = textual_inversion.inversion_batches(longer, own, folders / "toy", rows)
    task = textual_inversion.inversion_task(longer, own, rows)
    alone = learned(fit(task, Stepped(batches), own, tmp_path / "alone", quiet=True))
    used = with_embedding(model, out / "toy.safetensors")
    table = used.texts[0].params["embeddings"]["token_embedding"]["embedding"]
    np.testing.assert_allclose(np.asarray(table)[list(rows)], alone, atol=1e-5)
    assert (with_embedding(model, out / "bear.safetensors").tokenize(["<bear>"]) >= rows[0]).any()
    with (out / "losses.csv").open() as file:
        first, *lines = csv.reader(file)
    assert first == ["step", "bear", "toy"] and len(lines) == 1
    assert (out / "log.csv").read_text().count("\n") == 3  # a head and a line per step


@pytest.mark.slow
def test_low_ranks_have_classes_of_their_own(model, folders, tmp_path):
    changes = dict(steps=1, batch=2, save_every=2, log_every=1, prior=0.0, kind="dog", rank=2)
    config, out = config_of("dreambooth_lora", **changes), tmp_path / "out"
    tell(folders / "toy", {"kind": "car", "word": "sks"})
    found = concepts.concepts_of(folders, config)
    plan = concepts.lessons(model, found, out)
    rare = dreambooth.identifier(model, found[0].config)
    assert plan.called == [rare, "sks car"] and rare.endswith(" dog")
    train_farm(plan.tasks, plan.data, config, out, quiet=True,
               watch=concepts.write_all(plan, ["bear", "toy"], out))  # fmt: skip
    ids = model.tokenize(["a photo of a cat"])
    for name in ("bear", "toy"):
        changed = with_lora(model, out / f"{name}.safetensors", 1.0)
        assert changed.tokenize(["a photo of a cat"]).tolist() == ids.tolist()


def test_what_folders_cannot_mean_is_refused(model, folders, tmp_path):
    with pytest.raises(UserError, match="name one"):
        concepts.concepts_of(None, config_of())
    with pytest.raises(UserError, match="holds no folder"):
        concepts.concepts_of(folders / "toy", config_of())
    with pytest.raises(UserError, match="configs/textual_inversion.py"):
        config = complete({"steps": 1})
        concepts.lessons(model, concepts.concepts_of(folders, config_of())[:0] + [
            concepts.Concept("toy", folders / "toy", config)], tmp_path)  # fmt: skip
    for text, said in (
        ("{", "no JSON"), ('{"rate": 1}', "may set word, initial"), ("[1]", "may set"),
        ('{"initial": 3}', "initial wants"), ('{"flip": "no"}', "flip wants"),
    ):  # fmt: skip
        (folders / "toy" / "concept.json").write_text(text)
        with pytest.raises(UserError, match=said):
            concepts.concepts_of(folders, config_of())


def test_a_run_of_other_concepts_is_refused(model, folders, tmp_path):
    config, out = config_of(), tmp_path / "out"

    def run():
        plan = concepts.lessons(model, concepts.concepts_of(folders, config), out)
        train_farm(plan.tasks, plan.data, config, out, quiet=True)

    run()
    shutil.copytree(folders / "toy", folders / "zebra")
    tell(folders / "zebra", {"word": "<z>"})
    with pytest.raises(UserError, match="concepts"):
        run()
