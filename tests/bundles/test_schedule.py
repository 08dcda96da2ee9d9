"""Scheduler configs against diffusers' classes, and values that make no schedule."""

import json

import numpy as np
import pytest

from diffedit_jax.bundles.schedule import SOLVERS, read_scheduler
from diffedit_jax.errors import UserError

from .conftest import PIPELINES

STABLE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
CONFIGS = [
    {},
    STABLE,
    STABLE | {"set_alpha_to_one": False, "steps_offset": 1},
    STABLE | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"},
    {"beta_schedule": "squaredcos_cap_v2"},
    {"num_train_timesteps": 10, "trained_betas": [0.01 * n for n in range(1, 11)]},
]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("family", ["DDIMScheduler", "PNDMScheduler", "DDPMScheduler"])
def test_levels_and_defaults_as_diffusers_has_them(family, config):
    diffusers = pytest.importorskip("diffusers")
    theirs = getattr(diffusers, family).from_config(config)
    if family == "PNDMScheduler":  # has no such rescaling; its network has, all the same
        config = {k: v for k, v in config.items() if k != "rescale_betas_zero_snr"}
    ours = read_scheduler({"_class_name": family, **config}, "test")
    np.testing.assert_allclose(ours.schedule.abar, theirs.alphas_cumprod.numpy(), rtol=2e-5)
    assert ours.kind == theirs.config.prediction_type
    assert ours.schedule.steps_offset == theirs.config.get("steps_offset", 0)
    if family != "DDPMScheduler":
        assert ours.schedule.final_abar == pytest.approx(float(theirs.final_alpha_cumprod))
    assert ours.clip_sample == theirs.config.get("clip_sample", False)


@pytest.mark.parametrize("folder", ["sd1", "sd2", "ip2p", "inpaint", "sd1_classic_names"])
def test_recorded_configs_need_no_remark(folder):
    config = json.loads((PIPELINES / folder / "scheduler" / "scheduler_config.json").read_text())
    said = read_scheduler(config, folder)
    assert said.solver == SOLVERS[config["_class_name"]] and not said.notices
    assert said.schedule.spacing == config.get("timestep_spacing")
    assert not said.clip_sample and not said.schedule.set_alpha_to_one or folder == "ip2p"


def test_solver_names_exist():
    from diffedit_jax.solvers import SOLVERS as known

    names = set(SOLVERS.values()) | {"dpmpp_2m_karras", "euler_karras"}
    assert names <= set(known)


def test_karras_levels():
    config = {"_class_name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True}
    assert read_scheduler(config, "test").solver == "dpmpp_2m_karras"


@pytest.mark.parametrize(
    "key, value", [("thresholding", True), ("algorithm_type", "sde-dpmsolver++")]
)
def test_what_is_not_used_is_said(key, value):
    said = read_scheduler({"_class_name": "DDIMScheduler", key: value}, "test")
    assert len(said.notices) == 1 and key in said.notices[0]


def test_unknown_classes_and_keys():
    said = read_scheduler({"_class_name": "os.system", "whatever": 1, **STABLE}, "test")
    assert said.solver is None and "os.system" in said.notices[0]
    assert not read_scheduler({"_class_name": "DDIMScheduler", "whatever": 1}, "test").notices


BAD = {
    "prediction_type": ["flow", 3, None, ["epsilon"]],
    "num_train_timesteps": [0, 1, 10**9, 1000.0, "1000", True, None],
    "beta_start": [0, -1, 2, "x", None, float("nan"), True],
    "beta_end": [float("inf")],
    "beta_schedule": ["sigmoid", 1],
    "steps_offset": [-1, 1000, "1", 10**30],
    "timestep_spacing": ["random"],
    "trained_betas": ["x", [0.1], [[0.1]] * 1000, [2.0] * 1000, [float("nan")] * 1000],
}


@pytest.mark.parametrize("key, value", [(key, value) for key in BAD for value in BAD[key]])
def test_values_that_make_no_schedule(key, value):
    with pytest.raises(UserError, match=key) as caught:
        read_scheduler({"_class_name": "DDIMScheduler", key: value}, "test")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
