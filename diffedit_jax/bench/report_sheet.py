"""Pictures side by side: what an edit began from, what it should give, what every method made."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffedit_jax.bench.edit_measures import Values
from diffedit_jax.scenes import Edit

CELL = 96  # pixels of one picture on the sheet
LINE = 15  # pixels of one line of text
LEAST = 560  # pixels of width, so that titles and captions fit
GREEN, RED, GREY = (30, 150, 60), (200, 50, 50), (200, 200, 200)


def column(pictures: np.ndarray, values: Values | None = None, edge: int = 3) -> np.ndarray:
    """Pictures under each other, uint8 [n * (64 + edge), 64, 3].

    Below each, left: whether what was asked for is there; right: whether the rest stayed. Green
    yes, red no, grey where nothing was asked or nobody looked.
    """
    rows = []
    for k, picture in enumerate(pictures):
        half = picture.shape[1] // 2
        bar = np.empty((edge, picture.shape[1], 3), np.uint8)
        bar[:, :half] = _colour(values, "success", k)
        bar[:, half:] = _colour(values, "kept", k)
        rows += [picture, bar]
    return np.concatenate(rows)


def _colour(values: Values | None, name: str, k: int):
    if values is None or np.isnan(values[name][k]):
        return GREY
    return GREEN if values[name][k] > 0.5 else RED


def block(kind: str, edits: Sequence[Edit], columns: dict[str, np.ndarray], scale: int = CELL):
    """One kind of edit as a PIL image: a title, names over the columns, captions over the rows.

    columns: {name: see `column`}, in the order of the sheet.
    """
    from PIL import Image, ImageDraw, ImageFont

    names = ImageFont.load_default(11)
    each = {name: len(strip) // len(edits) * scale // 64 for name, strip in columns.items()}
    height = max(each.values())
    head = 26 + 2 * LINE
    width = max(len(columns) * (scale + 4), LEAST)
    sheet = Image.new("RGB", (width, head + len(edits) * (height + LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((4, 2), f"{kind}: {MEANING[kind]}", "black", ImageFont.load_default(17))
    for place, (name, strip) in enumerate(columns.items()):
        left = place * (scale + 4)
        draw.multiline_text((left, 26), heading(name), "black", names, spacing=2)
        parts = np.split(strip, len(edits))
        for row, part in enumerate(parts):
            top = head + row * (height + LINE) + LINE
            grown = Image.fromarray(part).resize((scale, height), Image.Resampling.NEAREST)
            sheet.paste(grown, (left, top))
    for row, edit in enumerate(edits):
        words = f"{edit.source_caption}  ->  {edit.target_caption}"
        draw.text((2, head + row * (height + LINE)), words, "#444", names)
    return sheet


MEANING = {
    "object": "another object in the same place",
    "colour": "another colour of the object",
    "background": "another colour of the background",
    "pattern": "another pattern of the background",
    "style": "another style of the whole picture",
    "add": "one more object",
    "remove": "one object less",
    "unseen_swap": "a swap of objects that no training of instructions showed",
    "unseen_object": "an object that no training showed, by example",
    "reconstruct": "the same prompt: nothing should change",
}


def heading(name: str) -> str:
    """A name in at most two lines: "prompt_to_prompt" -> "prompt_to" and "_prompt"."""
    if len(name) <= 13:
        return name
    cut = max((k for k, c in enumerate(name) if c in "_ ," and k <= 12), default=12)
    return f"{name[:cut]}\n{name[cut:].strip()}"


def stacked(blocks: Sequence):
    """PIL images under each other."""
    from PIL import Image

    width, height = max(b.width for b in blocks), sum(b.height + 16 for b in blocks)
    sheet = Image.new("RGB", (width, height), "white")
    top = 0
    for each in blocks:
        sheet.paste(each, (0, top))
        top += each.height + 16
    return sheet
