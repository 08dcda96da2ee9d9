"""DreamBooth's and Textual Inversion's figures, from embeddings and pictures.

  DINO, CLIP-I   subject_fidelity(features of generated, features of the subject's pictures)
  CLIP-T         the mean of clip_score / 100
  PRES           subject_fidelity(DINO of generated class pictures, DINO of the subject's); the
                 lower, the less has the class become the subject
  DIV            diversity of pictures generated from one prompt

Source: Ruiz et al. 2023, section 4.2 and supplement; rinongal/textual_inversion
evaluation/clip_eval.py.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from diffedit_jax.errors import UserError
from diffedit_jax.metrics.clip import directions
from diffedit_jax.metrics.network import Judge
from diffedit_jax.metrics.perceptual import lpips
from diffedit_jax.metrics.pictures import unit


def subject_fidelity(generated: Any, real: Any) -> Float[Array, ""]:
    """Mean over all pairs of cos(generated_i, real_j); features [n, d] and [m, d].

    Raises: UserError for an empty set or different numbers of features.
    """
    generated, real = (jnp.asarray(x, jnp.float32) for x in (generated, real))
    if min(len(generated), len(real)) == 0 or generated.shape[1:] != real.shape[1:]:
        raise UserError(
            f"features of {list(generated.shape)} and {list(real.shape)} cannot be compared"
        )
    return jnp.dot(directions(generated).mean(0), directions(real).mean(0), precision="highest")


def diversity(pictures: Any, net: str = "alex", weights: Judge | None = None) -> Float[Array, ""]:
    """Mean LPIPS over all pairs of the pictures [n, h, w, 3]; n of at least 2."""
    pictures = unit(pictures)
    if pictures.ndim != 4 or len(pictures) < 2:
        raise UserError("diversity needs two pictures or more, [n, h, w, 3]")
    first, second = np.triu_indices(len(pictures), 1)
    distances = [
        lpips(pictures[i][None], pictures[j][None], net, weights=weights)
        for i, j in zip(first, second, strict=True)
    ]
    return jnp.concatenate(distances).mean()
