"""CLIP's figures: the official vectors, transformers' model, and the embedded one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffedit_jax.checkpoints.clip_folder import read_clip
from diffedit_jax.errors import UserError
from diffedit_jax.metrics import clip_score, clip_similarity, directional_similarity, load_clip
from diffedit_jax.metrics.clip import directions
from diffedit_jax.metrics.network import fill
from diffedit_jax.metrics.prepare import CLIP_SQUASHED
from diffedit_jax.models.clip import CLIPText, CLIPVision

from .golden import GOLDEN, nchw, nhwc, relative_l2, vectors

NEAR = {"atol": 5e-5, "rtol": 5e-5}


@pytest.fixture(scope="module")
def emoji():
    return load_clip("emoji")


def test_openais_names_and_numbers():
    them, parts = vectors("clip_vit"), read_clip(GOLDEN / "clip_tiny_vit.safetensors")
    text = CLIPText.from_config(parts.config, with_projection=True)
    vision = CLIPVision.from_config(parts.config, with_projection=True)
    assert (text.num_attention_heads, vision.image_size, vision.patch_size) == (1, 32, 8)
    said = fill(text, parts.text, "text", jax.ShapeDtypeStruct((1, 77), jnp.int32))
    shape = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    seen = fill(vision, parts.vision, "vision", shape)
    words = said(jnp.asarray(them["in.tokens"]))[1]["projected"]
    np.testing.assert_allclose(words, them["out.text_embed"], **NEAR)
    pixels = nhwc(them["in.image"])
    np.testing.assert_allclose(seen(pixels)[1]["projected"], them["out.image_embed"], **NEAR)

    def value(x, form):
        return (form(seen(x)[1]["projected"]) * them["in.cot"][:1]).sum()

    for form, name in ((lambda x: x, "image"), (directions, "image_normalised_embed")):
        slope = jax.grad(value)(pixels[:1], form)
        assert relative_l2(nchw(slope), them[f"grad.{name}"]) < 1e-3


def test_the_embedded_clip_against_transformers(emoji, highest):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    folder = emoji.tokenizer.folder
    theirs = transformers.CLIPModel.from_pretrained(str(folder)).float().eval()
    x = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    texts = ["a cat", "a dog on a blue background", "a red apple"]
    pixels = np.moveaxis(np.array(emoji.preparation(x)), -1, 1)
    with torch.no_grad():
        out = theirs(input_ids=torch.from_numpy(emoji.tokenizer(texts)).long(),
                     pixel_values=torch.from_numpy(pixels))  # fmt: skip
    np.testing.assert_allclose(emoji.texts(texts), out.text_embeds, atol=1e-5)
    np.testing.assert_allclose(emoji.pictures(x), out.image_embeds, atol=1e-5)
    cosines = (out.text_embeds * out.image_embeds).sum(-1)
    np.testing.assert_allclose(clip_score(x, texts, emoji), 100 * cosines, atol=1e-3)


def test_what_direction_means(emoji):
    a, b = np.random.default_rng(0).random((2, 2, 64, 64, 3))
    words, other = "a cat", "a dog"
    found = directional_similarity(a, b, words, other, emoji)
    back = directional_similarity(b, a, other, words, emoji)
    np.testing.assert_allclose(found, back, atol=1e-6)  # both turned round
    np.testing.assert_allclose(
        found, -np.asarray(directional_similarity(b, a, words, other, emoji)), atol=1e-6
    )
    assert (np.asarray(directional_similarity(a, a, words, other, emoji)) == 0).all()
    np.testing.assert_allclose(clip_similarity(a, a, emoji), 1, atol=1e-6)


def test_the_script_of_instruct_pix2pix_sees_other_numbers(emoji):
    """[-1, 1] where [0, 1] belongs: as if the corrected preset were given 2x - 1."""
    x = np.random.default_rng(0).random((2, 50, 70, 3)).astype(np.float32)
    quirk = emoji.pictures(x, "instruct_pix2pix")
    again = emoji.pictures(2 * x - 1, "instruct_pix2pix_corrected")
    np.testing.assert_allclose(quirk, again, atol=1e-5)
    assert np.abs(quirk - emoji.pictures(x, "instruct_pix2pix_corrected")).max() > 1e-2
    slope = jax.grad(lambda x: emoji.pictures(x, CLIP_SQUASHED.but(size=64)).sum())(jnp.asarray(x))
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


def test_the_edited_part_is_seen_on_black(emoji):
    x = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    mask = np.zeros((2, 64, 64))
    mask[0, 10:40, 20:50] = 1
    found = clip_score(x, "a cat", emoji, mask)
    black = (x * mask[..., None]).astype(np.uint8)
    np.testing.assert_allclose(found[0], clip_score(black[:1], "a cat", emoji)[0], rtol=1e-5)
    assert np.isnan(found[1])


def test_mistakes_get_one_line(emoji, tmp_path):
    x = np.zeros((2, 64, 64, 3))
    with pytest.raises(UserError, match="3 texts for 2 pictures"):
        clip_score(x, ["a"] * 3, emoji)
    with pytest.raises(UserError, match="preset is"):
        emoji.pictures(x, "official")
    with pytest.raises(UserError, match="does not exist"):
        load_clip(tmp_path / "none")
    with pytest.raises(UserError, match="no CLIP"):
        load_clip(GOLDEN / "dino_tiny.safetensors")
