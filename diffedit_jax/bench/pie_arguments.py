"""What PIE-Bench's scripts tell a method: texts, words, and the settings of Prompt-to-Prompt.

Source: cure-lab/PnPInversion run_editing_p2p.py, models/p2p/attention_control.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffedit_jax.bench.pie_bench import Task
from diffedit_jax.errors import UserError

SEED = 1234  # the same for every picture
FACTOR = 2.0  # of the attention to the target's blended word
PROMPT_TO_PROMPT: Mapping[str, Any] = {  # whatever the inversion, whatever the prompts
    "controller": "refine",
    "mapper": "official",
    "cross_replace_steps": 0.4,
    "self_replace_steps": 0.6,
    "self_cells": 32 * 32,
}


def arguments(method: str, tasks: Sequence[Task]) -> dict:
    """What a method is told of what it has: prompts, words, settings, the mask if it needs one."""
    from diffedit_jax.methods import find

    known = find(method).parameters
    if "example" in known:
        raise UserError(f"{method} needs an exemplar, which PIE-Bench does not have")
    instructed = find(method).channels == (8,)
    told = {
        "prompt": [task.instruction if instructed else task.prompt for task in tasks],
        "source": [task.source for task in tasks],
        "seed": [SEED] * len(tasks),
        **PROMPT_TO_PROMPT,
    }
    if any(task.words for task in tasks):
        told["blend_words"] = [_blended(task) for task in tasks]
        told["equalizer"] = [_factors(task) for task in tasks]
    found = {name: value for name, value in told.items() if name in known}
    if "mask" in known and known["mask"].required:
        found["mask"] = [task.edited.astype(np.float32) for task in tasks]
    return found


def _blended(task: Task) -> dict[str, str] | str:
    """The first blended word of the source and the second of the target, where they have them.

    Where both lack theirs, both are named, so that the method refuses: the script's region is empty
    then, and the source comes back. A single word is looked up in both prompts.
    """
    pair = task.words.split()[:2]
    if len(pair) < 2:
        return task.words
    named = dict(zip(("source", "prompt"), pair, strict=True))
    return {name: word for name, word in named.items() if _has(task, name, word)} or named


def _factors(task: Task) -> dict[str, float] | None:
    """Twice the attention to the second blended word, which is the target's, if that has it."""
    words = task.words.split()[1:2]
    return {word: FACTOR for word in words if _has(task, "prompt", word)} or None


def lacks_a_word(task: Task) -> bool:
    """Whether the source lacks the first blended word, or the target the second.

    The region is then the other word's alone; where both are absent the method refuses.
    """
    pairs = zip(("source", "prompt"), task.words.split(), strict=False)
    return any(not _has(task, name, word) for name, word in pairs)


def _has(task: Task, name: str, word: str) -> bool:
    return _by_words(getattr(task, name)).has(word)


def _by_words(text: str):
    """A prompt whose tokens are its words, to look words up as the methods do."""
    from diffedit_jax.methods.words import Prompt

    spans = tuple(match.span() for match in re.finditer(r"\S+", text))
    return Prompt(text, tuple(range(len(spans))), spans)
