"""Run in a process of its own with eight fake devices: prints what test_devices.py checks."""

import json

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from diffedit_jax import solvers
from diffedit_jax.core import image_axes, sample, sample_batch

from . import tiny

COLLECTIVES = ("all-gather", "all-reduce", "collective-permute", "all-to-all", "reduce-scatter")


def arguments(solver):
    steps = tiny.keyed(solver, 3, 8, start=1)
    return tiny.network(), solver, tiny.edit(8), steps, tiny.noise(8), tiny.texts(8)


def sharded(mesh, network, solver, edit, steps, x, cond):
    """Images over the mesh; weights and the table itself on every device."""
    whole, split = (NamedSharding(mesh, PartitionSpec(*axis)) for axis in ((), ("data",)))
    key = jax.device_put(steps.key, split)
    steps = jax.device_put(steps.replace(key=None), whole).replace(key=key)
    return (jax.device_put(network, whole), solver, *jax.device_put((edit,), split), steps,
            *jax.device_put((x, cond), split))  # fmt: skip


def mapped(network, solver, edit, steps, x, cond):
    """The same sampler under jax.pmap."""
    axes = image_axes(steps)
    one = jax.pmap(
        lambda e, s, x, c: sample(network, solver, e, s, x, c).x, in_axes=(0, axes, 0, 0)
    )
    return one(edit, steps, x, cond)


def report(name, solver):
    own = arguments(solver)
    alone = sample_batch(*own).x
    mesh = jax.sharding.Mesh(np.array(jax.devices()), ("data",))
    spread = sharded(mesh, *own)
    compiled = sample_batch.lower(*spread).compile()
    end = sample_batch(*spread).x
    return dict(
        name=name,
        devices=len(end.sharding.device_set),
        shard=list(end.addressable_shards[0].data.shape),
        error=float(np.abs(np.asarray(end) - alone).max()),
        pmap=float(np.abs(np.asarray(mapped(*own)) - alone).max()),
        collectives=[word for word in COLLECTIVES if word in compiled.as_text()],
    )


if __name__ == "__main__":
    rules = {"euler_ancestral": solvers.EulerAncestral(), "plms": solvers.PLMS()}
    print(json.dumps([report(*rule) for rule in rules.items()]))
