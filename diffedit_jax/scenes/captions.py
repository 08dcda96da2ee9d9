"""Captions of scenes: the canonical sentence, a few paraphrases, and the way back."""

import re

import numpy as np

from diffedit_jax.errors import UserError
from diffedit_jax.scenes import world
from diffedit_jax.scenes.spec import Scene, Thing, place

_PARAPHRASES = (
    "{style}{things} on {ground}",
    "{style}{things} in front of {ground}",
    "a picture of {style}{things} on {ground}",
    "{style}{things} , {bare}",
)


def article(words: str) -> str:
    """Put "a" or "an" in front: article("apple") is "an apple"."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _thing_words(thing: Thing) -> str:
    return article(f"{thing.colour} {thing.name}" if thing.colour else thing.name)


def describe(scene: Scene) -> str:
    """The things alone: "a cat", "a cat on the left", "a cat and a red heart"."""
    words = " and ".join(_thing_words(thing) for thing in scene.things)
    return f"{words} on the {scene.layout}" if scene.layout in ("left", "right") else words


def caption(scene: Scene, paraphrase: int = 0) -> str:
    """The sentence of a scene: "a pixel art of a dog on a striped green background"."""
    pattern = "" if scene.pattern == "plain" else f"{scene.pattern} "
    bare = f"{pattern}{scene.background} background"
    style = "" if scene.style == "none" else f"{article(scene.style)} of "
    form = _PARAPHRASES[paraphrase]
    return form.format(style=style, things=describe(scene), ground=article(bare), bare=bare)


def sample_caption(rng: np.random.Generator, scene: Scene) -> str:
    """A caption as training sees it: canonical in seven of ten draws, else a paraphrase."""
    return caption(scene, int(rng.choice(4, p=(0.7, 0.1, 0.1, 0.1))))


def parse(text: str) -> Scene:
    """The scene that a canonical caption or a paraphrase describes, things at their usual places.

    caption(parse(text)) == text for every canonical text. Raises UserError for other sentences.
    """
    body = re.sub(r"^a picture of ", "", text.strip().lower())
    match = re.fullmatch(
        r"(?:an? (?P<style>3d render|pixel art|neon sign) of )?(?P<things>.+?)"
        r"(?: on an?| in front of an?| ,) (?:(?P<pattern>striped|dotted) )?"
        r"(?P<background>\w+) background",
        body,
    )
    if match is None:
        raise UserError(f"not a caption of the emoji world: {text!r}")
    things = _parse_things(match["things"])
    return Scene(things, match["background"], match["pattern"] or "plain", match["style"] or "none")


def _parse_things(text):
    parts = text.split(" and ")
    places = ("left", "right") if len(parts) == 2 else ("centre",)
    side = re.search(r" on the (left|right)$", text)
    if side:
        parts, places = [text[: side.start()]], (side[1],)
    return tuple(_parse_thing(part, where) for part, where in zip(parts, places, strict=True))


def _parse_thing(text, where):
    words = re.sub(r"^an? ", "", text).split()
    colour = words[0] if words[0] in world.COLOURS else None
    return place(" ".join(words[1:] if colour else words), colour, where)


def words() -> tuple[str, ...]:
    """Every word of the world in a fixed order: the tokenizer gives each one token."""
    special = ("a", "an", "on", "the", "of", "and", "in", "front", "picture", "background", ",")
    styles = [word for style in world.STYLES[1:] for word in style.split()]
    names = (*world.OBJECTS, *world.HELD_OUT_OBJECTS, *world.COLOURS, *world.BACKGROUNDS)
    return tuple(dict.fromkeys((*special, "left", "right", *world.PATTERNS, *styles, *names)))
