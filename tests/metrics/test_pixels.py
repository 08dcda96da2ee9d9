"""MSE, PSNR and SSIM against scipy in float64, torch, and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from diffedit_jax.errors import UserError
from diffedit_jax.metrics import mse, psnr, ssim

RNG = np.random.default_rng(0)
SHAPE = (2, 23, 31, 3)


def pictures(shape=SHAPE, noise=0.1):
    a = np.clip(ndimage.gaussian_filter(RNG.random(shape), (0, 2, 2, 0)) * 3 - 1, 0, 1)
    return a, np.clip(a + noise * RNG.normal(size=shape), 0, 1)


def blur(x, window):
    """The two windows by scipy: `mirror` there is what numpy and torch call reflect."""
    if window == "uniform":
        return ndimage.uniform_filter(x, (0, 7, 7, 0), mode="mirror")
    return ndimage.gaussian_filter(x, (0, 1.5, 1.5, 0), mode="mirror", truncate=3.5)


def reference_ssim(a, b, window, border):
    """Wang et al.'s formula in float64."""
    means, moments = [blur(x, window) for x in (a, b)], [blur(x, window) for x in (a * a, b * b)]
    variances = [m2 - m * m for m, m2 in zip(means, moments, strict=True)]
    covariance = blur(a * b, window) - means[0] * means[1]
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * means[0] * means[1] + c1) * (2 * covariance + c2)
    found = top / ((means[0] ** 2 + means[1] ** 2 + c1) * (sum(variances) + c2))
    edge = {"uniform": 3, "gaussian": 5}[window]
    return found[:, edge:-edge, edge:-edge] if border == "crop" else found


@pytest.mark.parametrize("window", ["gaussian", "uniform"])
@pytest.mark.parametrize("border", ["keep", "crop"])
def test_ssim_of_both_conventions(window, border):
    a, b = pictures()
    ours = ssim(a, b, window=window, size=7, border=border)
    wanted = reference_ssim(a, b, window, border).mean((1, 2, 3))
    np.testing.assert_allclose(ours, wanted, atol=1e-6)


@pytest.mark.parametrize("border", ["keep", "crop"])
def test_ssim_of_a_part_is_the_mean_of_the_map_there(border):
    a, b = pictures()
    mask = RNG.random(SHAPE[:3]) > 0.7
    found = reference_ssim(a, b, "gaussian", border).mean(-1)
    inside = mask[:, 5:-5, 5:-5] if border == "crop" else mask
    wanted = [row[keep].mean() for row, keep in zip(found, inside, strict=True)]
    np.testing.assert_allclose(ssim(a, b, mask, border=border), wanted, atol=1e-6)


def test_the_windows_of_torch():
    """torchmetrics' own operations: reflection pad, then a depthwise convolution, then the crop."""
    torch = pytest.importorskip("torch")
    pair = pictures()
    a, b = (torch.from_numpy(x).permute(0, 3, 1, 2) for x in pair)
    line = torch.exp(-((torch.arange(-5.0, 6.0, dtype=torch.float64) / 1.5) ** 2) / 2)
    kernel = torch.outer(line / line.sum(), line / line.sum()).expand(3, 1, 11, 11)
    a, b = (torch.nn.functional.pad(x, (5, 5, 5, 5), mode="reflect") for x in (a, b))
    rows = torch.cat([a, b, a * a, b * b, a * b])
    rows = torch.nn.functional.conv2d(rows, kernel, groups=3)
    ma, mb, aa, bb, ab = rows.split(2)
    va, vb = (aa - ma**2).clamp(min=0), (bb - mb**2).clamp(min=0)
    top = (2 * ma * mb + 1e-4) * (2 * (ab - ma * mb) + 9e-4)
    found = top / ((ma**2 + mb**2 + 1e-4) * (va + vb + 9e-4))
    np.testing.assert_allclose(ssim(*pair), found.mean((1, 2, 3)), atol=1e-6)
    cropped = found[..., 5:-5, 5:-5].mean((1, 2, 3))
    np.testing.assert_allclose(ssim(*pair, border="crop"), cropped, atol=1e-6)


def test_closed_forms():
    a = np.full((2, 16, 16, 3), 0.25)
    b = a + np.array([0.1, 0.01])[:, None, None, None]
    np.testing.assert_allclose(mse(a, b), [1e-2, 1e-4], rtol=5e-5)  # 0.35 is no float32
    np.testing.assert_allclose(psnr(a, b), [20.0, 40.0], rtol=1e-5)
    np.testing.assert_allclose(psnr(10 * a, 10 * b, data_range=10.0), [20.0, 40.0], rtol=1e-5)
    light = (2 * 0.25 * 0.35 + 1e-4) / (0.25**2 + 0.35**2 + 1e-4)  # without any variance
    np.testing.assert_allclose(ssim(a, b)[0], light, atol=1e-6)


