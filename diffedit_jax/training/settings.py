"""What every training run can be told, with its defaults."""

from __future__ import annotations

from typing import Any

from ml_collections import ConfigDict

from ..errors import UserError


def defaults() -> ConfigDict:
    """Every setting of the trainer; a task's own settings lie beside them in its config."""
    return ConfigDict({**_run(), **_optimiser(), **_average(), **_machine(), **_reports()})


def _run():
    return dict(
        steps=1000,  # updates of the optimiser
        batch=4,  # examples of one step over all processes
        accumulate=1,  # batches of one update
        seed=0,
        patience=5,  # batches in a row with NaN or infinity that end the run
        spike=0.0,  # skip a batch whose loss or gradient is so many deviations too high; 0: none
    )


def _optimiser():
    return dict(
        optimiser="adamw",  # or adam
        rate=1e-4,
        schedule="constant",  # see optimisers.rates
        warmup=0,  # updates
        settle=1.0,  # share of the run in which schedule="settle" falls
        cycles=1,  # of cosine_with_restarts
        power=1.0,  # of polynomial
        betas=(0.9, 0.999),
        epsilon=1e-8,
        decay=1e-2,  # of the weights; torch's default
        clip=1.0,  # greatest norm of all gradients together; 0: none
    )


def _average():
    return dict(
        average=0.0,  # greatest decay of the moving average; 0: none is kept
        averaging="diffusers",  # or litema; see average.decay_at
        average_least=0.0,
        average_after=0,
        average_power=0.0,
        average_gamma=1.0,
    )


def _machine():
    return dict(
        mesh="data=-1",  # for example data=2,fsdp=4,tensor=1; -1: all devices that are left
        compute="float32",  # or bfloat16: dtype of the products; the state is float32 always
        remat=False,  # keep only products for the backward pass
    )


def _reports():
    return dict(
        save_every=500,  # batches, as log_every
        log_every=50,
        look_every=0,  # batches between validation pictures, in the folder's pictures/; 0: none
        look_count=4,  # of them
        look_steps=20,
        look_guidance=4.0,
        keep_last=2,  # checkpoints
        keep_best=0,  # by the mean loss since the checkpoint before
        fallback=False,  # go back to an older checkpoint when the newest is damaged
        on_error="stop",  # or warn: go on without a checkpoint that cannot be written
    )


_OUTPUT = ("dtype", "layout")  # of the files that tasks write, not of what they learn
_FREE = ("steps", "patience", "mesh", "remat", "skip_broken", *_OUTPUT, *_reports())


def lasting(config: Any) -> dict[str, Any]:
    """The settings, the task's own too, that a run keeps when it goes on; the others may change."""
    return {n: v for n, v in ConfigDict(config).to_dict().items() if n not in _FREE}


def complete(config: Any) -> ConfigDict:
    """The defaults with everything that `config` says; what a task says of its own is kept."""
    found = defaults()
    try:
        with found.unlocked():
            found.update(dict(config) if config else {})
    except TypeError as error:
        short = " ".join(str(error).split())[:160]
        raise UserError(f"a setting of the config has the wrong type: {short}") from None
    return found
