"""Pictures read anew and encoded in the step, and texts read once: the same lesson, other costs."""

import jax
import numpy as np
import pytest
from PIL import Image

from diffedit_jax.bundles import load
from diffedit_jax.errors import UserError
from diffedit_jax.training import boxed_pictures, encoding, pictures
from diffedit_jax.training.data import Share
from diffedit_jax.training.loop import fit
from diffedit_jax.training.step import total_loss
from diffedit_jax.training.tasks import (
    concepts,
    dreambooth,
    instruct_pix2pix,
    paint_by_example,
    textual_inversion,
)
from diffedit_jax.training.tasks.shared import learned
from tests.golden_models import exemplar_folder
from tests.training import golden
from tests.training.test_example_task import config_of as config_of_examples
from tests.training.test_personal_tasks import config_of, write_pairs

SUBJECT = dict(kind="cat", word="sks", templates="a photo of {}", class_prompts="a {}")


@pytest.fixture(scope="module")
def model():
    return golden.tiny()


@pytest.fixture
def folder(tmp_path, model):
    """Four square pictures of the model's size, in two colours each, no two alike."""
    place = tmp_path / "pictures"
    place.mkdir()
    for k in range(4):
        pixels = np.full((model.size, model.size, 3), 60 * k, np.uint8)
        pixels[:, : model.size // 2] += 20
        Image.fromarray(pixels).save(place / f"{k}.png")
    return place


@pytest.fixture
def drawn(monkeypatch, folder):
    """The class pictures of a model that need not draw them."""
    files = sorted(folder.iterdir())[:3]
    monkeypatch.setattr(dreambooth, "class_pictures", lambda *_: (files, [0, 0, 0]))


def loss_of(task, config, batch):
    """One batch's loss, with gradients that depend on every part of it."""
    trained = task.selection.init(task.params, jax.random.key(1))
    keys = jax.random.split(jax.random.key(2))
    with jax.default_matmul_precision("highest"):
        made = jax.jit(total_loss(task, config))
        return float(made(trained, task.params, batch, keys, 0)[0])


def encoded(model, batch, **names):
    """The batch as one that was encoded beforehand: {latent's name: (picture's, deviation's)}."""
    found = {k: v for k, v in batch.items() if k not in {picture for picture, _ in names.values()}}
    for name, (picture, deviation) in names.items():
        mean, spread = pictures.posterior(model, batch[picture])
        scale = model.scaling_factor if deviation else 1.0
        found[name] = scale * np.asarray(mean)
        if deviation:
            found[deviation] = scale * np.asarray(spread)
    return found


def test_latents_in_the_step_are_those_beforehand(model, folder, tmp_path, drawn):
    anew = config_of("dreambooth", class_pictures=3, cache_latents=False, flip=0.5, **SUBJECT)
    batch = dreambooth.dreambooth_data(model, anew, folder, tmp_path).next()
    np.testing.assert_array_equal(batch["prior"], [False, False, True, True])
    kept = config_of("dreambooth", class_pictures=3, prior=2.0, **SUBJECT)
    before = encoded(model, batch, latent=("image", "deviation"))
    losses = [
        loss_of(dreambooth.full_task(model, config), config, rows)
        for config, rows in ((anew, batch), (kept, before))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    assert "vae" not in dreambooth.full_task(model, kept).params


def test_both_pictures_of_a_pair_are_encoded_in_the_step(model, tmp_path):
    write_pairs(tmp_path / "data", {"a": [3, 5], "b": [7]})
    wide = instruct_pix2pix.widened(model)
    anew = config_of("train_instruct_pix2pix", cache_latents=False, drop=0.2)
    data, _ = instruct_pix2pix.instruct_data(wide, anew, tmp_path / "data", tmp_path)
    batch = data.next() | {"r": np.float32([0.1, 0.5, 0.9, 0.95])}
    kept = config_of("train_instruct_pix2pix", drop=0.2)
    before = encoded(wide, batch, latent=("image", "deviation"), source=("source_image", None))
    tasks = [instruct_pix2pix.instruct_task(wide, config) for config in (anew, kept)]
    losses = [
        loss_of(task, config, rows)
        for task, config, rows in zip(tasks, (anew, kept), (batch, before), strict=True)
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_a_prompts_pairs_are_drawn_alike_and_keep_their_instruction(model, tmp_path):
    write_pairs(tmp_path / "data", {"a": [3, 5, 8], "b": [7]})
    config = config_of("train_instruct_pix2pix", cache_latents=False, batch=2)
    data, _ = instruct_pix2pix.instruct_data(model, config, tmp_path / "data", tmp_path)
    known = {}
    for path in (tmp_path / "data").glob("*/*_1.png"):
        square = pictures.read_square(path, model.size)
        known[square.tobytes()] = (path.parent.name, path.stem[0])
    seen = []
    for _ in range(20):
        batch = data.next()
        seen += [known[one.tobytes()] for one in batch["image"]]
        for (name, seed), source, ids in zip(
            seen[-2:], batch["source_image"], batch["ids"], strict=True
        ):
            before = pictures.read_square(tmp_path / "data" / name / f"{seed}_0.png", model.size)
            np.testing.assert_array_equal(source, before)
            np.testing.assert_array_equal(ids, model.tokenize([f"make it {name}"])[0])
    assert len(set(seen)) == 4 and [name for name, _ in seen].count("b") == 20


def test_pairs_to_look_at_are_those_that_can_be_read(model, tmp_path):
    """A look must not end a run that leaves broken pictures out."""
    write_pairs(tmp_path / "data", {"a": [3], "b": [7]})
    (tmp_path / "data" / "a" / "3_1.png").write_text("not a picture")
    config = config_of("train_instruct_pix2pix", cache_latents=False, skip_broken=True,
                       look_every=1, look_count=3)  # fmt: skip
    _, shown = instruct_pix2pix.instruct_data(model, config, tmp_path / "data", tmp_path)
    assert shown.orders == ("make it b",) * 3 and shown.latents.shape[:2] == (3, 2)
    np.testing.assert_allclose(shown.share, 1 / 3)
    (tmp_path / "data" / "b" / "7_0.png").write_text("not a picture")
    with pytest.raises(UserError, match="none of the pictures"):
        instruct_pix2pix.instruct_data(model, config, tmp_path / "data", tmp_path)


@pytest.fixture(scope="module")
def exemplar(tmp_path_factory):
    return load(exemplar_folder(tmp_path_factory.mktemp("exemplar")))


@pytest.mark.slow
def test_hole_and_picture_are_encoded_in_the_step(exemplar, tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(tmp_path / "a.png")
    lines = ["picture,left,top,right,bottom", "a.png,10,20,60,50", "a.png,40,5,85,60"]
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    anew, kept = (config_of_examples(cache_latents=flag) for flag in (False, True))
    data, _ = paint_by_example.example_data(exemplar, anew, tmp_path, tmp_path / "out")
    batch = data.next() | {"dropped": np.arange(4) == 1}
    assert (batch["keep"].min((1, 2, 3)) < 1).all() and batch["image"].dtype == np.uint8
    before = encoded(
        exemplar, batch, latent=("image", "deviation"), masked=("masked_image", "masked_deviation")
    )
    losses = [
        loss_of(paint_by_example.example_task(exemplar, config), config, rows)
        for config, rows in ((anew, batch), (kept, before))
    ]
    np.testing.assert_allclose(*losses, rtol=1e-5)


def test_pictures_without_a_usable_box_are_told_before_the_first_step(tmp_path):
    for name, size in (("a.png", (90, 60)), ("b.png", (50, 80))):
        Image.new("RGB", size).save(tmp_path / name)
    rows = [("a.png", (0, 0, 90, 60)), ("b.png", (5, 5, 40, 70))]
    listed = [boxed_pictures.Boxed(tmp_path / name, (box,)) for name, box in rows]
    with pytest.warns(UserWarning, match=r"left out: .*a\.png has no box"):
        assert boxed_pictures.usable_files(listed) == listed[1:]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (80, 50)).save(tmp_path / "b.png", exif=exif)  # upright, 50 wide again
    assert boxed_pictures.usable_files(listed[1:]) == listed[1:]
    (tmp_path / "b.png").write_text("not a picture")
    with pytest.raises(UserError, match="skip_broken=True"):
        boxed_pictures.usable_files(listed[1:])


@pytest.mark.slow
def test_a_run_that_reads_anew_goes_on_to_the_bit(model, folder, tmp_path, drawn):
    def run(out, steps):
        config = config_of("dreambooth", class_pictures=3, cache_latents=False, flip=0.5,
                           skip_broken=True, steps=steps, save_every=1, cache_texts=8,
                           **SUBJECT)  # fmt: skip
        data = dreambooth.dreambooth_data(model, config, folder, tmp_path)
        return learned(fit(dreambooth.full_task(model, config), data, config, out, quiet=True))

    whole = run(tmp_path / "whole", 3)
    run(tmp_path / "cut", 2)
    jax.tree.map(np.testing.assert_array_equal, whole, run(tmp_path / "cut", 3))


def test_two_processes_read_what_one_does(model, folder, tmp_path, drawn):
    config = config_of("dreambooth", class_pictures=3, cache_latents=False, batch=8, **SUBJECT)
    read = lambda *share: dreambooth.dreambooth_data(model, config, folder, tmp_path, Share(*share))  # noqa: E731
    one, *two = read(), read((0,), 2), read((1,), 2)
    for _ in range(3):
        whole, parts = one.next(), [data.next() for data in two]
        rows = [i for part in (0, 1) for i in (2 * part, 2 * part + 1, 4 + 2 * part, 5 + 2 * part)]
        for name, x in whole.items():
            np.testing.assert_array_equal(x[rows], np.concatenate([p[name] for p in parts]))


@pytest.mark.slow
def test_kept_texts_teach_the_same(model, folder, tmp_path):
    found = {}
    for most in (0, 1):
        config = config_of("dreambooth", prior=0.0, cache_texts=most, **SUBJECT)
        task = dreambooth.full_task(model, config)
        assert ("text_encoder" in task.params) == (not most)
        data = dreambooth.dreambooth_data(model, config, folder, tmp_path)
        with jax.default_matmul_precision("highest"):
            found[most] = learned(fit(task, data, config, tmp_path / str(most), quiet=True))
    near = lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6)  # noqa: E731
    jax.tree.map(near, found[0], found[1])


def test_kept_instructions_are_left_out_as_others_are(model, tmp_path):
    write_pairs(tmp_path / "data", {"a": [3], "b": [7]})
    wide, conds = instruct_pix2pix.widened(model), []
    for most in (0, 5):
        config = config_of("train_instruct_pix2pix", cache_texts=most, drop=0.2, batch=2)
        data, _ = instruct_pix2pix.instruct_data(wide, config, tmp_path / "data", tmp_path)
        batch = data.next() | {"r": np.float32([0.1, 0.9])}
        task = instruct_pix2pix.instruct_task(wide, config)
        conds.append(task.condition(task.params, batch, jax.random.key(0)))
    np.testing.assert_allclose(conds[0].text, conds[1].text, atol=1e-5)
    np.testing.assert_allclose(conds[1].text[0], wide.text(wide.tokenize([""]))[0], atol=1e-5)


def test_texts_are_read_once_and_the_oldest_forgotten(model):
    read = []

    class Text:
        module = model.texts[0].module

        def __call__(self, ids):
            read.append(len(ids))
            return model.texts[0](ids)

    change = encoding.KnownTexts(Text(), 3)
    say = lambda *texts: change(0, {"ids": model.tokenize(texts)})  # noqa: E731
    found = say("a cat", "a dog")
    np.testing.assert_allclose(found["context"], model.text(model.tokenize(["a cat", "a dog"])))
    assert list(found) == ["context"]
    say("a dog", "a cat")
    say("a cat", "a cat")
    assert read == [2]
    say("a tree", "a house")  # the dog is forgotten
    say("a tree", "a cat")
    assert read == [2, 2]
    say("a dog", "a tree")
    assert read == [2, 2, 2]


def test_the_square_may_be_anywhere_on_the_longer_side(model, tmp_path):
    wide = np.zeros((16, 40, 3), np.uint8)
    wide[..., 0] = np.arange(40)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    rng = np.random.default_rng(0)
    begin = lambda slack: int(rng.integers(slack + 1))  # noqa: E731
    starts = {pictures.read_square(tmp_path / "wide.png", 16, begin)[3, 0, 0] for _ in range(400)}
    assert starts == set(range(25))
    middle = pictures.read_square(tmp_path / "wide.png", 16)
    np.testing.assert_array_equal(middle, wide[:, 12:28])


def test_settings_that_contradict_are_one_line(model, folder, tmp_path):
    with pytest.raises(UserError, match="cache_latents=False"):
        config = config_of("dreambooth", crop="random", prior=0.0, **SUBJECT)
        dreambooth.dreambooth_data(model, config, folder, tmp_path)
    with pytest.raises(UserError, match="cache_texts=0"):
        config = config_of("dreambooth", text_encoder=True, cache_texts=9, **SUBJECT)
        dreambooth.full_task(model, config)
    with pytest.raises(UserError, match="cache_texts=0"):
        config = config_of("dreambooth_lora", targets="attention and text", cache_texts=9)
        dreambooth.lora_task(model, config)
    (tmp_path / "all" / "toy").mkdir(parents=True)
    with pytest.raises(UserError, match="cache_latents=True"):
        config = config_of("textual_inversion", cache_latents=False)
        concepts.lessons(model, concepts.concepts_of(tmp_path / "all", config), tmp_path)


def test_a_word_grows_with_pictures_that_are_read_anew(model, folder):
    longer, rows = textual_inversion.with_word(model, "<toy>", 3)
    config = config_of("textual_inversion", templates="object", progressive=2, batch=2,
                       cache_latents=False, crop="random")  # fmt: skip
    data = textual_inversion.inversion_data(longer, config, folder, rows)
    seen = [set(np.unique(data.next()["ids"])) & set(rows) for _ in range(3)]
    assert seen == [set(rows[:1]), set(rows[:2]), set(rows[:2])]
    other = textual_inversion.inversion_data(longer, config, folder, rows)
    other.restore(data.state())
    assert set(np.unique(other.next()["ids"])) & set(rows) == set(rows)
