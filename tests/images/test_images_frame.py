"""A picture of any size on a model's canvas and back."""

import numpy as np
import pytest
from PIL import Image

from diffedit_jax import UserError
from diffedit_jax.images import Frame, common_frames


@pytest.mark.parametrize(
    "size, longest, multiple, scaled, canvas",
    [
        ((512, 512), 512, 64, (512, 512), (512, 512)),
        ((480, 640), 512, 64, (384, 512), (384, 512)),
        ((1000, 333), 512, 64, (512, 170), (512, 192)),
        ((64, 64), 64, 8, (64, 64), (64, 64)),
        ((30, 20), 64, 8, (64, 43), (64, 48)),
        ((1, 10_000), 64, 8, (1, 64), (8, 64)),
        ((1, 1), 64, 8, (64, 64), (64, 64)),
        ((300, 200), 100, 64, (100, 67), (128, 128)),
    ],
)
def test_sizes(size, longest, multiple, scaled, canvas):
    frame = Frame.fit(size, longest, multiple)
    assert (frame.original, frame.scaled, frame.canvas) == (size, scaled, canvas)


@pytest.mark.parametrize("size", [(64, 64), (40, 64), (64, 33), (57, 64)])
def test_a_picture_of_native_size_survives_bit_for_bit(size):
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    frame = Frame.fit(size, 64, 8)
    on_canvas = frame.apply(pixels)
    assert on_canvas.shape == (*frame.canvas, 3)
    np.testing.assert_array_equal(frame.restore(on_canvas), pixels)


def test_padding_repeats_the_edge_and_keeps_around_a_mask():
    frame = Frame.fit((4, 64), 64, 8)
    assert frame.canvas == (8, 64) and frame.offset == (2, 0)
    pixels = np.arange(4 * 64 * 3, dtype=np.uint8).reshape(4, 64, 3)
    on_canvas = frame.apply(pixels)
    np.testing.assert_array_equal(on_canvas[0], pixels[0])
    np.testing.assert_array_equal(on_canvas[-1], pixels[-1])
    mask = frame.apply_mask(np.ones((4, 64), np.float32))
    np.testing.assert_array_equal(mask.sum(axis=1), [0, 0, 64, 64, 64, 64, 0, 0])


def test_a_constant_picture_stays_constant_at_any_size():
    for size in [(3, 500), (700, 30), (1, 1), (65, 64)]:
        pixels = np.full((*size, 3), 77, np.uint8)
        frame = Frame.fit(size, 64, 8)
        assert (frame.apply(pixels) == 77).all()
        back = frame.restore(frame.apply(pixels), original=True)
        assert back.shape == pixels.shape and (back == 77).all()


def test_a_mask_keeps_its_share_of_the_area_and_its_place():
    mask = np.zeros((128, 128), np.float32)
    mask[:64] = 1
    on_canvas = Frame.fit((128, 128), 64, 8).apply_mask(mask)
    assert on_canvas.dtype == np.float32
    np.testing.assert_array_equal(on_canvas, np.repeat([1.0, 0.0], 32)[:, None] * np.ones(64))
    grown = Frame.fit((2, 2), 64, 8).apply_mask(np.eye(2, dtype=np.float32))
    np.testing.assert_array_equal(grown, np.kron(np.eye(2), np.ones((32, 32))))


def test_pictures_of_different_sizes_share_the_largest_canvas():
    frames = common_frames([(512, 384), (384, 512), (100, 100, 3)], 512, 64)
    assert {frame.canvas for frame in frames} == {(512, 512)}
    assert [frame.scaled for frame in frames] == [(512, 384), (384, 512), (512, 512)]
    pixels = np.random.default_rng(1).integers(0, 256, (512, 384, 3), dtype=np.uint8)
    np.testing.assert_array_equal(frames[0].restore(frames[0].apply(pixels)), pixels)


def test_a_batch_is_cut_out_at_once():
    frame = Frame.fit((40, 64), 64, 16)
    batch = np.random.default_rng(2).integers(0, 256, (3, *frame.canvas, 3), dtype=np.uint8)
    cut = frame.restore(batch)
    assert cut.shape == (3, 40, 64, 3)
    np.testing.assert_array_equal(cut[1], frame.restore(batch[1]))
    assert frame.restore(batch, original=True).shape == (3, 40, 64, 3)


# (width, height) -> what edit_cli.py's arithmetic gives for --resolution 512, worked out by hand:
# 640x480: ceil(480 * .8 / 64) * 64 / 480 = .8; 300x200: ceil(5.33) * 64 / 200 = 1.92, 576x384
CUT = {
    (512, 512): (512, 512), (640, 480): (512, 384), (333, 1000): (192, 576), (4, 64): (64, 1024),
    (1000, 333): (576, 192), (300, 200): (576, 384), (1024, 1000): (512, 512), (700, 64): (640, 64),
}  # fmt: skip


@pytest.mark.parametrize("size, fitted", CUT.items())
def test_the_official_rule_fills_whole_cells(size, fitted):
    frame = Frame.fit(size[::-1], 512, 64, cut=True)
    assert frame.canvas == frame.scaled == fitted[::-1]


@pytest.mark.parametrize("size, box", [
    ((333, 1000), (0, 0.5, 333, 999.5)),  # 192x576: a third as wide as high
    ((640, 480), (0, 0, 640, 480)),
    ((100, 96), (2, 0, 98, 96)),  # a square
])  # fmt: skip
def test_the_official_rule_takes_the_middle_of_picture_and_mask(size, box):
    """PIL's own resizing of the box that has the canvas' shape."""
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    mask = rng.random(size[::-1]).astype(np.float32)
    frame = Frame.fit(size[::-1], 512, 64, cut=True)
    new = frame.canvas[::-1]
    lanczos = Image.fromarray(pixels).resize(new, Image.Resampling.LANCZOS, box)
    np.testing.assert_array_equal(frame.apply(pixels), lanczos)
    mean = Image.fromarray(mask).resize(new, Image.Resampling.BOX, box)
    np.testing.assert_allclose(frame.apply_mask(mask), mean, atol=1e-6)
    np.testing.assert_array_equal(frame.restore(frame.apply(pixels)), lanczos)


def test_what_the_official_rule_cannot_do_is_told():
    with pytest.raises(UserError, match="1x100 would be cut to 64x6400"):
        Frame.fit((100, 1), 512, 64, cut=True)
    with pytest.raises(UserError, match="cut to 384x512 and 512x384; edit those of one size"):
        common_frames([(640, 480), (480, 640)], 512, 64, cut=True)
    assert len(common_frames([(640, 480), (320, 240)], 512, 64, cut=True)) == 2
