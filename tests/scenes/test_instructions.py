"""Instructions and exemplars of edits."""

import numpy as np
import pytest

from diffedit_jax.errors import UserError
from diffedit_jax.scenes import KINDS, Edit, Scene, place, sample_edit
from diffedit_jax.scenes.edits import change_background, swap_object
from diffedit_jax.scenes.instructions import exemplar, instruction

ORDERS = {"object": "turn the ", "colour": "make the ", "background": "make the background ",
          "pattern": "make the background ", "style": "make it ", "add": "add a",
          "remove": "remove the "}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_instruction_names_what_changes_and_not_what_stays(kind):
    for edit in [sample_edit(np.random.default_rng(k), kind, style="none") for k in range(8)]:
        order = instruction(edit)
        assert order.startswith(ORDERS[kind])
        if kind not in ("background", "pattern"):
            assert "background" not in order
        if kind in ("object", "add"):
            new = set(edit.target.things) - set(edit.source.things)
            assert new.pop().name in order
        if kind == "remove":
            assert all(thing.name not in order for thing in edit.target.things)


def test_an_exemplar_shows_the_new_object_and_not_the_target():
    scene = Scene((place("cat", None, "centre"),), "white")
    edit = swap_object(scene, "dog")
    shown = exemplar(edit)
    assert shown.shape == (64, 64, 3)
    assert shown[0, 0].max() < 60 and edit.target_image[0, 0].min() > 200  # black and white
    again = exemplar(swap_object(Scene((place("cat", None, "centre"),), "blue"), "dog"))
    assert (again[0, 0] == edit.target_image[0, 0]).all()  # white now: the background is not


def test_edits_without_words_or_objects_are_refused():
    scene = Scene((place("cat", None, "centre"),), "white")
    with pytest.raises(UserError, match="no new object"):
        exemplar(change_background(scene, "blue"))
    with pytest.raises(UserError, match="no instruction"):
        instruction(Edit("reconstruct", scene, scene, np.zeros((64, 64), bool)))
