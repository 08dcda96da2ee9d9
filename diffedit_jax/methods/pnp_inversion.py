"""PnP Inversion (2310.01506): the source row stays on its path, the target follows its attention.

Not to be confused with Direct Inversion (2211.07825), whose name it first had: see
`direct_inversion`.
"""

from __future__ import annotations

from ..core import skipped
from .prompt_to_prompt import prompt_to_prompt
from .registry import method


def _evaluations(p):
    return 2 * (p["steps"] - skipped(p["steps"], p["strength"])), 4


@method(
    paper="Ju et al. 2024, PnP Inversion: Boosting Diffusion-based Editing with 3 Lines of Code "
    "(2310.01506), with Prompt-to-Prompt",
    start="picture",
    channels=(4,),
    evaluations=_evaluations,
    role="start",
    per_image=(
        "guidance",
        "strength",
        "controller",
        "mapper",
        "cross_replace_steps",
        "self_replace_steps",
        "equalizer",
        "blend_words",
        "blend_start",
        "blend_threshold",
    ),
)
def pnp_inversion(
    model,
    images,
    *,
    source: list[str],
    prompt: list[str],
    negative: list[str] | None = None,
    mask=None,
    controller: str = "auto",
    mapper: str = "aligned",
    cross_replace_steps: float | str | dict = 0.4,
    self_replace_steps: float | str = 0.6,
    self_cells: int | None = None,
    equalizer: str | dict | None = None,
    blend_words: str | dict | None = None,
    blend_start: float = 0.2,
    blend_threshold: float = 0.3,
    strength: float = 1.0,
    steps: int = 50,
    guidance: float = 7.5,
    spacing: str | None = None,
    posterior: str = "mean",
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Encodes a picture by DDIM, holds the source row to its path, and edits by its attention.

    Rows [source, target] from z*_T; after every step the source row is z*_{t-1} itself, which is
    its own step plus the offset z*_{t-1} - DDIM(z*_t). The source thus comes back exactly, while
    the target is guided freely and takes over the source row's attention (Prompt-to-Prompt).

    Args:
      source: what the picture shows, one text per picture.
      prompt: what it shall show, one text per picture.
      negative: what to move away from; the empty prompt if not given.
      controller: "replace" (prompts of equal word count), "refine" (words come or go, which the
        benchmark's script takes always), "auto" (replace where word counts agree, else refine).
      mapper: "aligned", or "official" for the published code's shift after changed words.
      cross_replace_steps: share of the steps with the source's cross attention: an end, begin:end,
        or words of the prompt with their own, "0.8, lion=0.4".
      self_replace_steps: the same for self attention, an end or begin:end.
      self_cells: self attention is taken over at layers of at most so many cells; 16 x 16 or a
        quarter of the latent's sides if not given (the benchmark's script: 1024).
      equalizer: factors of words of the prompt, "smiling=3, pink=-1".
      blend_words: words whose region alone may change (LocalBlend), "cat dog": each is looked up in
        both prompts and may be in one of them only, whose region it then is; or words of each
        prompt, {"source": "cat", "prompt": "dog"}.
      blend_start: share of the steps before the region acts.
      blend_threshold: of the region, a share of the highest attention.
      mask: [b, h, w] in [0, 1], 1 where the picture may change.
      strength: share of the steps that are walked, both ways, in (0, 1].
      steps: length of the full grid.
      guidance: classifier-free guidance scale on the way back; the way up has none.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      posterior: "mean" takes the mean of the picture's latent, "sample" draws it.
      seed: of the draws, where there are any; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the posterior draw, or a mapping of draws, in place of the seed.

    Source: algorithm 1 of the paper; cure-lab/PnPInversion, models/p2p_editor.py, whose shares of
    the steps and guidance are the defaults.
    """
    return prompt_to_prompt(
        model, images, source=source, prompt=prompt, negative=negative, mask=mask,
        inversion="pnp_inversion", controller=controller, mapper=mapper,
        cross_replace_steps=cross_replace_steps, self_replace_steps=self_replace_steps,
        self_cells=self_cells, equalizer=equalizer, blend_words=blend_words,
        blend_start=blend_start, blend_threshold=blend_threshold,
        strength=strength, steps=steps, guidance=guidance, spacing=spacing, posterior=posterior,
        seed=seed, index=index, noise=noise, watch=watch)  # fmt: skip
