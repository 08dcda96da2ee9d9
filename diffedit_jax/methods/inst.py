"""InST: repaints a picture in the style that one painting taught."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from .. import solvers
from ..core import Cond, Step, first, image_axes, levels, noised, prepared, skipped
from ..errors import UserError
from ..images import read_example
from ..images.frame import resized
from .generate import guidance_edit
from .inversion import part, walked
from .registry import method
from .rows import each
from .run import Draws, encode, per_image, pictures, walk
from .sdedit import partial_table, posterior_noise


def _evaluations(p):
    rows = p["steps"] - skipped(p["steps"], p["strength"])
    return solvers.named(p["solver"]).evaluations(rows) + 1, 2


class Look(NamedTuple):
    """What the styles of a batch say.

    Attributes:
      words: their words in prompts.
      vectors: [b, d] of those words.
      mean, deviation: [b, c] of the style pictures' latents.
    """

    words: list[str]
    vectors: Any
    mean: Any
    deviation: Any


@method(
    paper="Zhang et al. 2023, Inversion-Based Style Transfer with Diffusion Models (2211.13203)",
    start="picture",
    channels=(4,),
    evaluations=_evaluations,
    per_image=("guidance", "rescale", "strength", "adain"),
)
def inst(
    model,
    images,
    *,
    style: str,
    example=None,
    prompt: list[str] | None = None,
    negative: list[str] | None = None,
    strength: float = 0.7,
    adain: float = 1.0,
    steps: int = 50,
    guidance: float = 10.0,
    rescale: float = 0.0,
    solver: str = "ddim",
    eta: float | None = None,
    spacing: str | None = None,
    posterior: str = "sample",
    tower: str | None = None,
    compat: str = "",
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Repaints a picture in a style that was learned from one painting, keeping its layout.

    x = alpha z0 + sigma eps(alpha z0 + sigma noise, t, prompt) at the level where sampling begins
    (stochastic inversion: the network's own answer is the noise), then the ordinary sampler; z0 is
    the picture's latent with the statistics of the painting's (AdaIN).

    Args:
      style: the learned style: a file of train/inst.py, or the original's embeddings.pt.
      example: the painting, where the file does not hold what it said (embeddings.pt), or another
        one: path, PIL image or uint8 [h, w, 3]; one, or one per picture.
      prompt: what the picture shall show, with the style's word in it; the word alone ("*") if not
        given.
      negative: what to move away from; the empty prompt if not given.
      strength: share of the steps that run, in (0, 1]: more is more style and less of the picture.
        int(steps * strength) steps run, truncated; fewer than one is an error.
      adain: 0 to 1, how far each channel of the latent takes the painting's mean and deviation.
      steps: length of the full grid.
      guidance: classifier-free guidance scale.
      rescale: 0 to 1, pulls the contrast of guided predictions back (Lin et al. 2023).
      solver: name of the update rule.
      eta: 0 deterministic to 1 ancestral, for solvers that have it; None: the solver's own.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      posterior: "sample" draws the picture's latent as the original does, "mean" takes its mean.
      tower: the CLIP whose image tower reads the example, a folder or a file; the style file's own
        if not given.
      compat: "official" noises the picture to int(1000 strength) of the training's levels, though
        sampling begins a little lower, as the released notebook does.
      seed: of the noise; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the starting noise, or a mapping of draws, in place of the seed.

    Source: the paper's stochastic inversion; zyxElsa/InST InST.ipynb, ldm/models/diffusion/ddim.py.
    """
    count = len(images)
    level = official_level(model, strength, count, compat)
    rule = solvers.named(solver, eta=eta)
    draws = Draws(count, seed, index, noise)
    table = partial_table(model, rule, steps, strength, spacing, count)
    shown = None if example is None else each(example, count, "example")
    look = looks(model, each(style, count, "style"), shown, tower)
    cond = styled(model, look, prompt, negative)
    z0 = encode(model, images, posterior_noise(model, images, posterior, draws))
    z0 = tinted(z0, look.mean, look.deviation, shares(adain, count))
    x = stochastic_inversion(model.denoiser, table, z0, draws("start", z0.shape[1:]), cond, level)
    total = 1 + walked(table)
    if watch is not None:
        watch(1, total, functools.partial(pictures, model, x))
    result = walk(model.denoiser, rule, guidance_edit(guidance, rescale, count), draws.on(table), x,
                  cond, watch=part(watch, 1, total),
                  preview=lambda x: pictures(model, x))  # fmt: skip
    return pictures(model, result.x)


