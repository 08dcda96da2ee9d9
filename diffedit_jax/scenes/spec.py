"""A scene as data: which objects stand where, on which background, in which style."""

from dataclasses import dataclass

import numpy as np

from diffedit_jax.errors import UserError
from diffedit_jax.scenes import invented, world

SIZE = 64  # pixels, height and width of every scene
_CENTRES = {"centre": 32, "left": 17, "right": 47}


@dataclass(frozen=True)
class Thing:
    """One object: name, colour (None if it has only its own), centre x, y and size in pixels.

    A name is one of the world's or that of an invented object, which no caption can tell.
    """

    name: str
    colour: str | None = None
    x: int = 32
    y: int = 32
    size: int = 48

    @property
    def place(self) -> str:
        """Where it stands: "centre", "left" or "right"."""
        return min(_CENTRES, key=lambda place: abs(_CENTRES[place] - self.x))


@dataclass(frozen=True)
class Scene:
    """One or two things on a background. A pair is ordered from left to right."""

    things: tuple[Thing, ...]
    background: str
    pattern: str = "plain"
    style: str = "none"

    def __post_init__(self):
        names = (*world.OBJECTS, *world.HELD_OUT_OBJECTS)
        _known("object", names, *(t.name for t in self.things if not invented.is_invented(t.name)))
        _known("colour", (None, *world.COLOURS), *(thing.colour for thing in self.things))
        _known("background", world.BACKGROUNDS, self.background)
        _known("pattern", world.PATTERNS, self.pattern)
        _known("style", world.STYLES, self.style)

    @property
    def layout(self) -> str:
        """ "pair" for two things, else the place of the only one."""
        return "pair" if len(self.things) == 2 else self.things[0].place

    @property
    def held_out(self) -> bool:
        """True if any object x background pair, or any object, is held out of training."""
        return any(
            world.held_out(thing.name, self.background) or thing.name in world.HELD_OUT_OBJECTS
            for thing in self.things
        )


def _known(kind, allowed, *values):
    for value in values:
        if value not in allowed:
            raise UserError(
                f"unknown {kind} {value!r}: choose one of {', '.join(map(str, allowed))}"
            )


def place(
    name: str, colour: str | None, where: str, rng: np.random.Generator | None = None
) -> Thing:
    """Put an object at "centre", "left" or "right", with jitter when `rng` is given."""
    middle = where == "centre"
    x, y, size = _CENTRES[where], 32, 48 if middle else 30
    if rng is not None:
        reach = 4 if middle else 2
        dx, dy = rng.integers(-reach, reach + 1, 2)
        x, y, size = x + int(dx), y + int(dy), size + int(rng.integers(-reach, reach + 1))
    return Thing(name, colour, x, y, size)


def _draw_thing(rng, where, background, objects, taken=()):
    while True:
        name = str(rng.choice(objects))
        colour = str(rng.choice(tuple(world.COLOURS))) if name in world.RECOLOURABLE else None
        if name not in taken and world.visible(name, colour, background):
            return place(name, colour, where, rng)


def _draw(rng, objects, layout):
    layout = layout or rng.choice(world.LAYOUTS, p=(0.76, 0.04, 0.04, 0.16))
    background = str(rng.choice(tuple(world.BACKGROUNDS)))
    pattern = str(rng.choice(world.PATTERNS, p=(0.5, 0.25, 0.25)))
    style = str(rng.choice(world.STYLES, p=(0.64, 0.12, 0.12, 0.12)))
    style = style if layout == "centre" else "none"
    things = []
    for where in ("left", "right") if layout == "pair" else (layout,):
        taken = [thing.name for thing in things]
        things.append(_draw_thing(rng, where, background, objects, taken))
    return Scene(tuple(things), background, pattern, style)


def sample_scene(
    rng: np.random.Generator,
    *,
    held_out: bool | None = False,
    layout: str | None = None,
    objects: tuple[str, ...] = world.OBJECTS,
) -> Scene:
    """Draw a scene. held_out False: training scenes; True: only held-out pairs; None: both.

    Example: `sample_scene(np.random.default_rng(0))`.
    """
    while True:
        scene = _draw(rng, objects, layout)
        if held_out is None or scene.held_out == held_out:
            return scene
