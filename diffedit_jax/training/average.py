"""The exponential moving average of the parameters, in the two conventions that are in use."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from ..errors import UserError


def decay_at(updates: Any, config: Any) -> Any:
    """The decay d of update number `updates` (1 is the first): average <- d average + (1-d) new.

    "diffusers": n = updates - after - 1;  n <= 0: 0 (a copy);  else (1 + n) / (10 + n), or with
    `average_power` p > 0: 1 - (1 + n / gamma)^-p;  then clipped to [average_least, average].
    "litema": min(average, (1 + updates) / (10 + updates)).

    Source: diffusers training_utils.py EMAModel.get_decay; CompVis ldm/modules/ema.py LitEma.
    """
    if config.averaging == "litema":
        return jnp.minimum(config.average, (1.0 + updates) / (10.0 + updates))
    if config.averaging != "diffusers":
        raise UserError(f"averaging={config.averaging!r} is not known; use diffusers or litema")
    n = jnp.maximum(updates - config.average_after - 1.0, 0.0)
    power, gamma = config.average_power, config.average_gamma
    rate = 1 - (1 + n / gamma) ** -power if power else (1.0 + n) / (10.0 + n)
    return jnp.where(n > 0, jnp.clip(rate, config.average_least, config.average), 0.0)


def move_average(average: Any, trained: Any, decay: Any) -> Any:
    """average <- d average + (1 - d) trained, leaf by leaf."""
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, trained)
