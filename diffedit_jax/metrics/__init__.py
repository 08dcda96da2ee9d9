"""What edited pictures are measured by; see docs/metrics.md."""

from diffedit_jax.metrics.clip import (
    Clip,
    clip_score,
    clip_similarity,
    directional_similarity,
    load_clip,
)
from diffedit_jax.metrics.frechet import features, frechet_distance, mean_distance, statistics
from diffedit_jax.metrics.perceptual import load_lpips, lpips
from diffedit_jax.metrics.pixels import mse, psnr, ssim, ssim_map
from diffedit_jax.metrics.prepare import Preparation
from diffedit_jax.metrics.structure import (
    dino_features,
    dino_structure_distance,
    load_dino,
    self_similarity,
)
from diffedit_jax.metrics.subject import diversity, subject_fidelity

__all__ = [
    *("Clip", "Preparation", "clip_score", "clip_similarity", "dino_features"),
    *("dino_structure_distance", "directional_similarity", "diversity", "features"),
    *("frechet_distance", "load_clip", "load_dino", "load_lpips", "lpips", "mean_distance"),
    *("mse", "psnr", "self_similarity", "ssim", "ssim_map", "statistics", "subject_fidelity"),
]
