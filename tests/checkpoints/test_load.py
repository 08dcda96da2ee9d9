"""Strict loading: all faults at once, by name and shape."""

import ml_dtypes
import numpy as np
import pytest
from jax import ShapeDtypeStruct

from diffedit_jax.checkpoints.load import LIST_LIMIT, check, export, load
from diffedit_jax.errors import UserError

from .golden import same


def shaped(*shape):
    return ShapeDtypeStruct(shape, np.float32)


EXPECTED = {
    "conv": {"kernel": shaped(3, 3, 2, 4), "bias": shaped(4)},
    "proj_in": {"kernel": shaped(4, 6)},
    "norm": {"scale": shaped(4)},
}


def sound():
    random = np.random.default_rng(0)
    shapes = {
        "conv.weight": (4, 2, 3, 3),
        "conv.bias": (4,),
        "proj_in.weight": (6, 4),
        "norm.weight": (4,),
    }
    return {k: random.standard_normal(v).astype(np.float32) for k, v in shapes.items()}


def test_axes_of_the_tree():
    params = load(EXPECTED, sound(), "net")
    np.testing.assert_array_equal(
        params["conv"]["kernel"][1, 2, 0, 3], sound()["conv.weight"][3, 0, 1, 2]
    )
    np.testing.assert_array_equal(params["proj_in"]["kernel"], sound()["proj_in.weight"].T)


def test_there_and_back():
    same(export(load(EXPECTED, sound(), "net")), sound())


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_stored_dtypes_become_float32(dtype):
    stored = {key: value.astype(dtype) for key, value in sound().items()}
    params = load(EXPECTED, stored, "net")
    assert params["norm"]["scale"].dtype == np.float32
    np.testing.assert_array_equal(params["norm"]["scale"], stored["norm.weight"].astype(np.float32))


def test_parameters_can_be_kept_small():
    assert (
        load(EXPECTED, sound(), "net", dtype=ml_dtypes.bfloat16)["norm"]["scale"].dtype
        == "bfloat16"
    )


def test_a_projection_may_be_a_convolution():
    other = sound() | {"proj_in.weight": sound()["proj_in.weight"][:, :, None, None]}
    same(export(load(EXPECTED, other, "net")), sound())


def test_every_fault_is_listed_at_once():
    broken = sound()
    del broken["norm.weight"]
    broken["conv.weight"] = broken["conv.weight"][:, :1]
    broken["conv.bias"] = np.arange(4)
    broken["extra.weight"] = np.zeros((2, 7), np.float32)
    with pytest.raises(UserError) as caught:
        load(EXPECTED, broken, "unet of file")
    message = str(caught.value)
    assert message.startswith("unet of file: 4 tensors do not fit")
    assert "norm.weight [4] is missing" in message
    assert "conv.weight is [4, 1, 3, 3], must be [4, 2, 3, 3]" in message
    assert "conv.bias has the dtype int64" in message
    assert "extra.weight [2, 7] is not part of it" in message
    assert "\n" not in message


def test_a_long_list_is_counted():
    many = sound() | {f"extra.{n}.bias": np.zeros(1, np.float32) for n in range(LIST_LIMIT + 7)}
    with pytest.raises(UserError, match="and 7 more"):
        check(EXPECTED, many, "net")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("function", [load, check])
def test_weights_that_are_no_numbers(value, function):
    broken = sound()
    broken["conv.weight"][1, 1, 1, 1] = value
    with pytest.raises(UserError, match="conv.weight holds NaN or infinity"):
        function(EXPECTED, broken, "net")


def test_a_transposed_square_is_not_guessed_away():
    """A kernel of another rank is reshaped only where both forms mean the same map."""
    other = sound() | {"norm.weight": sound()["norm.weight"][:, None, None, None]}
    with pytest.raises(UserError, match="norm.weight"):
        load(EXPECTED, other, "net")
