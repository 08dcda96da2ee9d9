"""Example pictures as CLIP sees them, against PIL and transformers."""

import numpy as np
import pytest
from PIL import Image

from diffedit_jax.errors import UserError
from diffedit_jax.images import prepared_example, read_example

SIZES = [(50, 90), (90, 50), (28, 28), (31, 29), (5, 7)]


@pytest.mark.parametrize("size", SIZES)
def test_the_crop_is_transformers_own(size):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("torch")
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    for name in ("CLIPImageProcessorPil", "CLIPImageProcessor"):
        if (kind := getattr(transformers, name, None)) is not None:
            break
    processor = kind(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    official = np.asarray(processor(Image.fromarray(pixels), return_tensors="np").pixel_values[0])
    found = prepared_example(pixels, 28, crop=True)
    np.testing.assert_allclose(found, np.moveaxis(official, 0, -1), atol=1e-5)


def test_a_squashed_example_is_seen_whole():
    """Left and right edges of a wide picture reach the network; the crop never sees them."""
    wide = np.full((20, 80, 3), 128, np.uint8)
    marked = wide.copy()
    marked[:, :10] = marked[:, -10:] = 255
    assert not np.array_equal(prepared_example(wide, 28), prepared_example(marked, 28))
    crops = [prepared_example(p, 28, crop=True) for p in (wide, marked)]
    np.testing.assert_array_equal(*crops)
    red = np.zeros((28, 28, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    expected = (np.array([1, 0, 0]) - mean) / deviation
    np.testing.assert_allclose(prepared_example(red, 28)[5, 5], expected, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 9, 3), (9, 1, 3)])
def test_examples_that_show_nothing_are_refused(shape, tmp_path):
    Image.fromarray(np.zeros(shape, np.uint8)).save(tmp_path / "dot.png")
    with pytest.raises(UserError, match=f"dot.png is {shape[1]}x{shape[0]} pixels"):
        read_example(tmp_path / "dot.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text\.png is not a picture"):
        read_example(tmp_path / "text.png")
