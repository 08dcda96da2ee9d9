"""Edits with ground truth: nothing outside the mask differs, something inside does."""

import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.scenes import KINDS, Scene, edits, place, sample_edit


def draw(kind, count=60, seed=0, **choices):
    rng = np.random.default_rng(seed)
    return [sample_edit(rng, kind, **choices) for _ in range(count)]


@pytest.mark.parametrize("kind", KINDS)
def test_outside_the_mask_both_pictures_are_equal(kind):
    for edit in draw(kind):
        before, after = edit.source_image, edit.target_image
        assert edit.mask.shape == (64, 64) and edit.mask.dtype == bool
        assert (before == after)[~edit.mask].all()
        assert (before != after)[edit.mask].any()
        assert edit.source_caption != edit.target_caption


@pytest.mark.parametrize("kind", KINDS)
def test_edits_stay_in_the_training_world(kind):
    for edit in draw(kind):
        assert not edit.source.held_out and not edit.target.held_out
        assert edit.kind == kind


@pytest.mark.parametrize("kind", sorted(set(KINDS) - {"style"}))
def test_masks_are_no_larger_than_they_need_be(kind):
    for edit in draw(kind, style="none"):
        assert edit.mask.mean() < 0.95
        if kind in ("background", "pattern"):
            assert (edit.source_image != edit.target_image).any(-1)[edit.mask].mean() > 0.2


def test_the_same_seed_gives_the_same_edits():
    for kind in KINDS:
        one, other = draw(kind, 5, seed=9), draw(kind, 5, seed=9)
        assert [(e.source, e.target) for e in one] == [(e.source, e.target) for e in other]


def test_add_undoes_remove():
    for removed in draw("remove", 20):
        left = set(removed.source.things) - set(removed.target.things)
        added = edits.add_object(removed.target, left.pop())
        assert added.target == removed.source
        assert (added.mask == removed.mask).all()


def test_impossible_edits_are_refused():
    single = Scene((place("cat", None, "centre"),), "blue")
    with pytest.raises(UserError, match="two objects"):
        edits.remove_object(single, 0)
    with pytest.raises(UserError, match="left or right"):
        edits.add_object(single, place("dog", None, "left"))
    with pytest.raises(UserError, match="unknown edit"):
        sample_edit(np.random.default_rng(0), "rotate")
