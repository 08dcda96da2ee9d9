"""The emoji world: captioned scenes rendered from specs, and edits with exact ground truth."""

from diffedit_jax.scenes.captions import caption, parse, sample_caption
from diffedit_jax.scenes.edits import KINDS, Edit, sample_edit
from diffedit_jax.scenes.instructions import exemplar, instruction
from diffedit_jax.scenes.render import render, render_batch
from diffedit_jax.scenes.spec import SIZE, Scene, Thing, place, sample_scene

__all__ = [
    "KINDS",
    "SIZE",
    "Edit",
    "Scene",
    "Thing",
    "caption",
    "exemplar",
    "instruction",
    "parse",
    "place",
    "render",
    "render_batch",
    "sample_caption",
    "sample_edit",
    "sample_scene",
]
