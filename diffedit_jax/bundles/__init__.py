"""What a user loads: networks, tokenizer and schedule that belong together."""

from diffedit_jax.bundles.convert import convert, save
from diffedit_jax.bundles.loading import load
from diffedit_jax.bundles.stable_diffusion import StableDiffusion

__all__ = ["StableDiffusion", "convert", "load", "save"]
