"""Boxes, holes and squares of Paint by Example's training: closed forms and laws."""

import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.scenes import SIZE, Scene, Thing, render
from diffedit_jax.training import boxed_scenes, boxes

BOX, HEIGHT, WIDTH = (40, 60, 120, 160), 300, 200
WIDE = (20, 40, 150, 220)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_a_box_grows_by_up_to_two_fifths_of_the_free_space():
    found = np.asarray([boxes.extended(rng(k), BOX, HEIGHT, WIDTH) for k in range(3000)])
    np.testing.assert_array_equal(found.min(0), (40 - 16, 60 - 24, 120, 160))
    np.testing.assert_array_equal(found.max(0), (40, 60, 120 + 32, 160 + 56))
    middle = (40 - 8, 60 - 12, 120 + 16, 160 + 28)  # of uniform whole numbers
    np.testing.assert_allclose(found.mean(0), middle, atol=1.5)
    whole = (0, 0, WIDTH, HEIGHT)
    assert boxes.extended(rng(), whole, HEIGHT, WIDTH) == whole


def test_curves_are_quadratic_and_reach_half_way_to_the_extended_box():
    points = boxes.curve(BOX, WIDE)
    assert 40 <= len(points) <= 72
    top = points[(points[:, 1] < 60) & (points[:, 0] >= 40) & (points[:, 0] <= 120)]
    t = (top[:, 0] - 40) / 80  # the middle control point is half way: x is linear in t
    np.testing.assert_allclose(t / 0.05, np.round(t / 0.05), atol=1e-9)
    assert t.min() == pytest.approx(0.05) and t.max() <= 0.9 + 1e-9
    np.testing.assert_allclose(top[:, 1], 60 - 2 * t * (1 - t) * 20)
    ends = (points.min(0), points.max(0))
    np.testing.assert_allclose(ends, [((40 + 20) / 2, 50), ((120 + 150) / 2, (160 + 220) / 2)])


def test_no_point_of_a_curve_shares_a_coordinate_with_another():
    flat = boxes.curve(BOX, (20, 60, 150, 220))  # no room above: one y for the whole upper side
    upper = flat[np.abs(flat[:, 1] - 60) < 1e-9]
    assert len(upper) == len(np.unique(upper[:, 1])) < 18


def test_a_blob_lies_between_half_the_box_and_the_area_of_its_curves():
    found = boxes.blob(rng(), BOX, WIDE, HEIGHT, WIDTH, jitter=0)
    rows, columns = np.nonzero(found)
    assert columns.min() >= 30 and columns.max() <= 135
    assert rows.min() >= 50 and rows.max() <= 190
    # Each side bulges by base * height / 3, height being that of its control point.
    bulges = (80 * 20 + 100 * 30 + 80 * 60 + 100 * 20) / 3
    assert 80 * 100 / 2 < found.sum() <= (80 * 100 + bulges) * 1.02
    assert found[80:140, 60:100].all()


@pytest.mark.parametrize("jitter", [1, 5])
def test_jitter_moves_a_blob_by_no_more_than_it_says(jitter):
    still = boxes.blob(rng(), BOX, WIDE, HEIGHT, WIDTH, jitter=0)
    moved = [boxes.blob(rng(k), BOX, WIDE, HEIGHT, WIDTH, jitter) for k in range(20)]
    assert any((each != still).any() for each in moved)
    reach = np.any(moved, 0)
    rows, columns = np.nonzero(reach)
    assert columns.min() >= 30 - jitter and columns.max() <= 135 + jitter
    assert rows.min() >= 50 - jitter and rows.max() <= 190 + jitter


@pytest.mark.parametrize("curved", [0.0, 0.5, 1.0])
def test_the_share_of_holes_that_are_no_boxes(curved):
    box = boxes.rectangle(WIDE, HEIGHT, WIDTH)
    assert box.sum() == 130 * 180 and box[40, 20] and not box[39, 20] and not box[220, 149]
    draws = [boxes.hole(rng(k), BOX, WIDE, HEIGHT, WIDTH, curved=curved) for k in range(400)]
    boxed = sum((each == box).all() for each in draws)
    five_sigma = 5 * np.sqrt(curved * (1 - curved) / len(draws))
    assert abs(boxed / len(draws) - (1 - curved)) <= five_sigma


