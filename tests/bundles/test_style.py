"""A style beside a bundle: its word in prompts, and what an image tower says of a picture."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import diffedit_jax as de
from diffedit_jax.bundles.adapters import TABLE
from diffedit_jax.bundles.style import cast, image_tokens, load_style, load_tower, save_style
from diffedit_jax.errors import UserError
from tests.golden_models import GOLDEN, style_file

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.torch_style import Attentions, save_official  # noqa: E402


@pytest.fixture(scope="module")
def model():
    return de.load(str(GOLDEN / "12_pipelines" / "sd1"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """(a tiny CLIP of transformers, the folder that it was saved to)."""
    torch.manual_seed(0)
    sides = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2)
    config = transformers.CLIPConfig(
        text_config=dict(**sides, vocab_size=99, max_position_embeddings=9),
        vision_config=dict(**sides, image_size=32, patch_size=8),
        projection_dim=16,
    )
    found = transformers.CLIPModel(config).eval()
    folder = tmp_path_factory.mktemp("clip")
    found.save_pretrained(folder)
    return found, folder


@pytest.fixture(scope="module")
def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    pixels[:4], pixels[4:8] = 0, 255
    return pixels


def theirs(clip, pixels):
    """(pooled embedding, all tokens projected), each of length 1, by transformers."""
    config = clip.config.vision_config
    images = transformers.CLIPImageProcessor(
        size={"shortest_edge": config.image_size}, crop_size=config.image_size
    )(images=[pixels], return_tensors="pt")
    with torch.no_grad():
        seen = clip.vision_model(**images)
        tokens = clip.visual_projection(
            clip.vision_model.post_layernorm(seen.last_hidden_state)
        ).numpy()
        pooled = clip.visual_projection(seen.pooler_output).numpy()
    return (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (pooled, tokens))


def test_image_tokens_are_those_of_transformers(clip, picture, highest):
    tower = load_tower(clip[1])
    pooled, tokens = theirs(clip[0], picture)
    np.testing.assert_allclose(image_tokens(tower, [picture])[:, 0], pooled, atol=2e-5)
    found = image_tokens(tower, [picture], tokens="patches")
    assert found.shape == (1, 17, 16)
    np.testing.assert_allclose(found, tokens, atol=2e-5)
    np.testing.assert_allclose(found[:, 0], pooled, atol=2e-5)


def test_the_official_tower_sees_an_almost_black_picture(clip, picture, highest):
    wanted = np.zeros((32, 32, 3), np.uint8)
    wanted[picture == 0], wanted[picture == 255] = 255, 1
    np.testing.assert_array_equal(cast(picture), wanted)
    assert cast(picture).dtype == np.uint8
    found = image_tokens(load_tower(clip[1]), [picture], compat="official")
    np.testing.assert_allclose(found[:, 0], next(theirs(clip[0], wanted)), atol=2e-5)


def test_a_style_saved_is_the_style(model, tmp_path):
    first = load_style(style_file(tmp_path / "style.safetensors", tokens="patches"), model)
    save_style(tmp_path / "again.safetensors", first)
    again = load_style(tmp_path / "again.safetensors", model)
    assert (again.word, again.tokens, again.tower) == ("*", "patches", "emoji")
    e = jnp.ones((1, 3, 16))
    np.testing.assert_array_equal(first.coder(e), again.coder(e))
    for name in ("vector", "mean", "deviation"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))


def test_the_originals_file_says_what_torch_says(model, clip, picture, tmp_path, monkeypatch,
                                                 highest):  # fmt: skip
    module = Attentions().eval()
    save_official(tmp_path / "embeddings.pt", module, monkeypatch)
    style = load_style(tmp_path / "embeddings.pt", model)
    found = style.words_of([picture], clip[1])
    (pooled, _) = theirs(clip[0], cast(picture))
    with torch.no_grad():
        wanted = module(torch.from_numpy(pooled)[:, None]).numpy()[:, 0]
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    with pytest.raises(UserError, match="does not say which CLIP"):
        style.words_of([picture])


def test_a_styled_prompt_is_that_of_a_table_with_the_word(model, highest):
    """The same as writing the vector over the word's row, for each prompt its own."""
    prompts, vectors = ["a * dog on *", "a cat"], np.random.default_rng(1).normal(size=(2, 16))
    found = model.styled(prompts, ["*", "cat"], jnp.asarray(vectors, jnp.float32)).text
    for k, word in enumerate(("*", "cat")):
        text = model.texts[0]
        flat = flatten_dict(text.params)
        flat[TABLE] = flat[TABLE].at[model.tokenizers[0].token(word)].set(vectors[k])
        other = model.replace(texts=(text.replace(params=unflatten_dict(flat)),))
        np.testing.assert_allclose(found[k], other.condition([prompts[k]]).text[0], atol=1e-5)


def test_a_word_of_several_tokens_is_refused(model):
    with pytest.raises(UserError, match="tokens of this model; choose a word that is one"):
        model.styled(["a cat"], ["unheardofword"], jnp.zeros((1, 16)))


def test_models_with_two_text_encoders_are_refused(model, tmp_path):
    two = model.replace(texts=model.texts * 2)
    with pytest.raises(UserError, match="one text encoder, this one has 2"):
        load_style(style_file(tmp_path / "style.safetensors"), two)
    odd = style_file(tmp_path / "odd.safetensors", kept={
        "vector": np.zeros(16), "mean": np.zeros(3), "deviation": np.ones(3)})  # fmt: skip
    with pytest.raises(UserError, match="latents of 3 channels"):
        load_style(odd, model)
