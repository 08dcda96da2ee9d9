"""What a traced function costs: operations and memory, read off its jaxpr without compiling it."""

from __future__ import annotations

import math
from typing import Any

import jax
from jax.extend import core as jex


def flops(function, *arguments) -> int:
    """Multiplications and additions of all matrix products and convolutions of one call.

    dot: 2 prod(out) K;   convolution: 2 prod(out) prod(kernel window) c_in / groups;   a loop
    counts its body as often as it runs. Elementwise work is not counted.

    Args:
      function: anything jax can trace.
      arguments: arrays or ShapeDtypeStructs.
    Example: `flops(jnp.dot, a, b)` for [m, k] and [k, n] is 2 m k n.
    """
    return _flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def peak_bytes(function, *arguments) -> int:
    """Most bytes of intermediate values that are alive at once, in the order as traced.

    Arguments are not counted. XLA fuses and reorders, so a compiled program usually needs less.
    """
    return _peak(jax.make_jaxpr(function)(*arguments).jaxpr)


def _flops(jaxpr) -> int:
    return sum(_of_equation(equation) for equation in jaxpr.eqns)


def _of_equation(equation) -> int:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2 * _size(equation.outvars[0]) * math.prod(shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        return 2 * _size(equation.outvars[0]) * math.prod(kernel) // features
    inner = [_flops(part) for part in _inner(parameters)]
    if name == "cond":
        return max(inner)
    return parameters.get("length", 1) * sum(inner) if name == "scan" else sum(inner)


def _peak(jaxpr) -> int:
    last = {v: i for i, e in enumerate(jaxpr.eqns) for v in e.invars if isinstance(v, jex.Var)}
    last |= {v: len(jaxpr.eqns) for v in jaxpr.outvars if isinstance(v, jex.Var)}
    alive: dict[Any, int] = {}
    most = 0
    for i, equation in enumerate(jaxpr.eqns):
        inside = max((_peak(part) for part in _inner(equation.params)), default=0)
        made = {v: _bytes(v) for v in equation.outvars}
        most = max(most, sum(alive.values()) + max(inside, sum(made.values())))
        alive |= {v: size for v, size in made.items() if last.get(v, -1) > i}
        for v in {v for v in equation.invars if isinstance(v, jex.Var) and last[v] == i}:
            alive.pop(v, None)
    return most


def _inner(parameters: dict) -> list[Any]:
    """The jaxprs inside an equation: of jit, scan, cond, custom derivatives, kernels."""
    found = []
    for value in parameters.values():
        for one in value if isinstance(value, tuple | list) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns"):
                found.append(one)
    return found


def _size(variable) -> int:
    return math.prod(variable.aval.shape)


def _bytes(variable) -> int:
    aval = variable.aval
    return math.prod(getattr(aval, "shape", ())) * getattr(aval.dtype, "itemsize", 4)
