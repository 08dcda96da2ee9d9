"""Costs read off compiled programs against what the programs are known to cost."""

import textwrap

import jax
import jax.numpy as jnp
import pytest

from diffedit_jax.bench import cost, hlo

CHIP = cost.Chip(flops=1e12, bandwidth=1e9, memory=1e9)


def cost_of(function, *arguments):
    """The total of a function compiled for this machine."""
    text = jax.jit(function).lower(*arguments).compile().as_text()
    return cost.total(cost.items(hlo.parse(text)), CHIP)


def total_of(text):
    """The total of a program written out here."""
    return cost.total(cost.items(hlo.parse(textwrap.dedent(text))), CHIP)


def convolve(x, kernel, stride=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_loops_are_multiplied_out():
    x = jnp.ones((64, 64))

    def nested(x):
        def outer(y, _):
            return jax.lax.scan(lambda z, _: (z @ x, None), y, None, length=3)[0], None

        return jax.lax.scan(outer, x, None, length=5)[0]

    assert cost_of(nested, x).flops == 15 * 2 * 64**3


def test_convolution_counts_taps_that_meet_the_picture():
    x, kernel = jnp.ones((2, 16, 12, 8)), jnp.ones((3, 3, 8, 16))
    per_tap = 2 * 2 * 8 * 16
    assert cost_of(convolve, x, kernel).flops == per_tap * (3 * 16 - 2) * (3 * 12 - 2)


def test_gradient_of_a_strided_convolution_costs_what_the_convolution_costs():
    x, kernel = jnp.ones((2, 16, 12, 8)), jnp.ones((3, 3, 8, 16))
    slope = jax.grad(lambda x: convolve(x, kernel, 2).sum())
    assert cost_of(slope, x).flops == 2 * 2 * 8 * 16 * (3 * 8 - 1) * (3 * 6 - 1)


def test_a_slice_moves_the_slice():
    moved = cost_of(lambda x: x[8:16] + 1, jnp.ones((1024, 64)))
    assert moved.hbm == 2 * 8 * 64 * 4


def test_only_buffers_in_hbm_count_and_tiles_fill_up():
    total = total_of("""\
        HloModule m

        ENTRY %main (p: bf16[16,40]) -> bf16[16,40] {
          %p = bf16[16,40]{1,0:T(8,128)(2,1)} parameter(0)
          %near = bf16[16,40]{1,0:T(8,128)(2,1)S(1)} copy(%p)
          ROOT %far = bf16[16,40]{1,0:T(8,128)(2,1)} negate(%near)
        }
        """)
    assert total.hbm == 2 * 16 * 40 * 2
    assert total.hbm_tiled == 2 * 16 * 128 * 2
    assert total.operations == pytest.approx(total.hbm / CHIP.bandwidth)


ATTENTION = """\
    HloModule m

    ENTRY %main (q: bf16[2,256,80], k: bf16[2,77,80]) -> bf16[2,256,80] {
      %q = bf16[2,256,80]{2,1,0} parameter(0)
      %k = bf16[2,77,80]{2,1,0} parameter(1)
      ROOT %edit_attention_2x40.1 = bf16[2,256,80]{2,1,0} custom-call(%q, %k, %k), \
custom_call_target="tpu_custom_call"
    }
    """


def test_our_kernel_counts_heads_as_they_are_and_as_the_unit_pads_them():
    total = total_of(ATTENTION)
    scores = 2 * 2 * 256 * 77  # rows, heads, queries, keys
    assert total.flops == 2 * 2 * scores * 40
    assert total.mxu_flops == 2 * 2 * scores * 128


def test_the_kernel_of_gradients_has_five_products_of_which_three_are_narrow():
    total = total_of(ATTENTION.replace("edit_attention_2x40", "edit_attention_gradients_2x40"))
    scores = 2 * 2 * 256 * 77
    assert total.flops == 2 * 5 * scores * 40
    assert total.mxu_flops == 2 * scores * (3 * 128 + 2 * 40)


def test_collectives_are_found_and_a_transfer_that_overlaps_is_free():
    total = total_of("""\
        HloModule m

        ENTRY %main (p: f32[256]) -> f32[256] {
          %p = f32[256]{0} parameter(0)
          %s = (f32[256]{0:S(1)}, f32[256]{0}, u32[]{:S(2)}) copy-start(%p)
          %d = f32[256]{0:S(1)} copy-done(%s)
          ROOT %sum = f32[256]{0} all-reduce(%d), to_apply=%add
        }
        """)
    assert total.collectives == {"all-reduce": 1024}
    assert total.hbm == 2 * 1024
    assert total.operations == pytest.approx(1024 / CHIP.bandwidth)


def test_pieces_of_a_gather_inside_fusions_count_once_and_a_scattered_sum_by_its_name():
    total = total_of("""\
        HloModule m

        %first (a: f32[8]) -> f32[32] {
          %a = f32[8]{0} parameter(0)
          ROOT %g = f32[32]{0} all-gather(%a), channel_id=3, dimensions={0}
        }

        %second (a: f32[8]) -> f32[32] {
          %a = f32[8]{0} parameter(0)
          ROOT %h = f32[32]{0} all-gather(%a), channel_id=3, dimensions={0}
        }

        %all-reduce-scatter.1 (a: f32[32]) -> f32[8] {
          %a = f32[32]{0} parameter(0)
          %r = f32[32]{0} all-reduce(%a), channel_id=4, to_apply=%add
          ROOT %s = f32[8]{0} slice(%r), slice={[0:8]}
        }

        ENTRY %main (p: f32[8]) -> f32[8] {
          %p = f32[8]{0} parameter(0)
          %x = f32[32]{0} fusion(%p), kind=kCustom, calls=%first
          %y = f32[32]{0} fusion(%p), kind=kCustom, calls=%second
          ROOT %z = f32[8]{0} fusion(%y), kind=kCustom, calls=%all-reduce-scatter.1
        }
        """)
    assert total.collectives == {"all-gather": 128, "reduce-scatter": 128}


def test_the_dearest_branch_counts():
    x = jnp.ones((64, 64))

    def branch(yes, x):
        return jax.lax.cond(yes, lambda x: x @ x, lambda x: x, x)

    assert cost_of(branch, True, x).flops == 2 * 64**3


def test_text_that_is_no_program():
    with pytest.raises(ValueError, match="ENTRY"):
        hlo.parse("<html>")
