"""Measures of edited pictures: the truth is right, the source is not, and neither is noise."""

import numpy as np
import pytest

from diffedit_jax.bench.edit_measures import changed, measured, summary
from diffedit_jax.bench.entrants import reconstructions
from diffedit_jax.bench.judge import embedded_judge
from diffedit_jax.bench.quality_of_methods import edits_of
from diffedit_jax.scenes import KINDS


@pytest.fixture(scope="module")
def judge():
    return embedded_judge()


@pytest.mark.parametrize("kind", KINDS)
def test_the_truth_is_done_and_kept_and_the_source_is_not_done(kind, judge):
    edits = edits_of(kind, 32, 0)
    truth = measured(judge, np.stack([e.target_image for e in edits]), edits)
    source = measured(judge, np.stack([e.source_image for e in edits]), edits)
    assert truth["success"].mean() > 0.9 and source["success"].mean() < 0.1
    assert truth["kept"].mean() > 0.85 and source["kept"].mean() > 0.85
    assert (truth["psnr_truth"] == 99).all() and (source["psnr_truth"] < 99).all()


def test_what_must_not_change_is_compared_with_the_source(judge):
    edits = edits_of("object", 8, 0)
    truth = np.stack([e.target_image for e in edits])
    found = measured(judge, truth, edits)
    assert (found["psnr_kept"] == 99).all()
    damaged = truth.copy()
    damaged[:, :3, :3] ^= 128  # a corner that no object covers
    again = measured(judge, damaged, edits)
    assert (again["psnr_kept"] < 40).all() and (again["ssim_kept"] < found["ssim_kept"]).all()


def test_a_style_leaves_nothing_that_must_not_change(judge):
    edits = edits_of("style", 4, 0)
    found = measured(judge, np.stack([e.target_image for e in edits]), edits)
    assert np.isnan(found["psnr_kept"]).all() and "psnr_kept" not in summary(found)


def test_a_reconstruction_asks_for_nothing(judge):
    edits = reconstructions(edits_of("object", 8, 0))
    assert all(not changed(edit) and not edit.mask.any() for edit in edits)
    found = measured(judge, np.stack([e.source_image for e in edits]), edits)
    assert "success" not in summary(found) and (found["psnr_kept"] == 99).all()


def test_a_given_distance_sees_pictures_between_0_and_1(judge):
    edits = edits_of("object", 4, 0)

    def distance(a, b):
        assert a.min() >= 0 and a.max() <= 1 and a.shape == b.shape
        return np.abs(a - b).mean((1, 2, 3))

    pictures = np.stack([e.target_image for e in edits])
    assert (measured(judge, pictures, edits, distance)["lpips_truth"] == 0).all()


@pytest.mark.parametrize(
    ("kind", "names"),
    [("background", {"background"}), ("style", {"style"}), ("colour", {"colour"})],
)
def test_what_was_asked_for(kind, names):
    assert all(changed(edit) == names for edit in edits_of(kind, 8, 0))
