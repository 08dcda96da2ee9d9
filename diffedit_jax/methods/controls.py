"""The attention rules of a batch of edits, from words and numbers: host code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from ..core import Solver, Step
from ..errors import UserError
from ..transforms import AttentionEdit, LocalBlend
from .alignment import token_map
from .rows import Edits, each
from .windows import self_window, token_scales, token_windows
from .words import Prompt, in_no_prompt, listed_words, read_prompt, selector

_PROMPTS = ("source", "prompt")  # keys of words that belong to one prompt


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


def local_blend(texts: Texts, edits: Edits, grid: tuple) -> LocalBlend:
    """LocalBlend for every edit, leaves [edits, ...]; where no word is named all may change.

    Words are the edits' own blend_words and blend_without, as `prompt_to_prompt` takes them.

    Args:
      grid: (height, width) of the layers that are read.
    Raises: UserError for a word that no prompt has, and where a target would have no region.
    Source: cure-lab/PnPInversion models/p2p/attention_control.py, LocalBlend: the region of a
      prompt without its word is 0/0, above no threshold, so that the other prompt's is left.
    """
    select, threshold, start = [], [], []
    for i in range(edits.count):
        rows = [texts.sources[i], *texts.targets[i]]
        may, must_not = (
            _named(rows, edits.own(name)[i], name) for name in ("blend_words", "blend_without")
        )
        confined = any(may)
        if confined:
            _check_regions(rows, may)
        pairs = zip(may, must_not, strict=True)
        select.append([[selector(found, texts.length) for found in pair] for pair in pairs])
        least, highest, begin = (
            _share(edits.own(name)[i], name)
            for name in ("blend_threshold", "blend_without_threshold", "blend_start")
        )
        threshold.append([least if confined else -1.0, highest])
        start.append(int(begin * texts.walked[i]))
    return LocalBlend(
        select=jnp.asarray(np.asarray(select)),
        threshold=jnp.asarray(threshold, jnp.float32),
        start=jnp.asarray(start, jnp.int32),
        grid=grid,
    )


def _named(rows: list[Prompt], value: Any, name: str) -> list[list[int]]:
    """For each prompt, the source's first, the tokens of the words that are named and it has."""
    if isinstance(value, Mapping):
        if not set(value) <= set(_PROMPTS):
            raise UserError(
                f"{name} has words of 'source' and 'prompt', not of {', '.join(map(str, value))}"
            )
        source, target = (listed_words(value.get(key)) for key in _PROMPTS)
        own = [source, *[target] * (len(rows) - 1)]
        pairs = zip(rows, own, strict=True)
        return [[t for word in words for t in prompt.tokens(word)] for prompt, words in pairs]
    words = listed_words(value)
    for word in words:
        if not any(prompt.has(word) for prompt in rows):
            raise in_no_prompt(word, rows)
    return [[t for w in words if prompt.has(w) for t in prompt.tokens(w)] for prompt in rows]


def _check_regions(rows: list[Prompt], found: list[list[int]]) -> None:
    """A target's region is its own words' and the source's: one of the two must have one."""
    for prompt, own in zip(rows[1:], found[1:], strict=True):
        if not own and not found[0]:
            raise UserError(
                f"neither {rows[0].text!r} nor {prompt.text!r} has a word of blend_words; "
                "name one of them"
            )


def _share(value, name: str) -> float:
    if not 0 <= float(value) <= 1:
        raise UserError(f"{name} must be a share in [0, 1], not {value}")
    return float(value)


def _by_edit(values: list, edits: Edits) -> list[list]:
    return [values[i : i + edits.targets] for i in range(0, len(values), edits.targets)]
