"""Where words look: heat maps over a picture that is drawn, or over one that is inverted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from ..core import chain
from ..errors import UserError
from ..transforms import ReadWords
from .generate import guidance_edit
from .inversion import editing_table, invert, latents_of
from .rows import Edits
from .run import guided, pictures, walk
from .sites import reading_grid
from .starts import from_noise
from .words import listed_words, read_prompt, selector

Picture = UInt8[np.ndarray, "h w 3"]
# black, violet, red, orange, pale yellow: darkness and colour both rise with attention
_RAMP = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]])


@dataclasses.dataclass(frozen=True)
class AttentionPictures:
    """Pictures with the attention of words, summed over heads, layers and steps.

    Attributes:
      images: uint8 [b, h, w, 3].
      words: the words, in the order of `maps`.
      maps: [b, words, gh, gw] float32, each picture and word with maximum 1.
    """

    images: np.ndarray
    words: tuple[str, ...]
    maps: np.ndarray

    def overlay(self, position: int, word: str) -> Picture:
        """One picture, dimmed, under the heat of one word."""
        heat = self.maps[position, self.words.index(word)]
        return overlaid(self.images[position], heat)

    def sheet(self, side: int = 192) -> Picture:
        """All pictures, a row each: the picture, then one heat map per word with its name.

        Args:
          side: pixels of a tile's longer side.
        """
        rows = [
            [image, *(self.overlay(i, word) for word in self.words)]
            for i, image in enumerate(self.images)
        ]
        tiles = [[_tile(t, side) for t in row] for row in rows]
        body = np.concatenate([np.concatenate(row, axis=1) for row in tiles], axis=0)
        return np.concatenate([_labels(["", *self.words], tiles[0][0].shape[1]), body], axis=0)


def show_attention(model, images=None, *, prompt: Sequence[str], words: str | Sequence[str],
                   negative: Sequence[str] | None = None, steps: int = 50, guidance: float = 7.5,
                   resolution: int | None = None, solver: str = "ddim", spacing: str | None = None,
                   height: int | None = None, width: int | None = None, seed: int = 0,
                   index: int = 0, noise=None, watch=None) -> AttentionPictures:  # fmt: skip
    """Draws pictures, or inverts given ones, and reads where words of their prompts look.

    Args:
      images: None, or [b, h, w, 3] in [-1, 1]; these are walked up by DDIM without guidance.
      prompt: one text per picture: what is drawn, or what the picture shows.
      words: words of the prompts, "cat hat" or a list; every prompt must have every word.
      resolution: height in cells of the layers that are read; the finest of at most 16 x 16 (or a
        quarter of a larger latent) if not given.
      negative, steps, guidance, solver, spacing, height, width, seed, index, noise, watch: as for
        `generate`.
    Raises: UserError for a word that is not in a prompt.

    Example: `show_attention(model, prompt=["a cat on a blue mat"], words="cat blue").sheet()`.

    Source: Hertz et al. 2022 figure 4; google/prompt-to-prompt, show_cross_attention.
    """
    count, words = len(prompt), listed_words(words)
    if not words:
        raise UserError("no words to show the attention of")
    edits = Edits(count, seed=seed, index=index, noise=noise, number=list(range(count)))
    cond = jax.tree.map(lambda a: a[:, :, None], guided(model, prompt, negative or [""] * count))
    if images is None:
        start = from_noise(model, edits, cond, steps=steps, spacing=spacing, solver=solver,
                           height=height, width=width)  # fmt: skip
        x = start.x[:, :1]
        reader = _reader(model, prompt, words, cond, x.shape[-3:], resolution)
        edit = chain(guidance_edit(guidance, 0.0, count), reader)
        result = walk(model.denoiser, start.rule, edit, start.table, x, cond, watch=watch,
                      preview=lambda x: pictures(model, x[:, 0]))  # fmt: skip
        shown, totals = pictures(model, result.x[:, 0]), result.state[-1]
    else:
        z0 = latents_of(model, images, "mean", edits.draws)[:, None]
        table = editing_table(model, steps=steps, count=count, spacing=spacing)
        reader = _reader(model, prompt, words, cond, z0.shape[-3:], resolution)
        told = jax.tree.map(lambda a: a[:, 1], cond)
        totals = invert(model, z0, told, table=table, edit=reader, watch=watch).state
        shown = np.round((np.asarray(images) / 2 + 0.5) * 255).astype(np.uint8)
    maps = np.asarray(totals)[:, 0]
    highest = maps.max(axis=(2, 3), keepdims=True)
    return AttentionPictures(shown, tuple(words), maps / np.maximum(highest, 1e-30))


def _reader(model, prompt, words, cond, shape, resolution) -> ReadWords:
    """Reads each word at every picture's own tokens; leaves [b, 1, words, tokens]."""
    length = cond.text.shape[-2]
    read = [read_prompt(model, text) for text in prompt]
    select = [[[selector(p.tokens(word), length) for word in words]] for p in read]
    grid = reading_grid(model, shape, resolution)
    return ReadWords(select=jnp.asarray(np.array(select)), grid=grid)


def overlaid(image: Picture, heat: Float[np.ndarray, "gh gw"]) -> Picture:
    """The picture in grey at half its brightness, with the heat (0 to 1) laid over it."""
    from PIL import Image

    size = (image.shape[1], image.shape[0])
    smooth = Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    level = np.clip(np.asarray(smooth), 0, 1)[..., None]
    grey = image.astype(np.float32).mean(axis=-1, keepdims=True)
    colour = np.stack(
        [np.interp(level[..., 0], np.linspace(0, 1, len(_RAMP)), _RAMP[:, c]) for c in range(3)], -1
    )
    return np.clip((1 - 0.7 * level) * grey * 0.6 + (0.3 + 0.7 * level) * colour, 0, 255).astype(
        np.uint8
    )


def _tile(image: Picture, side: int) -> Picture:
    """The picture enlarged or reduced to the side, with a thin frame."""
    from PIL import Image

    scale = side / max(image.shape[:2])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    return np.pad(np.asarray(Image.fromarray(image).resize(size, kind)), ((2, 2), (2, 2), (0, 0)))


def _labels(words: Sequence[str], width: int) -> Picture:
    """A strip with one word over each tile."""
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (width * len(words), 20))
    draw = ImageDraw.Draw(strip)
    for i, word in enumerate(words):
        draw.text((i * width + 4, 4), word, fill=(255, 255, 255))
    return np.asarray(strip)
