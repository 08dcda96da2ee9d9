"""LoRAs and learned words on a bundle: recorded outputs, diffusers beside ours, and saving."""

import json

import jax
import numpy as np
import pytest

from diffedit_jax.bundles import convert, load, save
from diffedit_jax.bundles.adapters import extended, merged, module_shapes
from diffedit_jax.checkpoints.embeddings_write import write_embedding
from diffedit_jax.checkpoints.load import export
from diffedit_jax.checkpoints.lora import Layer
from diffedit_jax.errors import UserError

from .conftest import PIPELINES, loaded

GOLDEN = PIPELINES.parent
LORAS = GOLDEN / "14_dreambooth_lora"
WORDS = GOLDEN / "13_textual_inversion"
TAGS = {
    "lora_diffusers": "lora",
    "lora_diffusers_classic.safetensors": "lora",
    "kohya_linear.safetensors": "kohya_linear",
    "kohya_locon.safetensors": "kohya_locon",
}


@pytest.fixture(scope="module")
def told():
    with np.load(LORAS / "training.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def vectors():
    with np.load(WORDS / "layouts.npz") as file:
        return dict(file)


def asked(model, x, t, context):
    """The UNet's answer to NCHW latents."""
    x = np.moveaxis(np.asarray(x), 1, -1)
    t = np.full(len(x), t, np.float32)
    said, _ = model.denoiser.module.apply({"params": model.denoiser.params}, x, t, context)
    return np.moveaxis(np.asarray(said), -1, 1)


@pytest.mark.parametrize("name", TAGS)
def test_recorded_merged_weights(name, told):
    model, tag = loaded("sd1").with_lora(LORAS / name), TAGS[name]
    for kind, coder in (("merged", model.denoiser), ("merged_text", model.texts[0])):
        weights = export(coder.params)
        for key in (k for k in told if k.startswith(f"{tag}_{kind}::")):
            ours = weights[key.split("::")[1]].reshape(told[key].shape)
            np.testing.assert_allclose(ours, told[key], rtol=0, atol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", list(TAGS)[1:])
def test_recorded_outputs(name, told, highest):
    """At full weight and, for kohya's, at the recorded half weight."""
    tag, base = TAGS[name], loaded("sd1")
    text = base.with_lora(LORAS / name).text(told["lora_test_ids"])
    np.testing.assert_allclose(text, told[f"{tag}_text_out"], atol=2e-5)
    for weight, key in ((1.0, f"{tag}_unet_out"), (0.5, f"{tag}_unet_out_mult")):
        if key in told:
            model = base.with_lora(LORAS / name, weight)
            context = model.text(told["lora_test_ids"])
            ours = asked(model, told["lora_x"], 300, context)
            np.testing.assert_allclose(ours, told[key], atol=2e-5)


def test_a_lora_changes_nothing_at_weight_zero_and_leaves_the_model_as_it_is():
    base = loaded("sd1")
    before = jax.tree.map(np.array, base.denoiser.params)
    none = base.with_lora(LORAS / "lora_diffusers", 0)
    there = base.with_lora(LORAS / "lora_diffusers", 0.7)
    back = there.with_lora(LORAS / "lora_diffusers", -0.7)
    for old, same, changed, undone in zip(
        *map(jax.tree.leaves, (before, *(m.denoiser.params for m in (none, there, back)))),
        strict=True,
    ):
        np.testing.assert_array_equal(old, same)
        np.testing.assert_allclose(old, undone, atol=1e-6)
        assert changed.dtype == old.dtype
    assert base.origin == loaded("sd1").origin and "lora" not in base.origin
    assert [entry["weight"] for entry in back.origin["lora"]] == [0.7, -0.7]


def test_words_of_several_vectors_are_spelt_out_as_diffusers_does(vectors):
    """Its recorded conversions of prompts, in ids; added tokens begin behind the vocabulary."""
    said = json.loads((WORDS / "layouts.json").read_text())["maybe_convert_prompt"]
    base = loaded("sd1")
    for case in said:
        first = [t for t in case["added_tokens"] if not t.endswith("_1") and not t.endswith("_2")]
        counts = {t: sum(a.startswith(t) for a in case["added_tokens"]) for t in first}
        words = {t: (np.ones((n, 16), np.float32),) for t, n in counts.items()}
        model = extended(base, words)
        numbers = {t: 654 + i for i, t in enumerate(case["added_tokens"])}
        expected = [numbers[p] for p in case["converted"].split() if p in numbers]
        found = model.tokenize([case["prompt"]])[0].tolist()
        assert [i for i in found if i >= 654] == expected
        assert sorted(found[1 : found.index(653)]) == sorted(
            model.tokenizers[0]._words(case["converted"])["input_ids"][1:-1]
        )


def test_a_learned_word_gives_its_vectors_to_the_encoder(vectors):
    model = loaded("sd1").with_embedding(WORDS / "files" / "learned_embeds.safetensors")
    table = export(model.texts[0].params)["embeddings.token_embedding.weight"]
    ids = model.tokenize(["a <cat-toy>, and a <Cat-Toy>"])[0]
    np.testing.assert_array_equal(table[ids[2:5]], vectors["vn"])
    assert list(ids).count(654) == 2
    np.testing.assert_array_equal(model.tokenize(["a cat"]), loaded("sd1").tokenize(["a cat"]))
    np.testing.assert_array_equal(
        table[:654], export(loaded("sd1").texts[0].params)["embeddings.token_embedding.weight"]
    )


def test_words_are_found_alone_and_not_inside_others():
    row = (np.ones((1, 16), np.float32),)
    two = (np.ones((2, 16), np.float32),)
    model = extended(loaded("sd1"), {"sty": two, "sty2": row, "style": row})

    def new(text):
        return [i for i in model.tokenize([text])[0].tolist() if i >= 654]

    assert new("sty") == [654, 655] and new("sty2") == [656] and new("style") == [657]
    assert new("asty styx sty22") == [] and new("(sty), style.") == [654, 655, 657]


def test_long_prompts_are_cut_after_words_are_spelt_out():
    model = extended(loaded("sd1"), {"<toy>": (np.ones((20, 16), np.float32),)})
    text = "<toy> <toy> <toy> <toy> lost"
    ids = model.tokenize([text])[0]
    assert ids.shape == (77,) and ids[-1] == 653 and (ids[1:76] >= 654).all()
    assert model.text_notices([text]) and "lost" in model.text_notices([text])[0]
    numbers, places = model.tokenizers[0].spans("a <toy> b")
    assert [text for text in {("a <toy> b")[a:b] for a, b in places[2:22]}] == ["<toy>"]
    assert len(numbers) == len(places) == 24


@pytest.mark.parametrize("words, message", [
    ({"cat": 1}, "'cat' is in the tokenizer's vocabulary already"),
    ({"*": 1}, "vocabulary already"),
    ({"<a>": 1, "<A>": 1}, "vocabulary already"),
    ({"<a>": 2, "<a>_1": 1}, "vocabulary already"),
    ({"<a>": 1, "<a>_1": 1}, "mixed up"),
    ({"<a>_1": 1, "<a>": 1}, "mixed up"),
    ({"two words": 1}, "cannot be a word"),
])  # fmt: skip
def test_words_that_are_taken(words, message):
    with pytest.raises(UserError, match=message):
        extended(loaded("sd1"), {w: (np.ones((n, 16), np.float32),) for w, n in words.items()})


def test_embeddings_of_other_models(tmp_path):
    write_embedding(tmp_path / "e.safetensors", {"<toy>": np.ones((1, 1024), np.float32)})
    with pytest.raises(UserError, match=r"'<toy>' has 1024 channels \(Stable Diffusion 2\).* 16;"):
        loaded("sd1").with_embedding(tmp_path / "e.safetensors")
    with pytest.raises(UserError, match="2 text encoders"):
        loaded("sd1").with_embedding(WORDS / "files" / "sdxl.safetensors")


def test_other_names_for_words(tmp_path):
    two = WORDS / "files" / "embeddings_gs-500_two.pt"
    model = loaded("sd1").with_embedding(two, "<a>,<b>")
    assert model.tokenizers[0].added == ("<a>", "<b>", "<b>_1")
    assert model.origin["embedding"][0]["token"] == "<a>,<b>"
    with pytest.raises(UserError, match="vocabulary already"):
        loaded("sd1").with_embedding(two)
    with pytest.raises(UserError, match=r"holds 2 words \('\*', '@'\), not 1"):
        loaded("sd1").with_embedding(two, "<a>")


def test_loading_with_files_is_the_same_as_adding_them():
    word, lora = WORDS / "files" / "learned_embeds.bin", LORAS / "kohya_linear.safetensors"
    first = load(PIPELINES / "sd1", lora=[(lora, 0.5)], embedding=[(word, "<toy>")])
    second = loaded("sd1").with_embedding(word, "<toy>").with_lora(lora, 0.5)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(a, b)
    assert first.origin == second.origin and first.tokenizers == second.tokenizers


def random_lora(model, seed=0):
    """A LoRA of every module: rank 2, alpha 1."""
    rng = np.random.default_rng(seed)
    found = {}
    for module, shape in module_shapes(model).items():
        rank, window = 2, shape[2:]
        down = rng.normal(size=(rank, *shape[1:])).astype(np.float32)
        up = rng.normal(size=(shape[0], rank, *(1 for _ in window))).astype(np.float32)
        found[module] = Layer(down, 0.03 * up, 1.0)
    return found


def pipeline_of(folder):
    diffusers = pytest.importorskip("diffusers")
    return diffusers.StableDiffusionPipeline.from_pretrained(folder)


def theirs(pipeline, x, t, text, **options):
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        ids = pipeline.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
        context = pipeline.text_encoder(ids)[0]
        return pipeline.unet(torch.from_numpy(x), t, context, **options).sample.numpy()


def test_diffusers_reads_the_words_that_we_write(tmp_path, vectors, highest):
    write_embedding(tmp_path / "e.safetensors", {"<toy>": vectors["vn"]})
    write_embedding(tmp_path / "e.pt", {"<other>": vectors["v2"]}, layout="a1111")
    pipeline = pipeline_of(PIPELINES / "sd1")
    model = loaded("sd1")
    for name in ("e.safetensors", "e.pt"):
        pipeline.load_textual_inversion(str(tmp_path / name))
        model = model.with_embedding(tmp_path / name)
    text = "a <toy> on <other>, a cat"
    converted = pipeline.maybe_convert_prompt(text, pipeline.tokenizer)
    ids = pipeline.tokenizer(converted, padding="max_length", return_tensors="pt").input_ids
    np.testing.assert_array_equal(model.tokenize([text]), ids.numpy())
    expected = pipeline.text_encoder(ids)[0].detach().numpy()
    np.testing.assert_allclose(model.text(model.tokenize([text])), expected, atol=1e-5)


def test_a_personalised_model_is_saved_whole(tmp_path, vectors, highest):
    """As a folder that we and diffusers load, word, LoRA and all."""
    model = merged(loaded("sd1"), random_lora(loaded("sd1")))
    model = extended(model, {"<toy>": (vectors["vn"],)})
    save(model, tmp_path / "out")
    again = load(tmp_path / "out")
    for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    text = ["a <toy>, asty"]
    np.testing.assert_array_equal(again.tokenize(text), model.tokenize(text))
    pipeline = pipeline_of(tmp_path / "out")
    x = np.random.default_rng(1).normal(size=(1, 4, 8, 8)).astype(np.float32)
    text = pipeline.maybe_convert_prompt("a <toy>", pipeline.tokenizer)
    ours = asked(model, x, 300, model.text(model.tokenize(["a <toy>"])))
    np.testing.assert_allclose(theirs(pipeline, x, 300, text), ours, atol=5e-5)


def test_a_merged_model_as_a_single_file(tmp_path, highest):
    lora = LORAS / "kohya_locon.safetensors"
    convert(PIPELINES / "sd1", tmp_path / "one.safetensors", lora=[(lora, 0.5)])
    again = load(tmp_path / "one.safetensors", config=PIPELINES / "sd1")
    model = loaded("sd1").with_lora(lora, 0.5)
    for a, b in zip(jax.tree.leaves(model), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
