"""The personalisation tasks from a folder of pictures to a product that can be used again."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from diffedit_jax.bundles import load
from diffedit_jax.bundles.adapters import with_embedding, with_lora
from diffedit_jax.errors import UserError
from diffedit_jax.training import objectives, pairs, products, subject, words
from diffedit_jax.training.data import Stepped
from diffedit_jax.training.launch import load_config
from diffedit_jax.training.loop import fit
from diffedit_jax.training.selections import LowRank
from diffedit_jax.training.settings import complete
from diffedit_jax.training.tasks import dreambooth, instruct_pix2pix, textual_inversion
from diffedit_jax.training.tasks.shared import learned
from tests.training import golden

CONFIGS = golden.GOLDEN.parents[2] / "configs"


@pytest.fixture(scope="module")
def model():
    return golden.tiny()


@pytest.fixture
def pictures(tmp_path):
    """A folder of three pictures of different sizes."""
    folder, rng = tmp_path / "pictures", np.random.default_rng(0)
    folder.mkdir()
    for k, size in enumerate([(20, 30, 3), (16, 16, 3), (40, 33, 3)]):
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(folder / f"{k}.png")
    return folder


def config_of(name, **changes):
    config = complete(load_config(CONFIGS / f"{name}.py"))
    config.update(dict(steps=2, batch=4, save_every=10, log_every=10, word="<toy>") | changes)
    return config


def run(task, make, config, out):
    return learned(fit(task, Stepped(make), config, out, quiet=True))


def test_a_learned_word_is_written_and_read_again(model, pictures, tmp_path):
    config = config_of("textual_inversion", initial="cat", templates="object", vectors=2)
    longer, rows = textual_inversion.with_word(model, "<toy>", 2)
    make = textual_inversion.inversion_batches(longer, config, pictures, rows)
    task = textual_inversion.inversion_task(longer, config, rows)
    found = run(task, make, config, tmp_path / "out")
    path = tmp_path / "learned_embeds.safetensors"
    textual_inversion.write_word(path, "<toy>", found)
    used = with_embedding(model, path)
    ids = used.tokenize(["a photo of a <toy>"])
    np.testing.assert_array_equal(ids, longer.tokenize(["a photo of a <toy>"]))
    joined = task.selection.join(task.params, found)["text_encoder"]
    wanted = longer.texts[0].replace(params=joined)(ids)[0]
    np.testing.assert_allclose(used.text(ids), wanted, atol=1e-5)
    assert np.abs(np.asarray(found) - np.asarray(task.selection.init(task.params, None))).max() > 0


def test_progressive_batches_begin_with_one_vector(model, pictures):
    longer, rows = textual_inversion.with_word(model, "<toy>", 3)
    config = config_of("textual_inversion", templates="object", progressive=10)
    make = textual_inversion.inversion_batches(longer, config, pictures, rows)
    seen = [set(np.unique(make(step)["ids"])) & set(rows) for step in (0, 9, 19, 50)]
    assert seen == [set(rows[:1]), set(rows[:2]), set(rows), set(rows)]


def test_min_snr_weighs_the_subject_alone(model, pictures, tmp_path, monkeypatch):
    """Source: diffusers train_dreambooth.py, snr_weights of the instance part of the loss."""
    files = [tmp_path / "class.png"] * 3
    Image.new("RGB", (model.size, model.size), "teal").save(files[0])
    monkeypatch.setattr(dreambooth, "class_pictures", lambda *_: (files, [0, 0, 0]))
    monkeypatch.setattr(objectives, "ask", lambda unet, params, x, t, cond: 0 * x)
    errors = {}
    for gamma in (0.0, 5.0):
        config = config_of("dreambooth", kind="cat", word="sks", class_pictures=3, min_snr=gamma,
                           class_prompts="a {}", templates="a photo of {}")  # fmt: skip
        make = dreambooth.dreambooth_batches(model, config, pictures, tmp_path)
        batch = make(0) | {"t": np.int32([1, 2, 1, 2])}  # an snr of about 1000
        task = dreambooth.full_task(model, config)
        errors[gamma] = task.objective(task.params, None, batch, jax.random.key(0), 0)[0]
    np.testing.assert_array_equal(batch["prior"], [False, False, True, True])
    np.testing.assert_array_equal(errors[5.0][2:], errors[0.0][2:])
    snr = model.schedule.abar[[1, 2]] / (1 - model.schedule.abar[[1, 2]])
    np.testing.assert_allclose(errors[5.0][:2] / errors[0.0][:2], 5 / snr, rtol=1e-5)


@pytest.mark.slow
def test_dreambooth_draws_its_class_and_balances_the_two_halves(model, pictures, tmp_path):
    config = config_of("dreambooth", kind="cat", word="sks", class_pictures=3, class_steps=2,
                       class_prompts="a {}", templates="a photo of {}")  # fmt: skip
    make = dreambooth.dreambooth_batches(model, config, pictures, tmp_path)
    drawn = sorted((tmp_path / "class").iterdir())
    assert len(drawn) == 3
    before = drawn[1].read_bytes()
    drawn[0].unlink()
    again = dreambooth.dreambooth_batches(model, config, pictures, tmp_path)
    assert drawn[0].is_file() and drawn[1].read_bytes() == before
    batch, other = make(3), again(3)
    for name in batch:
        np.testing.assert_array_equal(batch[name], other[name])
    np.testing.assert_array_equal(batch["ids"][0], model.tokenize(["a photo of sks cat"])[0])
    np.testing.assert_array_equal(batch["ids"][3], model.tokenize(["a cat"])[0])
    np.testing.assert_array_equal(batch["weight"], [2, 2, 2, 2])
    task = dreambooth.full_task(model, config)
    found = run(task, make, config, tmp_path / "out")
    products.write_model(dreambooth.with_trained(model, found), tmp_path / "model", None)
    back = load(tmp_path / "model")
    jax.tree.map(np.testing.assert_array_equal, back.denoiser.params, found["unet"])
    jax.tree.map(np.testing.assert_array_equal, back.texts[0].params, model.texts[0].params)


@pytest.mark.slow
@pytest.mark.parametrize("layout, convolutions", [("diffusers", 0), ("kohya", 2)])
def test_a_lora_is_written_and_merged_again(model, pictures, tmp_path, layout, convolutions):
    config = config_of("dreambooth_lora", kind="cat", prior=0.0, rate=1e-2, layout=layout,
                       targets="transformers and text", convolutions=convolutions, alpha=3.0,
                       templates="a photo of {}")  # fmt: skip
    make = dreambooth.dreambooth_batches(model, config, pictures, tmp_path)
    task = dreambooth.lora_task(model, config)
    found = run(task, make, config, tmp_path / "out")
    path = tmp_path / "lora.safetensors"
    dreambooth.write_low_rank(path, dreambooth.lora(config), found, layout)
    used, wanted = with_lora(model, path), task.selection.join(task.params, found)
    for name, params in (("unet", used.denoiser.params), ("text_encoder", used.texts[0].params)):
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), params, task.params[name])
        assert max(jax.tree.leaves(moved)) > 1e-3
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, wanted[name])


def test_a_rare_word_is_short_one_token_and_hardly_trained(model):
    tokenizer = model.tokenizers[0]
    table = np.ones((654, 4), np.float32)
    short = words.single_token(tokenizer, "cat")
    table[short] = 0.1
    assert words.rare_words(tokenizer, table, 1, seed=3)[0] != ""
    many = words.rare_words(tokenizer, table, 3)
    assert len(set(many)) == 3
    assert all(len(w) <= 3 and words.single_token(tokenizer, w) >= 0 for w in many)


def write_pairs(folder, seeds):
    rng = np.random.default_rng(1)
    for name, own in seeds.items():
        place = folder / name
        place.mkdir(parents=True)
        said = {"caption": "a cat", "edit": f"make it {name}", "output": "a dog"}
        (place / "prompt.json").write_text(json.dumps(said))
        for seed in own:
            for side in (0, 1):
                pixels = rng.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{seed}_{side}.png")


@pytest.mark.parametrize("listing", [True, False])
def test_pairs_of_a_folder(model, tmp_path, listing):
    write_pairs(tmp_path / "data", {"a": [3, 5], "b": [7]})
    if listing:
        (tmp_path / "data" / "seeds.json").write_text(json.dumps([["a", ["3", "5"]], ["b", ["7"]]]))
    found = pairs.folder_pairs(model, tmp_path / "data", tmp_path / "keep.npy")
    assert found.orders == ("make it a", "make it a", "make it b")
    np.testing.assert_allclose(found.share, [0.25, 0.25, 0.5])
    unscaled = model.encode(
        np.asarray(Image.open(tmp_path / "data" / "b" / "7_0.png"), np.float32)[None] / 127.5 - 1
    ) / model.scaling_factor  # fmt: skip
    _, resized = subject.read_folder(tmp_path / "data" / "b", model.size)
    assert resized.shape[1:3] == (model.size, model.size)
    if model.size == 16:
        np.testing.assert_allclose(found.latents[2, 0], unscaled[0], atol=2e-2)
    (tmp_path / "data" / "b" / "7_1.png").unlink()
    if listing:
        with pytest.raises(UserError, match="7_1"):
            pairs.folder_pairs(model, tmp_path / "data", tmp_path / "other.npy")


@pytest.mark.parametrize(
    "text", ["[[", '{"a": ["3"]}', '["a", "b"]', '[["a", "3"]]', '[["a", ["3"], 1]]', "7"]
)
def test_a_list_of_pairs_of_another_form_is_one_line(tmp_path, text):
    (tmp_path / "seeds.json").write_text(text)
    with pytest.raises(UserError, match="seeds.json") as told:
        pairs.listed(tmp_path)
    assert "\n" not in str(told.value)


def test_a_broken_picture_is_left_out_with_its_caption(model, pictures):
    for k in range(3):
        (pictures / f"{k}.txt").write_text(f"a {{}} {k}")
    (pictures / "1.png").write_text("not a picture")
    config = config_of("textual_inversion", skip_broken=True)
    with pytest.warns(UserWarning, match="left out"):
        latents, said = subject.read_subject(model, pictures, config, "<toy>")
    assert said == [("a <toy> 0",), ("a <toy> 2",)] and len(latents.mean) == 2


def test_a_pair_with_a_broken_picture_is_never_drawn(model, tmp_path):
    write_pairs(tmp_path / "data", {"a": [3, 5], "b": [7]})
    (tmp_path / "data" / "a" / "5_1.png").write_text("not a picture")
    read = lambda **skip: pairs.folder_pairs(  # noqa: E731
        model, tmp_path / "data", tmp_path / "keep.npy", **skip
    )
    with pytest.raises(UserError, match=r"5_1\.png.*skip_broken=True"):
        read()
    with pytest.warns(UserWarning, match=r"left out: .*5_1\.png"):
        found = read(skip_broken=True)
    np.testing.assert_allclose(found.share, [1 / 3, 0, 2 / 3])
    batch = found.batches(model.tokenize, 20, 0)(0)
    assert np.isfinite(batch["latent"]).all() and np.isfinite(batch["source"]).all()
    with pytest.raises(UserError, match="1 pairs .* skip_broken=True"):
        read()


def test_pairs_are_mirrored_together(model, tmp_path):
    write_pairs(tmp_path / "data", {"a": [3], "b": [7]})
    found = pairs.folder_pairs(model, tmp_path / "data", tmp_path / "keep.npy", 0.5)
    for side in (0, 1):
        pixels = pairs.read_square(tmp_path / "data" / "b" / f"7_{side}.png", model.size)
        turned = model.encode(pixels[None, :, ::-1] / np.float32(127.5) - 1) / model.scaling_factor
        np.testing.assert_allclose(found.mirrored[1, side], turned[0], rtol=1e-3, atol=2e-3)
    batch, seen = found.batches(model.tokenize, 40, 0)(0), set()
    for source, latent in zip(batch["source"], batch["latent"], strict=True):
        kinds = [
            (k, turned)
            for turned, all_of in enumerate((found.latents, found.mirrored))
            for k in range(2)
            if np.array_equal(source, np.float32(all_of[k, 0]))
            and np.array_equal(latent, np.float32(all_of[k, 1]) * np.float32(found.scale))
        ]
        assert len(kinds) == 1
        seen.add(kinds[0])
    assert len(seen) == 4


def test_held_out_swaps_are_never_trained():
    edits = pairs.rendered(400, seed=1)
    assert not any(pairs.never_trained(edit) for edit in edits)
    assert {edit.kind for edit in edits} == set(pairs.KINDS)


def test_the_wider_network_is_the_old_one_until_it_is_trained(model):
    wide = instruct_pix2pix.widened(model)
    assert wide.in_channels == 8 and instruct_pix2pix.widened(wide) is wide
    rng = np.random.default_rng(0)
    x, picture = (rng.normal(size=(1, 8, 8, 4)).astype(np.float32) for _ in range(2))
    context = rng.normal(size=(1, 5, 16)).astype(np.float32)
    old = model.denoiser.module.apply({"params": model.denoiser.params}, x, 300, context)[0]
    both = np.concatenate([x, picture], -1)
    new = wide.denoiser.module.apply({"params": wide.denoiser.params}, both, 300, context)[0]
    np.testing.assert_allclose(new, old, atol=1e-6)
    bias = [m.denoiser.params["conv_in"]["bias"] for m in (wide, model)]
    np.testing.assert_array_equal(*bias)


@pytest.mark.slow
def test_instructions_train_the_wider_network(model, tmp_path):
    write_pairs(tmp_path / "data", {"a": [3, 5], "b": [7]})
    wide = instruct_pix2pix.widened(model)
    config = config_of("train_instruct_pix2pix", warmup=0)
    found = pairs.folder_pairs(wide, tmp_path / "data", tmp_path / "keep.npy")
    make = found.batches(wide.tokenize, config.batch, config.seed)
    trained = run(instruct_pix2pix.instruct_task(wide, config), make, config, tmp_path / "out")
    done = instruct_pix2pix.with_unet(wide, trained)
    products.write_model(done, tmp_path / "model", "float16")
    back = load(tmp_path / "model")
    assert back.in_channels == 8
    kernel = np.asarray(back.denoiser.params["conv_in"]["kernel"])
    assert np.abs(kernel[:, :, 4:]).max() > 0


@pytest.mark.parametrize("case", ["none", "empty", "broken"])
def test_folders_that_cannot_be_used(pictures, tmp_path, case):
    if case == "broken":
        (pictures / "1.png").write_text("not a picture")
        with pytest.raises(UserError, match=r"1\.png.*skip_broken"):
            subject.read_folder(pictures, 16)
        with pytest.warns(UserWarning, match="left out: .*1.png"):
            files, found = subject.read_folder(pictures, 16, skip_broken=True)
        assert [file.name for file in files] == ["0.png", "2.png"] and len(found) == 2
        return
    folder = tmp_path / "other"
    if case == "empty":
        folder.mkdir()
    with pytest.raises(UserError, match="no picture" if case == "empty" else "no folder"):
        subject.read_folder(folder, 16)


def test_mistakes_about_words_are_told(model, pictures):
    with pytest.raises(UserError, match="already"):
        textual_inversion.with_word(model, "cat", 1)
    with pytest.raises(UserError, match="one {}"):
        subject.sentences("a photo", "<toy>")
    with pytest.raises(UserError, match="tokens"):
        words.single_token(model.tokenizers[0], "sculptural zebra")
    (pictures / "0.txt").write_text("a {}")
    with pytest.raises(UserError, match=r"1\.txt is missing"):
        subject.captions(sorted(pictures.glob("*.png")), "<toy>")
    for k in range(3):
        (pictures / f"{k}.txt").write_bytes("a {} café".encode("latin-1"))
    with pytest.raises(UserError, match=r"0\.txt is not in UTF-8"):
        subject.captions(sorted(pictures.glob("*.png")), "<toy>")


def test_a_lora_of_nothing_is_refused(model):
    with pytest.raises(UserError, match="no layer"):
        LowRank(targets="unet/nothing").init({"unet": model.denoiser.params}, None)