def looks(model, files: Sequence[str], examples: Sequence[Any] | None, tower: str | None) -> Look:
    """What each picture's style says: of the example if there is one, else of the file."""
    styles = {file: model.learned_style(file) for file in dict.fromkeys(files)}
    words = [styles[file].word for file in files]
    if examples is None:
        for file, style in styles.items():
            if style.vector is None:
                raise UserError(f"{file} does not hold the painting; name it with --example")
        kept = [(s.vector, s.mean, s.deviation) for s in (styles[file] for file in files)]
        return Look(words, *(jnp.stack(column) for column in zip(*kept, strict=True)))
    squares = [square(read_example(one).pixels, model.size) for one in examples]
    said: list = [None] * len(files)
    for file, style in styles.items():
        mine = [i for i, other in enumerate(files) if other == file]
        for i, word in zip(mine, style.words_of([squares[i] for i in mine], tower), strict=True):
            said[i] = word
    latents = encode(model, np.stack(squares).astype(np.float32) / 127.5 - 1)
    return Look(words, jnp.stack(said), *statistics(latents))


def square(pixels: UInt8[np.ndarray, "h w 3"], size: int) -> UInt8[np.ndarray, "s s 3"]:
    """The whole picture squashed to the model's square, as the notebook has it."""
    return resized(pixels, (size, size), "LANCZOS")


def styled(model, look: Look, prompt, negative) -> Cond:
    """Condition of classifier-free guidance: leaves [b, 2, ...], the negative prompt first.

    Raises: UserError for a prompt in which the style's word does not stand.
    """
    prompt, tokenizer = look.words if prompt is None else prompt, model.tokenizers[0]
    for text, word in zip(prompt, look.words, strict=True):
        if tokenizer.token(word) not in tokenizer.spans(text)[0]:
            raise UserError(f"the prompt {text!r:.60} lacks {word!r}, the style's word; "
                            f"write for example {f'{text} {word}'.strip()!r:.80}")  # fmt: skip
    both = [*(negative or [""] * len(prompt)), *prompt]
    cond = model.styled(both, [*look.words, *look.words], jnp.tile(look.vectors, (2, 1)))
    return jax.tree.map(lambda a: jnp.stack(jnp.split(a, 2), axis=1), cond)


def statistics(latent: Float[Array, "b h w c"]) -> tuple:
    """(mean, sqrt(variance + 1e-5)) [b, c] of each channel, the variance unbiased.

    Source: InST.ipynb, calc_mean_std.
    """
    return latent.mean((1, 2)), jnp.sqrt(latent.var((1, 2), ddof=1) + 1e-5)


@jax.jit
def tinted(z0: Float[Array, "b h w c"], mean, deviation, share) -> Float[Array, "b h w c"]:
    """AdaIN: z0 with the given statistics [b, c] of its channels, by a share [b] of the way.

    Source: Huang and Belongie 2017 (1703.06868); InST.ipynb, adain.
    """
    own_mean, own_deviation = (a[:, None, None] for a in statistics(z0))
    moved = (z0 - own_mean) / own_deviation * deviation[:, None, None] + mean[:, None, None]
    return z0 + share[:, None, None, None] * (moved - z0)


def shares(adain, count: int) -> Float[Array, "b"]:
    """[b] within [0, 1]. Raises: UserError for anything else."""
    found = per_image(adain, count, "adain")
    if not bool(jnp.all((found >= 0) & (found <= 1))):
        raise UserError(f"adain must be from 0 to 1, not {adain}")
    return found


def official_level(model, strength, count: int, compat: str) -> Any:
    """[b, 3] (t, alpha, sigma) at t = int(T strength), the notebook's; None for the table's own.

    The last level stands in for t = T, which the notebook would look up beyond its table.
    """
    if compat not in ("", "official"):
        raise UserError(f"compat must be 'official' or nothing, not {compat!r}")
    if not compat:
        return None
    total = model.schedule.train_steps
    strengths = np.broadcast_to(np.asarray(strength, np.float64), (count,))
    t = np.clip((strengths * total).astype(int), 0, total - 1)
    return jnp.asarray(np.stack([t, *levels(model.schedule.abar[t])], axis=-1), jnp.float32)


@jax.jit
def stochastic_inversion(
    denoiser, table: Step, z0: Float[Array, "b h w c"], eps: Float[Array, "b h w c"], cond: Cond,
    level: Any = None,
) -> Float[Array, "b h w c"]:  # fmt: skip
    """x = alpha z0 + sigma eps', eps' being the network's answer to alpha z0 + sigma eps.

    Asked once, of the prompt alone: there is no guidance.

    Args:
      table: the level is that of the first row that is walked.
      cond: leaves [b, 2, ...], the prompt second.
      level: [b, 3] t, alpha and sigma in place of the table's.
    Source: InST.ipynb (model.apply_model after q_sample, then stochastic_encode).
    """
    prompt = jax.tree.map(lambda a: a[:, 1], cond)

    def one(table, level, z0, eps, cond):
        step = first(table)
        if level is not None:
            step = step.replace(t=level[0], alpha=level[1], sigma=level[2])
        answer = denoiser(noised(step, z0, eps), step, prepared(denoiser, cond)).eps
        return noised(step, z0, answer)

    axes = (image_axes(table), None if level is None else 0, 0, 0, 0)
    return jax.vmap(one, in_axes=axes)(table, level, z0, eps, prompt)
