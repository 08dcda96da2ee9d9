"""From a diffusers scheduler config to our schedule."""

import math
from dataclasses import dataclass

from diffedit_jax.core.time import SPACINGS, Schedule
from diffedit_jax.errors import UserError

# Names of our solvers for the classes that published folders name.
SOLVERS = {
    "DDIMScheduler": "ddim",
    "DDPMScheduler": "ddpm",
    "PNDMScheduler": "plms",
    "EulerDiscreteScheduler": "euler",
    "EulerAncestralDiscreteScheduler": "euler_ancestral",
    "HeunDiscreteScheduler": "heun",
    "LMSDiscreteScheduler": "lms",
    "DPMSolverMultistepScheduler": "dpmpp_2m",
    "UniPCMultistepScheduler": "unipc",
}
PREDICTIONS = ("epsilon", "v_prediction", "sample")
SHAPES = ("linear", "scaled_linear", "squaredcos_cap_v2")
# What diffusers assumes for a class when the config is silent.
CLIPPING = ("DDIMScheduler", "DDPMScheduler")
ENDING_AT_ONE = ("DDIMScheduler",)
KARRAS = ("euler", "heun", "lms", "dpmpp_2m", "unipc")  # have a variant with Karras' levels
# Keys whose value changes a run in a way that our solvers' names do not say.
UNUSED = {
    "thresholding": (False, None),
    "use_exponential_sigmas": (False, None),
    "use_beta_sigmas": (False, None),
    "skip_prk_steps": (True, None),
    "algorithm_type": ("dpmsolver++", None),
}


@dataclass(frozen=True)
class Scheduling:
    """What a scheduler config says.

    Attributes:
      schedule: the noise levels.
      kind: what the network predicts: epsilon, v_prediction or sample.
      solver: our name of the config's own solver; None for a class that we do not know.
      clip_sample: whether x0 is clipped to [-1, 1] at each step.
      notices: what is written there and not used, in plain words.
    """

    schedule: Schedule
    kind: str
    solver: str | None
    clip_sample: bool
    notices: tuple[str, ...]


def read_scheduler(config: dict, where: str) -> Scheduling:
    """Reads a scheduler_config.json; absent keys get diffusers' defaults for that class.

    Raises: UserError for values that make no schedule.
    """
    kind = _one_of(config, "prediction_type", PREDICTIONS, "epsilon", where)
    family = config.get("_class_name")
    family = family if isinstance(family, str) else ""
    ends = config.get("set_alpha_to_one", family in ENDING_AT_ONE)
    clips = config.get("clip_sample", family in CLIPPING)
    notices = tuple(
        f"the scheduler config says {key} = {config[key]!r:.40}, which is not used"
        for key, usual in UNUSED.items()
        if key in config and config[key] not in usual
    )
    solver = SOLVERS.get(family)
    if solver is None:
        notices += (f"the scheduler {family!r:.60} is not known here; only its levels are used",)
    if solver in KARRAS and config.get("use_karras_sigmas"):
        solver += "_karras"
    return Scheduling(_schedule(config, bool(ends), where), kind, solver, bool(clips), notices)


def _schedule(config: dict, ends_at_one: bool, where: str) -> Schedule:
    steps = config.get("num_train_timesteps", 1000)
    if type(steps) is not int or not 2 <= steps <= 100_000:
        raise UserError(f"{where}: num_train_timesteps must be 2 to 100000, not {steps!r:.40}")
    offset = config.get("steps_offset", 0)
    if type(offset) is not int or not 0 <= offset < steps:
        raise UserError(f"{where}: steps_offset must be a small whole number, not {offset!r:.40}")
    spacing = config.get("timestep_spacing")
    if spacing is not None:
        _one_of(config, "timestep_spacing", SPACINGS, None, where)
    return Schedule(
        train_steps=steps,
        beta_start=_beta(config, "beta_start", 0.0001, where),
        beta_end=_beta(config, "beta_end", 0.02, where),
        shape=_one_of(config, "beta_schedule", SHAPES, "linear", where),
        betas=_betas(config.get("trained_betas"), steps, where),
        steps_offset=offset,
        set_alpha_to_one=ends_at_one,
        spacing=spacing,
        zero_terminal_snr=bool(config.get("rescale_betas_zero_snr", False)),
    )


def _beta(config: dict, key: str, default: float, where: str) -> float:
    value = config.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise UserError(f"{where}: {key} must be between 0 and 1, not {value!r:.40}")
    return float(value)


def _betas(values, steps: int, where: str) -> tuple[float, ...] | None:
    if values is None:
        return None
    good = isinstance(values, list) and len(values) == steps
    if not good or not all(isinstance(b, int | float) and 0 <= b < 1 for b in values):
        raise UserError(f"{where}: trained_betas must be {steps} numbers in [0, 1)")
    return tuple(float(b) for b in values if math.isfinite(b))


def _one_of(config: dict, key: str, known: tuple, default, where: str):
    value = config.get(key, default)
    if value not in known:
        raise UserError(f"{where}: {key} must be one of {', '.join(known)}, not {value!r:.40}")
    return value
