"""Pictures that show what a run can do by now: always the same prompts or rows, and the same noise.

Each function makes a `look` for `loop.fit`, from what the run has learned so far (the average, if
it keeps one). config: look_count pictures, by look_steps steps, with the guidance look_guidance;
seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..images.frame import resized
from ..methods.generate import generate
from ..methods.instruct_pix2pix import instruct_pix2pix
from ..methods.paint_by_example import paint_by_example
from ..methods.run import pictures
from .agree import is_first, on_host
from .data import to_unit
from .examples import Examples
from .pairs import Pairs
from .task import Task
from .tasks.shared import learned

Look = Callable[[int, Any], dict[str, np.ndarray]]


def of_prompts(
    model: Any, task: Task, config: Any, said: Mapping[str, Sequence[str]], now: Callable = None
) -> Look:
    """{name: pictures of its sentences, in turn}.

    now: (model, trained) -> the model as it is by now; without it, `model_now`.
    """

    def draw(made):
        ways = dict(seed=config.seed, steps=config.look_steps, guidance=config.look_guidance)
        prompts = {name: _in_turn(texts, config.look_count) for name, texts in said.items()}
        return {n: generate(made, None, prompt=texts, **ways) for n, texts in prompts.items()}

    return _look(model, task, draw, now)


def of_pairs(model: Any, task: Task, config: Any, pairs: Pairs) -> Look:
    """{"edits": rows of the training data, above each other: before, as drawn now, as wanted}."""
    rng = np.random.default_rng((config.seed, 11))
    few = np.count_nonzero(pairs.share) < config.look_count
    chosen = np.sort(rng.choice(len(pairs.orders), config.look_count, few, pairs.share))

    def draw(made):
        both = np.asarray(pairs.latents[chosen], np.float32) * np.float32(pairs.scale)
        before, wanted = (pictures(made, both[:, side]) for side in (0, 1))
        found = instruct_pix2pix(
            made, to_unit(before), prompt=[pairs.orders[k] for k in chosen], seed=config.seed,
            steps=config.look_steps, guidance=config.look_guidance,
        )  # fmt: skip
        return {"edits": np.concatenate([before, found, wanted], axis=1)}

    return _look(model, task, draw)


def of_examples(model: Any, task: Task, config: Any, examples: Examples) -> Look:
    """{"holes": rows of the training data: the picture, its example, the hole filled now}."""

    def draw(made):
        chosen, hole = _with_holes(examples, config.look_count, made.factor)
        whole = pictures(made, np.asarray(examples.latents[chosen, 0], np.float32))
        shown = [np.asarray(one) for one in examples.shown[chosen]]
        found = paint_by_example(
            made, to_unit(whole), example=shown, mask=hole, seed=config.seed,
            steps=config.look_steps, guidance=config.look_guidance,
        )  # fmt: skip
        beside = np.stack([resized(one, whole.shape[1:3], "BICUBIC") for one in shown])
        return {"holes": np.concatenate([whole, beside, found], axis=1)}

    return _look(model, task, draw)


def model_now(model: Any, task: Task, trained: Any) -> Any:
    """The model with what is learned in its place among the rest."""
    params = task.selection.join(task.params, trained)
    model = model.replace(denoiser=model.denoiser.replace(params=params["unet"]))
    if "text_encoder" in params:
        model = model.replace(texts=(model.texts[0].replace(params=params["text_encoder"]),))
    if "exemplar" in params:
        model = model.replace(exemplar=model.exemplar.replace(params=params["exemplar"]))
    return model


def _look(model, task, draw, now=None) -> Look:
    """Every process gathers what is learned; the first alone draws."""

    def look(step: int, state: Any) -> dict[str, np.ndarray]:
        found = on_host(learned(state))
        if not is_first():
            return {}
        return draw(now(model, found) if now else model_now(model, task, found))

    return look


def _in_turn(texts: Sequence[str], count: int) -> list[str]:
    return [texts[i % len(texts)] for i in range(count)]


def _with_holes(examples: Examples, count: int, factor: int) -> tuple[np.ndarray, np.ndarray]:
    """(rows whose hole has whole cells, those holes [n, h, w] in pixels), the first such rows."""
    rows = np.arange(min(len(examples.keep), 16 * count))
    cells = np.asarray(examples.keep[rows, ..., 0], np.float32) < 0.5
    good = rows[cells.any((1, 2)) & ~cells.all((1, 2))][:count]
    return good, cells[good].repeat(factor, 1).repeat(factor, 2).astype(np.float32)
