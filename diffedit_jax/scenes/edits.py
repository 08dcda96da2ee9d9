"""Edits of scenes with exact ground truth: what the picture should become, and where."""

from dataclasses import dataclass, replace

import numpy as np

from diffedit_jax.errors import UserError
from diffedit_jax.scenes import world
from diffedit_jax.scenes.captions import caption
from diffedit_jax.scenes.render import coverage, render
from diffedit_jax.scenes.spec import SIZE, Scene, Thing, sample_scene


@dataclass(frozen=True)
class Edit:
    """A source scene, the scene that the edit should give, and the mask of what may change.

    Pixels where `mask` [64, 64] is False are bit-equal in both renders.
    """

    kind: str
    source: Scene
    target: Scene
    mask: np.ndarray

    @property
    def source_caption(self) -> str:
        """The canonical caption of the picture before the edit."""
        return caption(self.source)

    @property
    def target_caption(self) -> str:
        """The canonical caption of the picture after the edit."""
        return caption(self.target)

    @property
    def source_image(self) -> np.ndarray:
        """The picture before the edit, uint8 [64, 64, 3]."""
        return render(self.source)

    @property
    def target_image(self) -> np.ndarray:
        """The picture that the edit should give, uint8 [64, 64, 3]."""
        return render(self.target)


def _with_thing(scene: Scene, index: int, thing: Thing) -> Scene:
    things = (*scene.things[:index], thing, *scene.things[index + 1 :])
    return replace(scene, things=things)


def _support(*covers) -> np.ndarray:
    """Where any of the objects shows at all."""
    return np.any([cover > 0 for cover in covers], axis=0)


def swap_object(scene: Scene, name: str, colour: str | None = None, index: int = 0) -> Edit:
    """Another object in the same place and size; the two silhouettes may change."""
    thing = replace(scene.things[index], name=name, colour=colour)
    target = _with_thing(scene, index, thing)
    mask = _support(coverage(scene, index), coverage(target, index))
    return Edit("object", scene, target, mask)


def change_colour(scene: Scene, colour: str, index: int = 0) -> Edit:
    """The same object in another colour; its silhouette may change."""
    edit = swap_object(scene, scene.things[index].name, colour, index)
    return replace(edit, kind="colour")


def change_background(scene: Scene, background: str) -> Edit:
    """Another background colour; everything that the objects do not fully cover may change."""
    return Edit("background", scene, replace(scene, background=background), coverage(scene) < 1)


def change_pattern(scene: Scene, pattern: str) -> Edit:
    """Another background pattern; everything that the objects do not fully cover may change."""
    return Edit("pattern", scene, replace(scene, pattern=pattern), coverage(scene) < 1)


def change_style(scene: Scene, style: str) -> Edit:
    """Another style of the same scene; everything may change."""
    return Edit("style", scene, replace(scene, style=style), np.ones((SIZE, SIZE), bool))


def remove_object(scene: Scene, index: int) -> Edit:
    """One object of a pair goes; its silhouette may change."""
    if len(scene.things) != 2:
        raise UserError("remove_object needs a scene of two objects")
    target = replace(scene, things=(scene.things[1 - index],))
    return Edit("remove", scene, target, _support(coverage(scene, index)))


def add_object(scene: Scene, thing: Thing) -> Edit:
    """A second object beside a single one at the left or right; its silhouette may change."""
    if scene.layout not in ("left", "right") or thing.place not in ("left", "right"):
        raise UserError("add_object needs one object at the left or right, and a place beside it")
    pair = tuple(sorted((*scene.things, thing), key=lambda each: each.x))
    target = replace(scene, things=pair)
    return Edit("add", scene, target, _support(coverage(target, pair.index(thing))))


KINDS = ("object", "colour", "background", "pattern", "style", "add", "remove")


def _other(rng, options, *current):
    return str(rng.choice([option for option in options if option not in current]))


def _propose(rng, kind):
    if kind in ("add", "remove"):
        pair = sample_scene(rng, layout="pair")
        index = int(rng.integers(2))
        edit = remove_object(pair, index)
        return edit if kind == "remove" else add_object(edit.target, pair.things[index])
    scene = sample_scene(rng, layout="centre")
    if kind == "object":
        name = _other(rng, world.OBJECTS, scene.things[0].name)
        colour = _other(rng, world.COLOURS) if name in world.RECOLOURABLE else None
        return swap_object(scene, name, colour)
    if kind == "colour":
        return change_colour(scene, _other(rng, world.COLOURS, scene.things[0].colour))
    if kind == "background":
        return change_background(scene, _other(rng, world.BACKGROUNDS, scene.background))
    if kind == "pattern":
        return change_pattern(scene, _other(rng, world.PATTERNS, scene.pattern))
    return change_style(scene, _other(rng, world.STYLES, scene.style))


def _sensible(edit: Edit) -> bool:
    scene = edit.target
    seen = all(world.visible(t.name, t.colour, scene.background) for t in scene.things)
    colours = all((t.colour is None) == (t.name not in world.RECOLOURABLE) for t in scene.things)
    return seen and colours and not scene.held_out and not edit.source.held_out


def sample_edit(rng: np.random.Generator, kind: str, *, style: str | None = None) -> Edit:
    """Draw an edit of one kind (see KINDS) between two training scenes, in one style if asked.

    Example: `sample_edit(np.random.default_rng(0), "object", style="none")`.
    """
    if kind not in KINDS:
        raise UserError(f"unknown edit {kind!r}: choose one of {', '.join(KINDS)}")
    while True:
        edit = _propose(rng, kind)
        if _sensible(edit) and style in (None, edit.source.style):
            return edit
