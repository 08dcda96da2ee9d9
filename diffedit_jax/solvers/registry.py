"""Solvers by name, and from the scheduler config of a diffusers folder."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping

from ..core import Solver
from ..errors import UserError
from .ddim import DDIM
from .ddpm import DDPM
from .dpmpp import DPMpp2M
from .euler import Euler, EulerAncestral
from .heun import Heun
from .lms import LMS
from .plms import PLMS
from .unipc import UniPC

SOLVERS: dict[str, Callable[..., Solver]] = {
    "ddim": DDIM,
    "ddpm": DDPM,
    "plms": PLMS,
    "euler": Euler,
    "euler_karras": functools.partial(Euler, karras=True),
    "euler_ancestral": EulerAncestral,
    "heun": Heun,
    "heun_karras": functools.partial(Heun, karras=True),
    "lms": LMS,
    "lms_karras": functools.partial(LMS, karras=True),
    "dpmpp_2m": DPMpp2M,
    "dpmpp_2m_karras": functools.partial(DPMpp2M, karras=True),
    "unipc": UniPC,
    "unipc_karras": functools.partial(UniPC, karras=True),
}
"""Constructors; what they return tells `draws` and `evaluations(count)`."""


def named(name: str, **knobs) -> Solver:
    """The solver of that name with its knobs set.

    A knob of None is the solver's default; `eta=0` asks for no noise, which deterministic solvers
    take although they have no such knob. An unknown name or knob is a UserError with the nearest
    one.

    Example: `named("ddim", eta=0.5)`, `named("unipc_karras", order=3)`.
    """
    if name not in SOLVERS:
        raise UserError(f"no solver {name!r}; {_nearest(name, SOLVERS)}")
    known = [p for p in inspect.signature(SOLVERS[name]).parameters if p not in ("parent", "name")]
    knobs = {knob: value for knob, value in knobs.items() if value is not None}
    eta = knobs.get("eta")
    if isinstance(eta, int | float) and eta == 0 and not SOLVERS[name]().draws:
        del knobs["eta"]
    for knob in knobs:
        if knob not in known:
            raise UserError(f"solver {name!r} has no {knob!r}; {_nearest(knob, known)}")
    return SOLVERS[name](**knobs)


def from_config(config: Mapping) -> Solver:
    """The solver that a diffusers scheduler config asks for, with diffusers' own arithmetic.

    Levels and grids come from `Schedule`; keys that belong to other classes are ignored, as
    diffusers does. A class or a setting that is not built here is a UserError, never replaced
    silently.

    Example: `from_config(json.load(open("model/scheduler/scheduler_config.json")))`.
    """
    name = config.get("_class_name", "")
    if name not in _CLASSES:
        raise UserError(f"scheduler class {name!r} is not built here; {_nearest(name, _CLASSES)}")
    for key, allowed in _REQUIRED.get(name, {}).items():
        if config.get(key, allowed[0]) not in allowed:
            raise UserError(
                f"{name} with {key}={config[key]!r} is not built here; set it to {allowed[0]!r}"
            )
    for key in ("thresholding", "use_beta_sigmas", "use_exponential_sigmas", "use_lu_lambdas",
                "use_flow_sigmas"):  # fmt: skip
        if config.get(key):
            raise UserError(f"{name} with {key} is not built here; set it to false")
    return _CLASSES[name](config)


def _nearest(word: str, known) -> str:
    close = difflib.get_close_matches(word, list(known), 1, 0.5)
    choices = f"choose from {', '.join(known)}" if known else "it has no knobs"
    return f"did you mean {close[0]!r}?" if close else choices


def _clip(config, default: bool = True):
    """DDIM and DDPM clip unless told otherwise; Stable Diffusion's configs tell them."""
    clips = config.get("clip_sample", default)
    return float(config.get("clip_sample_range", 1.0)) if clips else None


def _karras(config) -> dict:
    return {"karras": bool(config.get("use_karras_sigmas", False))}


def _final(config) -> dict:
    return {"final": config.get("final_sigmas_type", "zero")}


def _dpmpp(config) -> Solver:
    rule = config.get("solver_type", "midpoint")
    rule = "midpoint" if rule in ("logrho", "bh1", "bh2") else rule  # as diffusers renames them
    return DPMpp2M(rule=rule, **_karras(config), **_final(config))


_CLASSES: dict[str, Callable[[Mapping], Solver]] = {
    "DDIMScheduler": lambda c: DDIM(clip=_clip(c), compat="diffusers"),
    "DDPMScheduler": lambda c: DDPM(
        clip=_clip(c), variance=c.get("variance_type", "fixed_small"), compat="diffusers"
    ),
    "PNDMScheduler": lambda c: PLMS(prk=not c.get("skip_prk_steps", False), compat="diffusers"),
    "EulerDiscreteScheduler": lambda c: Euler(**_karras(c), **_final(c)),
    "EulerAncestralDiscreteScheduler": lambda c: EulerAncestral(),
    "HeunDiscreteScheduler": lambda c: Heun(**_karras(c)),
    "LMSDiscreteScheduler": lambda c: LMS(**_karras(c)),
    "DPMSolverMultistepScheduler": _dpmpp,
    "UniPCMultistepScheduler": lambda c: UniPC(
        order=c.get("solver_order", 2), **_karras(c), **_final(c)
    ),
}
_REQUIRED = {  # settings that our rule is written for; the first is diffusers' default
    "EulerDiscreteScheduler": {
        "interpolation_type": ("linear",), "timestep_type": ("discrete",),
        "sigma_min": (None,), "sigma_max": (None,),
    },
    "HeunDiscreteScheduler": {"clip_sample": (False,)},
    "DPMSolverMultistepScheduler": {
        "algorithm_type": ("dpmsolver++", "deis"), "solver_order": (2,),
        "lower_order_final": (True,), "euler_at_final": (False,),
        "lambda_min_clipped": (float("-inf"), "-inf", "-Infinity"),
    },
    "UniPCMultistepScheduler": {
        "solver_type": ("bh2", "midpoint", "heun", "logrho"), "predict_x0": (True,),
        "lower_order_final": (True,), "disable_corrector": ([], ()), "solver_p": (None,),
    },
}  # fmt: skip