def test_large_pictures_lose_no_digits():
    a = np.full((512, 512, 3), 0.3, np.float32)
    b = a + np.float32(0.1)
    wanted = np.mean((a.astype(float) - b) ** 2)
    np.testing.assert_allclose(mse(a, b), wanted, rtol=1e-6)


def test_equal_pictures_are_infinitely_alike():
    a, _ = pictures()
    assert np.isposinf(psnr(a, a)).all() and (np.asarray(mse(a, a)) == 0).all()
    np.testing.assert_allclose(ssim(a, a), 1, atol=1e-6)


def test_bytes_are_unit_floats():
    a, b = (np.round(255 * x).astype(np.uint8) for x in pictures())
    for metric in (mse, psnr, ssim):
        np.testing.assert_allclose(metric(a, b), metric(a / 255, b / 255), rtol=1e-5)


def test_a_mask_chooses_what_counts():
    a, b = pictures()
    mask = np.zeros(SHAPE[1:3], bool)
    mask[4:9, 10:20] = True
    wanted = ((a - b) ** 2)[:, 4:9, 10:20].mean((1, 2, 3))
    np.testing.assert_allclose(mse(a, b, mask), wanted, rtol=1e-5)
    np.testing.assert_allclose(mse(a, b, mask[..., None].astype(np.uint8) * 255), wanted, rtol=1e-5)
    b[:, ~mask] = 0.5  # what lies outside does not matter
    np.testing.assert_allclose(mse(a, b, mask), wanted, rtol=1e-5)


def test_over_the_picture_is_pie_bench():
    """Both pictures times (1 - edited), and then no mask at all."""
    a, b = pictures()
    keep = (RNG.random(SHAPE[:3]) > 0.4).astype(float)
    shown = a * keep[..., None], b * keep[..., None]
    for metric in (mse, psnr, ssim):
        np.testing.assert_allclose(metric(a, b, keep, over="picture"), metric(*shown), rtol=2e-5)
    assert float(psnr(a, b, keep, over="picture")[0]) > float(psnr(a, b, keep)[0])


def test_an_empty_mask_has_no_mean():
    a, b = pictures()
    empty = np.zeros(SHAPE[:3])
    assert np.isnan(mse(a, b, empty)).all() and np.isnan(ssim(a, b, empty)).all()


def test_any_leading_axes_and_any_channels():
    a = RNG.random((2, 3, 12, 13, 1))
    b = RNG.random(a.shape)
    for metric in (mse, psnr, ssim):
        found = metric(a, b)
        assert found.shape == (2, 3)
        np.testing.assert_allclose(found[1, 2], metric(a[1, 2], b[1, 2]), rtol=1e-5)


def test_they_can_be_jitted_mapped_and_descended():
    a, b = (jnp.asarray(x, jnp.float32) for x in pictures((2, 12, 13, 3)))
    np.testing.assert_allclose(jax.jit(jax.vmap(ssim))(a, b), ssim(a, b), atol=1e-6)
    slope = jax.grad(lambda x: ssim(x, b).sum())(a)
    better = ssim(jnp.clip(a + 0.5 * slope, 0, 1), b)
    assert np.isfinite(slope).all() and (better > ssim(a, b)).all()


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda a, b: mse(a, b[:, 1:]), "sizes equal"),
        (lambda a, b: mse(a[0, 0], b[0, 0]), "height|h, w"),
        (lambda a, b: psnr((a * 255).astype(np.int32), b), "int32"),
        (lambda a, b: psnr(a, b, np.ones((4, 4))), "does not fit"),
        (lambda a, b: mse(a, b, over="the moon"), "over is"),
        (lambda a, b: ssim(a[:, :5], b[:, :5]), "smaller than the window"),
        (lambda a, b: ssim(a[:, :9], b[:, :9], border="crop"), "smaller than the window"),
        (lambda a, b: ssim(a, b, window="uniform", size=4), "odd"),
        (lambda a, b: ssim(a, b, border="wrap"), "border is"),
    ],
)
def test_mistakes_get_one_line(call, words):
    with pytest.raises(UserError, match=words) as error:
        call(*pictures())
    assert "\n" not in str(error.value)
