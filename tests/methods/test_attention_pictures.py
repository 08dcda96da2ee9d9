"""Attention pictures: what they read, and how it is shown."""

import numpy as np
import pytest

import diffedit_jax as de
from diffedit_jax.methods.attention_pictures import AttentionPictures, overlaid, show_attention

# the folder of this model names another solver, which `generate` alone would take
SMALL = dict(steps=2, guidance=3.0, height=32, width=32, solver="ddim")


@pytest.fixture(scope="module")
def drawn(tiny):
    return show_attention(tiny, prompt=["a cat on a mat", "a mat and a cat"], words="cat mat",
                          seed=2, **SMALL)  # fmt: skip


def test_reading_changes_nothing(tiny, drawn):
    plain = de.generate(tiny, ["a cat on a mat", "a mat and a cat"], seed=2, **SMALL).image
    assert np.abs(plain.astype(int) - drawn.images).max() <= 1


def test_maps_are_each_words_own(drawn):
    pictures, words, height, width = drawn.maps.shape
    assert (pictures, words) == (2, 2) and height == width
    np.testing.assert_allclose(drawn.maps.max(axis=(2, 3)), 1, rtol=1e-6)
    assert drawn.maps.min() >= 0
    assert np.abs(drawn.maps[:, 0] - drawn.maps[:, 1]).max() > 1e-4


def test_given_pictures_are_inverted_and_shown_as_they_are(tiny, picture):
    image = picture[None].astype(np.float32) / 127.5 - 1
    shown = show_attention(tiny, image, prompt=["a cat on a mat"], words=["cat"], steps=2)
    np.testing.assert_array_equal(shown.images[0], picture)
    assert shown.maps.shape[:2] == (1, 1) and np.isfinite(shown.maps).all()


def test_words_that_are_absent_are_named(tiny):
    with pytest.raises(de.UserError, match="'dog' is not in the prompt"):
        show_attention(tiny, prompt=["a cat"], words="dog", **SMALL)
    with pytest.raises(de.UserError, match="no words"):
        show_attention(tiny, prompt=["a cat"], words="", **SMALL)


def test_heat_is_bright_where_attention_is():
    grey = np.full((32, 32, 3), 128, np.uint8)
    heat = np.zeros((4, 4), np.float32)
    heat[1, 2] = 1
    shown = overlaid(grey, heat).astype(int).sum(axis=-1)
    assert shown[12, 20] > shown[28, 4] + 100
    row, column = np.unravel_index(shown.argmax(), shown.shape)
    assert 8 <= row < 16 and 16 <= column < 24


def test_sheets_have_a_row_per_picture_and_a_column_per_word():
    images = np.zeros((3, 16, 32, 3), np.uint8)
    maps = np.ones((3, 2, 4, 8), np.float32)
    sheet = AttentionPictures(images, ("cat", "mat"), maps).sheet(side=64)
    assert sheet.shape == (20 + 3 * (32 + 4), 3 * (64 + 4), 3) and sheet.dtype == np.uint8
