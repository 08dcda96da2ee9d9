"""The attention rules of a batch of edits, from words and numbers: host code."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..core import Solver, Step
from ..errors import UserError
from ..transforms import AttentionEdit, LocalBlend
from .alignment import token_map
from .rows import Edits, each
from .windows import self_window, token_scales, token_windows
from .words import Prompt, listed_words, read_prompt, selector


class Texts(NamedTuple):
    """The prompts of a batch of edits with their tokens.

    Attributes:
      sources: one per edit.
      targets: [edits][targets].
      length: tokens that the network reads.
      walked: [edits] rows of the table that each edit walks.
    """

    sources: list[Prompt]
    targets: list[list[Prompt]]
    length: int
    walked: list[int]


def read_texts(model, edits: Edits, prompts, length: int, table: Step) -> Texts:
    """Tokenizes the prompts of a batch."""
    read = {text: read_prompt(model, text) for text in {*edits.own("source"), *prompts}}
    targets = _by_edit([read[text] for text in prompts], edits)
    active = np.ones(len(table.index), bool) if table.active is None else np.asarray(table.active)
    walked = np.broadcast_to(active.sum(axis=-1), (edits.count,))
    return Texts([read[s] for s in edits.own("source")], targets, length, walked.tolist())


def attention_edit(texts: Texts, edits: Edits, *, cells: int, calls=None, **knobs) -> AttentionEdit:
    """Prompt-to-Prompt's rules for every edit, leaves [edits, ...].

    Args:
      cells: self attention is edited at layers of at most so many cells.
      calls: of `counted_calls`, or None.
      knobs: controller, mapper, cross_replace_steps, self_replace_steps, equalizer: one value, or
        one per picture.
    """
    count = edits.count * edits.targets
    chosen = {name: _by_edit(each(value, count, name), edits) for name, value in knobs.items()}
    rules = []
    for i, (source, steps) in enumerate(zip(texts.sources, texts.walked, strict=True)):
        own = [{name: v[i][j] for name, v in chosen.items()} for j in range(edits.targets)]
        rows = [
            _rule(source, target, steps, texts.length, **knob)
            for target, knob in zip(texts.targets[i], own, strict=True)
        ]
        rules.append([np.stack(part) for part in zip(*rows, strict=True)])
    parts = (jnp.asarray(np.stack(part)) for part in zip(*rules, strict=True))
    names = ("mapper", "fresh", "scale", "cross", "self_window")
    if calls is not None:
        calls = {k: jnp.tile(v, (edits.count, 1)) for k, v in calls.items()}
    return AttentionEdit(**dict(zip(names, parts, strict=True)), calls=calls, self_cells=cells)


def _rule(source, target, steps, length, *, controller, mapper, cross_replace_steps,
          self_replace_steps, equalizer):  # fmt: skip
    """The arrays of one target."""
    matrix, fresh = token_map(source, target, length, controller, mapper)
    return (
        matrix,
        fresh,
        token_scales(equalizer, target, length),
        token_windows(cross_replace_steps, target, steps, length),
        self_window(self_replace_steps, steps),
    )


def counted_calls(rule: Solver, table: Step) -> dict[str, np.ndarray]:
    """{"t": [rows], "before": [rows]}: how often the network was asked before each row.

    A second question within a row is known by its time. With it windows count as the official code
    does: plms asks 51 times in 50 steps.
    """
    last = rule.evaluations(1)  # a row that ends the run
    before = [rule.evaluations(i + 1) - last for i in range(len(table.index))]
    return {"t": np.asarray(table.t), "before": np.asarray(before, np.int32)}


def local_blend(texts: Texts, edits: Edits, words: Any, without: Any, grid: tuple) -> LocalBlend:
    """LocalBlend for every edit, leaves [edits, ...]; where no word is named all may change.

    Args:
      words, without: texts of words, one for all pictures or one per picture. A word counts in
        every prompt of the edit that has it; each prompt needs one of `words`.
      grid: (height, width) of the layers that are read.
    """
    count = edits.count * edits.targets
    may, must_not = (
        [sorted({w for text in group for w in listed_words(text)}) for group in _by_edit(
            each(value, count, name), edits)]
        for value, name in ((words, "blend_words"), (without, "blend_without"))
    )  # fmt: skip
    select, threshold, start = [], [], []
    for i in range(edits.count):
        rows = [texts.sources[i], *texts.targets[i]]
        named = [_selected(rows, w, texts.length, e) for w, e in ((may[i], True), (must_not[i], 0))]
        select.append(np.stack(named, axis=1))
        least, highest = (
            _share(edits.own(name)[i], name)
            for name in ("blend_threshold", "blend_without_threshold")
        )
        threshold.append([least if may[i] else -1.0, highest])
        share = _share(edits.own("blend_start")[i], "blend_start")
        start.append(int(share * texts.walked[i]))
    return LocalBlend(
        select=jnp.asarray(np.stack(select)),
        threshold=jnp.asarray(threshold, jnp.float32),
        start=jnp.asarray(start, jnp.int32),
        grid=grid,
    )


def _selected(rows: list[Prompt], words: list[str], length: int, every: bool) -> np.ndarray:
    """[rows, tokens] 1 at the tokens of the words in each prompt that has them."""
    for word in words:
        if not any(prompt.has(word) for prompt in rows):
            rows[-1].tokens(word)  # says that the word is absent, and what is near it
    out = []
    for prompt in rows:
        found = [t for word in words if prompt.has(word) for t in prompt.tokens(word)]
        if every and words and not found:
            raise UserError(
                f"none of the words {', '.join(words)} is in {prompt.text!r}; "
                "blend_words needs a word of each prompt"
            )
        out.append(selector(found, length))
    return np.stack(out)


def _share(value, name: str) -> float:
    if not 0 <= float(value) <= 1:
        raise UserError(f"{name} must be a share in [0, 1], not {value}")
    return float(value)


def _by_edit(values: list, edits: Edits) -> list[list]:
    return [values[i : i + edits.targets] for i in range(0, len(values), edits.targets)]
