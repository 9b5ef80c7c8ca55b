"""Integer codes and arithmetic: ranges, storage, hand cases, bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.quantizers import (
    Codes,
    Integers,
    convolution,
    dense,
    largest_sum,
    requantize,
    round_bias,
    to_integers,
)

HALF = jnp.float32(0.5)


@pytest.mark.parametrize("bits", range(2, 9))
def test_ranges_fit_their_storage(bits):
    for codes in (Codes(bits), Codes(bits, signed=False)):
        info = np.iinfo(codes.dtype)
        assert info.min <= codes.low
        assert codes.high <= info.max
        assert codes.high - codes.low + 1 == 2**bits
    assert Codes(bits).dtype == np.int8


def test_codes_by_hand():
    codes = to_integers(jnp.array([0.24, 0.26, -1.0, 9.0, 0.75]), HALF, Codes(3)).codes
    assert codes.dtype == jnp.int8
    assert codes.tolist() == [0, 1, -2, 3, 2]  # 1.5 rounds to even


def test_dense_by_hand():
    x = Integers(jnp.array([[100, -100]], jnp.int8), HALF)
    w = Integers(jnp.array([[100, 1], [-100, 2]], jnp.int8), jnp.array([[0.5, 0.25]]))
    out = dense(x, w, jnp.array([1, -1], jnp.int32))
    assert out.codes.dtype == jnp.int32
    assert out.codes.tolist() == [[20001, -101]]
    assert out.value.tolist() == [[20001 / 4, -101 / 8]]
    assert requantize(out, jnp.float32(2.0), Codes(8)).codes.tolist() == [[127, -6]]


def test_unsigned_activations_meet_signed_weights():
    x = to_integers(jnp.array([[127.5, 0.5]]), HALF, Codes(8, signed=False))
    assert x.codes.dtype == jnp.uint8
    assert dense(x, Integers(jnp.array([[-128], [127]], jnp.int8), HALF)).codes.tolist() == [[-255 * 128 + 127]]


def test_leading_axes_and_steps_per_output_go_together():
    x = Integers(jnp.ones((2, 3, 4), jnp.int8), HALF)
    w = Integers(jnp.ones((4, 5), jnp.int8), jnp.arange(1.0, 6.0).reshape(1, 5))
    np.testing.assert_array_equal(dense(x, w).value, np.broadcast_to(2.0 * np.arange(1, 6), (2, 3, 5)))


def test_bias_and_headroom():
    assert round_bias(jnp.array([0.3, -0.1, 1e30]), HALF, HALF).tolist() == [1, 0, 2**24]
    steps = jnp.array([[1.0, 0.5]])
    assert round_bias(jnp.array([2.0, 2.0]), HALF, steps).tolist() == [4, 8]
    w = Integers(jnp.array([[3, -1], [-4, 1]], jnp.int8), HALF)
    assert float(largest_sum(w, Codes(8, signed=False), jnp.array([5, 1000]))) == 255 * 7 + 5


def test_steps_that_no_sum_could_carry_are_refused():
    x, w = Integers(jnp.ones((2, 3), jnp.int8), HALF), Integers(jnp.ones((3, 2), jnp.int8), HALF)
    with pytest.raises(ValueError, match=r"input has steps of shape \(1, 3\)"):
        dense(x._replace(step=jnp.ones((1, 3))), w)
    with pytest.raises(ValueError, match=r"weights \(3, 2\) have steps of shape \(3, 1\)"):
        dense(x, w._replace(step=jnp.ones((3, 1))))
    image = Integers(jnp.ones((1, 3, 3, 2), jnp.int8), HALF)
    with pytest.raises(ValueError, match="along the last axis only"):
        convolution(image, Integers(jnp.ones((2, 2, 2, 4), jnp.int8), jnp.ones((1, 1, 2, 4))))


def test_one_signed_bit_is_refused():
    with pytest.raises(ValueError, match="bits=1 must be an int between 2 and 8"):
        Codes(1)
