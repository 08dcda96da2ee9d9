"""Frechet distance of two sets of features: whose they are is the caller's choice.

The host computes in float64. "FID" proper means Inception's features of pictures resized to 299;
Paint-by-Example's "FID" are CLIP's; any function from pictures to [n, d] serves here.

Source: Heusel et al. 2017, eq. 6.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from jaxtyping import Float

from diffedit_jax.errors import UserError


def features(batches: Iterable[Any], network: Callable[[Any], Any]) -> Float[np.ndarray, "n d"]:
    """network(batch) [n, d] of every batch, one below the other, in float64."""
    rows = [np.asarray(network(batch), np.float64) for batch in batches]
    if not rows:
        raise UserError("there are no pictures to take features of")
    return np.concatenate(rows)


def statistics(
    found: Any, where: str = "the features"
) -> tuple[Float[np.ndarray, "d"], Float[np.ndarray, "d d"]]:
    """(mean [d], covariance [d, d] with n - 1) of features [n, d].

    Raises: UserError for fewer than two rows, or numbers that are not finite.
    """
    x = np.asarray(found, np.float64)
    if x.ndim != 2 or len(x) < 2 or not x.shape[1]:
        raise UserError(f"{where} have the shape {list(x.shape)}; give [n, d] with n of at least 2")
    if not np.isfinite(x).all():
        raise UserError(f"{where} hold NaN or infinity")
    mean = x.mean(0)
    centred = x - mean
    return mean, centred.T @ centred / (len(x) - 1)


def frechet_distance(a: Any, b: Any) -> float:
    """|m_a - m_b|^2 + tr(C_a) + tr(C_b) - 2 tr((C_a C_b)^(1/2)); 0 for equal sets.

    The last trace is the sum of the singular values of C_a^(1/2) C_b^(1/2), the roots taken by
    eigenvalues of symmetric matrices: also for singular covariances (fewer pictures than
    features) it is real and needs no offset, unlike the root of the unsymmetric product.

    Args:
      a, b: features [n, d], or (mean, covariance) as `statistics` gives them.

    Returns: >= 0. Biased: it falls with the number of pictures; compare equal numbers only.
    Raises: UserError when the numbers of features differ.

        frechet_distance(clip.pictures(real), clip.pictures(generated))
    """
    (mean_a, cov_a), (mean_b, cov_b) = (
        x if isinstance(x, tuple) else statistics(x) for x in (a, b)
    )
    if np.shape(mean_a) != np.shape(mean_b):
        raise UserError(f"{len(mean_a)} and {len(mean_b)} features cannot be compared")
    cross = np.linalg.svd(_root(cov_a) @ _root(cov_b), compute_uv=False).sum()
    apart = np.square(np.asarray(mean_a, np.float64) - mean_b).sum()
    return max(0.0, float(apart + np.trace(cov_a) + np.trace(cov_b) - 2 * cross))


def mean_distance(a: Any, b: Any) -> float:
    """|m_a - m_b|^2 of features [n, d]: what DiffEdit's and FlexIT's "SFID" is.

    Their CSFID is its mean over the target classes.
    Source: facebookresearch/SemanticImageTranslation eval.py.
    """
    means = [np.asarray(x, np.float64).mean(0) for x in (a, b)]
    return float(np.square(means[0] - means[1]).sum())


def _root(covariance: Any) -> np.ndarray:
    """The symmetric root; eigenvalues below 0, which rounding makes, count as 0."""
    values, vectors = np.linalg.eigh(np.asarray(covariance, np.float64))
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T
