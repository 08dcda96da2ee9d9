"""What edited pictures are measured by; see docs/metrics.md."""

from diffedit_jax.metrics.pixels import mse, psnr, ssim, ssim_map

__all__ = ["mse", "psnr", "ssim", "ssim_map"]