def test_a_square_holds_the_hole_and_lies_in_the_picture():
    for seed in range(400):
        draws = rng(seed)
        height, width = (int(n) for n in draws.integers(40, 120, 2))
        left, top = int(draws.integers(width - 10)), int(draws.integers(height - 10))
        box = (left, top, int(draws.integers(left + 5, width + 1)),
               int(draws.integers(top + 5, height + 1)))  # fmt: skip
        wide = boxes.extended(draws, box, height, width)
        square = boxes.square_around(draws, wide, height, width)
        assert square[0] <= wide[0] and square[1] <= wide[1]
        assert square[2] >= wide[2] and square[3] >= wide[3]
        assert min(square) >= 0 and square[2] <= width and square[3] <= height
        sides = (square[2] - square[0], square[3] - square[1])
        assert sides[0] == sides[1] or sides == (width, height)
    assert boxes.square_around(rng(), (3, 3, 9, 9), 50, 50) == (0, 0, 50, 50)


@pytest.mark.parametrize(
    "box", [(0, 0, 0, 5), (5, 5, 3, 9), (-1, 0, 5, 5), (0, 0, 11, 5), (0, 0, 5, 9)]
)
def test_a_box_that_is_empty_or_outside_is_refused(box):
    assert boxes.check_box((0, 0, 10, 8), 8, 10, "a.png") == (0, 0, 10, 8)
    with pytest.raises(UserError, match="a.png.*10x8"):
        boxes.check_box(box, 8, 10, "a.png")


def test_margins_end_at_the_edge():
    assert boxes.padded((5, 20, 90, 95), 10, 100, 92) == (0, 10, 92, 100)
    assert boxes.share_of((0, 0, 10, 5), 10, 10) == 0.5


def scenes(count, **changes):
    ways = dict(shown=64, curved=0.5, jitter=1, silhouettes=0.5, invented=0.5) | changes
    stream = boxed_scenes.scene_examples(4, **ways)
    return [next(stream) for _ in range(count)]


def test_scenes_are_drawn_by_their_seed_alone():
    for one, other in zip(scenes(8), scenes(8), strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_hole_takes_the_object_out_and_the_example_is_no_copy():
    for each in scenes(60, silhouettes=1.0):
        assert 0 < each.keep.mean() < 1 and set(np.unique(each.keep)) == {0, 1}
        assert each.picture.shape == each.shown.shape == (SIZE, SIZE, 3)
        ground = each.picture[0, 0] if each.keep[0, 0] else each.picture[-1, 0]
        assert (np.abs(each.picture.astype(int) - ground).max(-1) > 60)[
            each.keep == 0
        ].mean() > 0.05
        assert (each.picture != each.shown).any()


def test_the_box_of_an_object_is_tight():
    cover = np.zeros((9, 12), bool)
    cover[2:5, 3:11] = True
    assert boxed_scenes.box_of(cover) == (3, 2, 11, 5)
    scene = Scene((Thing("house", None, 32, 32, 30),), "blue")
    left, top, right, bottom = boxed_scenes.box_of(boxed_scenes.coverage(scene) > 0)
    picture = render(scene).astype(int)
    changed = np.abs(picture - picture[0, 0]).max(-1) > 0
    assert changed[top:bottom, left:right].sum() == changed.sum()


def test_an_example_is_the_object_in_other_sizes_on_other_backgrounds():
    thing = Thing("heart", "red", 17, 32, 30)
    found = [boxed_scenes.another_render(rng(k), thing, "none") for k in range(40)]
    assert len({each[0, 0].tobytes() for each in found}) >= 6
    red = [(each[..., 0].astype(int) - each[..., 1] > 110).mean() for each in found]
    assert min(red) > 0.05 and max(red) > 2 * min(red)
