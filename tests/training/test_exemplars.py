"""What is done to example pictures, beside torch, scipy and closed forms."""

import numpy as np
import pytest

from diffedit_jax.training import exemplars


def picture(side=33, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def test_indices_beyond_the_edge_are_mirrored_without_doubling_it():
    wanted = np.pad(np.arange(7), 20, mode="reflect")
    np.testing.assert_array_equal(exemplars.mirrored(np.arange(-20, 27), 7), wanted)


def test_no_motion_is_no_change_and_a_quarter_turn_moves_whole_pixels():
    pixels = picture(32)
    np.testing.assert_array_equal(exemplars.warped(pixels, exemplars.rotation(0.0, 32)), pixels)
    turned = exemplars.warped(pixels, exemplars.rotation(90.0, 32))
    # About (16, 16): result(x, y) = pixels(32 - y, x).
    np.testing.assert_array_equal(turned[1:], pixels[:, :0:-1].transpose(1, 0, 2))


@pytest.mark.parametrize("seed", range(3))
def test_warps_are_torchs_with_reflected_edges(seed):
    torch = pytest.importorskip("torch")
    side, rng = 40, np.random.default_rng(seed)
    pixels, source = picture(side, seed), exemplars.bending(rng, side)
    y, x = np.mgrid[:side, :side]
    at = np.einsum("ij,jhw->hwi", source, np.stack([x, y, np.ones_like(x)]))
    theirs = torch.nn.functional.grid_sample(
        torch.from_numpy(pixels.transpose(2, 0, 1)[None].astype(np.float64)),
        torch.from_numpy(at[None] * 2 / (side - 1) - 1),
        mode="bilinear", padding_mode="reflection", align_corners=True,
    )[0].numpy().transpose(1, 2, 0)  # fmt: skip
    assert np.abs(exemplars.warped(pixels, source) - theirs).max() <= 0.5 + 1e-6


def test_bending_moves_three_corners_by_at_most_its_reach():
    side, moved = 224, []
    corners = np.array([[186, 186, 1], [186, 38, 1], [38, 38, 1]], float)  # 112 +- 224 // 3
    for seed in range(300):
        source = exemplars.bending(np.random.default_rng(seed), side)
        whole = np.vstack([source, [0, 0, 1]])
        moved.append((np.linalg.solve(whole, corners.T).T - corners)[:, :2])
    moved = np.asarray(moved)
    assert 45 < np.abs(moved).max() <= 50
    np.testing.assert_allclose(moved.std(), 50 / np.sqrt(3), rtol=0.05)


def test_blur_is_the_mean_over_a_box():
    ndimage = pytest.importorskip("scipy.ndimage")
    pixels = picture(224)
    for kernel in exemplars.KERNELS:
        wanted = ndimage.uniform_filter(pixels.astype(float), (kernel, kernel, 1))
        inside = slice(kernel, -kernel)
        error = exemplars.blurred(pixels, kernel)[inside, inside] - wanted[inside, inside]
        assert np.abs(error).max() <= 1.01


def test_shares_of_what_is_done(monkeypatch):
    done = []
    monkeypatch.setattr(exemplars, "rotation", lambda degrees, side: done.append(degrees))
    monkeypatch.setattr(exemplars, "bending", lambda rng, side: done.append("bend"))
    monkeypatch.setattr(exemplars, "warped", lambda pixels, source: pixels)
    monkeypatch.setattr(exemplars, "blurred", lambda pixels, kernel: done.append("blur") or pixels)
    pixels, rng, count = picture(9), np.random.default_rng(0), 3000
    flipped = sum((exemplars.augmented(rng, pixels) != pixels).any() for _ in range(count))
    angles = [each for each in done if not isinstance(each, str)]
    for found, share in ((flipped, 0.5), (len(angles), 0.5), (done.count("blur"), 0.3),
                         (done.count("bend"), 0.3)):  # fmt: skip
        assert abs(found / count - share) < 5 * np.sqrt(share * (1 - share) / count)
    assert -20 <= min(angles) < -19 and 19 < max(angles) <= 20


def test_augmentation_is_a_function_of_its_generator():
    pixels = picture(64)
    one, other = (exemplars.augmented(np.random.default_rng(7), pixels) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert one.shape == pixels.shape and one.dtype == np.uint8
