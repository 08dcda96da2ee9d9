"""Text to image with classifier-free guidance."""

from __future__ import annotations

from .. import solvers
from ..core import first
from ..transforms import Combine, guidance_weights
from .registry import method
from .run import Draws, check_steps, guided, per_image, pictures, walk


def _evaluations(p):
    return solvers.named(p["solver"]).evaluations(p["steps"]), 2


@method(
    paper="Ho & Salimans 2022, Classifier-Free Diffusion Guidance (2207.12598)",
    start="noise",
    channels=(4,),
    evaluations=_evaluations,
    per_image=("guidance", "rescale"),
)
def generate(
    model,
    images=None,
    *,
    prompt: list[str],
    negative: list[str] | None = None,
    steps: int = 50,
    guidance: float = 7.5,
    rescale: float = 0.0,
    solver: str = "ddim",
    eta: float | None = None,
    spacing: str | None = None,
    height: int | None = None,
    width: int | None = None,
    seed: int = 0,
    index: int = 0,
    noise=None,
    watch=None,
):
    """Draws pictures from prompts: noise to picture under classifier-free guidance.

    eps = eps(negative) + guidance (eps(prompt) - eps(negative)), at every step of the solver.

    Args:
      prompt: what to draw, one text per picture.
      negative: what to move away from; the empty prompt if not given.
      steps: number of steps, 1 to the schedule's training steps.
      guidance: s; 1 follows the prompt alone, 0 the negative prompt alone, 5 to 9 are usual.
      rescale: 0 to 1, pulls the contrast of guided predictions back (Lin et al. 2023).
      solver: name of the update rule.
      eta: 0 deterministic to 1 ancestral, for solvers that have it; None: the solver's own.
      spacing: leading, linspace or trailing; the checkpoint's own if not given.
      height: in pixels, a multiple of the model's factor; the model's own size if not given.
      width: in pixels, as height.
      seed: of the noise; with one seed per picture, each has its own.
      index: the picture's own number; its noise depends on (seed, index) alone.
      noise: the starting noise, or a mapping of draws, in place of the seed.

    Source: diffusers' StableDiffusionPipeline.__call__.
    """
    count = len(prompt)
    check_steps(model, steps)
    rule = solvers.named(solver, eta=eta)
    draws = Draws(count, seed, index, noise)
    table = rule.steps(model.schedule, steps, spacing=spacing).replace(active=None)
    shape = model.latent_shape(height or model.size, width or model.size)
    x = rule.begin(first(table), draws("start", shape))
    cond = guided(model, prompt, negative or [""] * count)
    edit = guidance_edit(guidance, rescale, count)
    result = walk(model.denoiser, rule, edit, draws.on(table), x, cond,
                  watch=watch, preview=lambda x: pictures(model, x))  # fmt: skip
    return pictures(model, result.x)


def guidance_edit(guidance, rescale, count: int) -> Combine:
    """Classifier-free guidance of a batch; rescale enters the program only where it is not zero."""
    rescaled = per_image(rescale, count, "rescale")
    weights = guidance_weights(per_image(guidance, count, "guidance"))
    return Combine(weights=weights, rescale=rescaled if rescaled.any() else None)
