"""Law 3: the integer path and the fake-quantized float path agree to the last bit where the maths says so.

It says so (see `compressjax.quantizers._integers`) while every partial sum of codes stays within 2^24: for any steps if
the float path multiplies codes and scales the sum, and for steps that are powers of two however the sum is taken.  A
new quantizer or layer is tested by adding one row.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import zoo
from compressjax.interop import IntegerLayer, integer_layers, layer_inputs
from compressjax.quantizers import (
    Binary,
    Codes,
    DoReFaActivations,
    DoReFaWeights,
    Integers,
    LearnedClip,
    LearnedStep,
    Levels,
    PowerOfTwo,
    Ternary,
    convolution,
    dense,
    largest_sum,
    lsq,
    requantize,
    round_bias,
    to_integers,
)

EXACT = 2**24


def of_set(quantizer: Any, x: jax.Array) -> tuple[jax.Array, Integers]:
    """A level set's projection, and the integers behind it: its smallest positive level is the step."""
    levels = quantizer.fit(x)
    step = jnp.min(jnp.where(levels > 0, levels, jnp.inf))
    z = quantizer.project(x)
    return z, Integers(jnp.round(z / step).astype(jnp.int8), step)


def of_learned(quantizer: Any, x: jax.Array) -> tuple[jax.Array, Integers]:
    levels = quantizer.start(x)
    return quantizer(x, levels), quantizer.integers(x, levels)


QUANTIZERS: dict[str, Callable[[jax.Array], tuple[jax.Array, Integers]]] = {
    **{f"LSQ, {b} bits": lambda x, b=b: of_learned(LearnedStep(b), x) for b in (2, 3, 8)},
    "LSQ per channel": lambda x: of_learned(LearnedStep(4, axis=-1), x),
    **{f"LSQ unsigned, {b} bits": lambda x, b=b: of_learned(LearnedStep(b, signed=False), x) for b in (1, 8)},
    **{f"PACT, {b} bits": lambda x, b=b: of_learned(LearnedClip(b), x) for b in (1, 8)},
    **{f"DoReFa weights, {b} bits": lambda x, b=b: of_learned(DoReFaWeights(b), x) for b in (1, 2, 7)},
    **{f"DoReFa activations, {b} bits": lambda x, b=b: of_learned(DoReFaActivations(b), x) for b in (1, 8)},
    "levels, 7 bits": lambda x: of_set(Levels(7), x),
    "binary": lambda x: of_set(Binary(), x),
    "ternary": lambda x: of_set(Ternary(), x),
    "power of two, 3 bits": lambda x: of_set(PowerOfTwo(3), x),
}


def sample(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
    x = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(np.where(np.arange(x.size).reshape(shape) % 7 == 0, 0.0, x), jnp.float32)


@pytest.mark.parametrize("name", QUANTIZERS)
def test_a_fake_quantized_tensor_is_codes_times_step(name: str) -> None:
    value, integers = jax.jit(QUANTIZERS[name])(sample((9, 5)))
    assert integers.codes.dtype in (jnp.int8, jnp.uint8)
    np.testing.assert_array_equal(integers.value, value)
    assert len(np.unique(value)) > 1


@pytest.mark.parametrize("codes", [Codes(2), Codes(8), Codes(8, signed=False)])
def test_codes_survive_a_round_trip_at_any_step(codes: Codes) -> None:
    everything = jnp.arange(codes.low, codes.high + 1).astype(codes.dtype)
    steps = np.random.default_rng(0).uniform(1e-3, 10.0, 200).astype(np.float32)

    @jax.jit
    def back(step: jax.Array) -> jax.Array:
        return to_integers(Integers(everything, step).value, step, codes).codes

    for again in jax.lax.map(back, jnp.asarray(steps)):
        np.testing.assert_array_equal(again, everything)


def float_dense(x: jax.Array, w: jax.Array) -> jax.Array:
    return x @ w


def float_convolution(x: jax.Array, w: jax.Array) -> jax.Array:
    return jax.lax.conv_general_dilated(x, w, (2, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


LAYERS: dict[str, tuple[Callable[..., Integers], Callable[..., jax.Array], tuple[int, ...], tuple[int, ...]]] = {
    "dense": (dense, float_dense, (7, 40), (40, 6)),
    "dense, many axes": (dense, float_dense, (2, 3, 40), (40, 6)),
    "convolution": (
        lambda x, w, b: convolution(x, w, b, (2, 1), "SAME"),
        float_convolution,
        (2, 6, 5, 4),
        (3, 3, 4, 6),
    ),
}
# Bits of the weights and of the inputs, and whether every output has a step of its own.
PRECISIONS = [(2, 2, True), (4, 4, False), (8, 8, True)]
NEXT = Codes(4, signed=False)
each_layer = pytest.mark.parametrize("name", LAYERS)
each_precision = pytest.mark.parametrize("precision", PRECISIONS, ids=str)


def operands(name: str, precision: tuple[int, int, bool], powers: bool) -> tuple[Any, ...]:
    """Inputs after a ReLU, weights, bias codes and the step of the next layer."""
    weight_bits, input_bits, per_output = precision
    _, _, x_shape, w_shape = LAYERS[name]
    spread = (1,) * (len(w_shape) - 1) + (w_shape[-1],) if per_output else ()
    rng = np.random.default_rng(1)
    w_step = jnp.asarray(np.exp2(rng.integers(-3, 1, spread)) if powers else rng.uniform(0.05, 0.9, spread))
    x_step, next_step = (0.25, 0.5) if powers else (0.3, 0.7)
    x = to_integers(4 * sample(x_shape), jnp.float32(x_step), Codes(input_bits, signed=False))
    w = to_integers(sample(w_shape, 3), w_step.astype(jnp.float32), Codes(weight_bits))
    bias = round_bias(sample(w_shape[-1:], 4), x.step, w.step)
    assert float(largest_sum(w, Codes(input_bits, signed=False), bias)) <= EXACT
    return x, w, bias, jnp.float32(next_step)


@cache
def paths(name: str) -> Callable[..., tuple[jax.Array, ...]]:
    """The sums and the next layer's inputs: on integers, on scaled sums of float codes, and fake-quantized."""
    integer, real, *_ = LAYERS[name]

    @jax.jit
    def run(x: Integers, w: Integers, bias: jax.Array, step: jax.Array) -> tuple[jax.Array, ...]:
        total = integer(x, w, bias)
        whole = real(x.codes.astype(jnp.float32), w.codes.astype(jnp.float32))
        wide = (1,) * (whole.ndim - 1) + (-1,)
        scaled = (whole + bias.astype(jnp.float32).reshape(wide)) * total.step
        fake = real(x.value, w.value) + (bias.astype(jnp.float32) * (x.step * w.step.reshape(-1))).reshape(wide)
        after = requantize(total, step, NEXT).value
        return total.value, scaled, fake, after, lsq(scaled, step, NEXT), lsq(fake, step, NEXT)

    return run


@each_precision
@each_layer
def test_any_steps_agree_when_the_sum_of_codes_is_scaled(name: str, precision: tuple[int, int, bool]) -> None:
    total, scaled, _, after, scaled_after, _ = paths(name)(*operands(name, precision, powers=False))
    np.testing.assert_array_equal(total, scaled)
    np.testing.assert_array_equal(after, scaled_after)
    assert len(np.unique(after)) > 2  # not all clipped


@each_precision
@each_layer
def test_powers_of_two_agree_in_any_arithmetic(name: str, precision: tuple[int, int, bool]) -> None:
    total, _, fake, after, _, fake_after = paths(name)(*operands(name, precision, powers=True))
    np.testing.assert_array_equal(total, fake)
    np.testing.assert_array_equal(after, fake_after)
    assert len(np.unique(after)) > 2


def test_steps_that_are_no_powers_of_two_differ_by_rounding_only() -> None:
    x, w, bias, step = operands("dense", (8, 8, True), powers=False)
    total = dense(x, w, bias)
    fake = x.value @ w.value + (bias * (x.step * w.step.reshape(-1)))[None]
    size = np.abs(x.value) @ np.abs(w.value) + np.abs(bias * (x.step * w.step.reshape(-1)))[None]
    assert np.any(total.value != fake)  # the law claims no more than it does
    assert np.all(np.abs(total.value - fake) <= 2.0**-24 * (x.codes.shape[-1] + 4) * size)
    ours, theirs = requantize(total, step, Codes(8)).codes, to_integers(fake, step, Codes(8)).codes
    assert np.max(np.abs(ours.astype(jnp.int32) - theirs.astype(jnp.int32))) <= 1


def test_beyond_two_to_the_24_the_law_is_not_claimed() -> None:
    w = Integers(jnp.full((1046, 1), 127, jnp.int8), jnp.float32(1.0))
    x = Integers(jnp.full((1, 1046), 127, jnp.int8).at[0, 0].set(126), jnp.float32(1.0))
    assert float(largest_sum(w, Codes(8))) > EXACT
    exact = 127 * (126 + 1045 * 127)
    assert dense(x, w).codes.tolist() == [[exact]]  # int32 still is
    assert int(np.float32(exact)) != exact


def test_a_whole_network() -> None:
    """Every layer of a network of the zoo on integers, against the same network fake-quantized."""
    model = zoo.build("lenet5", widths=(2, 3, 5), input_shape=(16, 16, 1))
    params = model.init(jax.random.key(0))
    images = jax.random.uniform(jax.random.key(1), (3, 16, 16, 1))
    inputs, weights = Codes(4, signed=False), Codes(4)

    @jax.jit
    def both(x: jax.Array, steps: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        layers, fake, bound = {}, {}, []
        for path, leaf in params.items():
            w = to_integers(leaf["kernel"], steps[path], weights)
            bias = round_bias(leaf["bias"] + 0.1, steps[path], w.step)
            bound.append(largest_sum(w, inputs, bias))
            layers[path] = IntegerLayer(w, bias, lambda x, path=path: to_integers(x, steps[path], inputs))
            fake[path] = {"kernel": w.value, "bias": bias.astype(jnp.float32) * (steps[path] * w.step)}
        with integer_layers(layers):
            ours = model.apply(params, x)
        with layer_inputs(lambda path, x: lsq(x, steps[path], inputs)):
            theirs = model.apply(fake, x)
        return ours, theirs, jnp.stack(bound)

    powers = {path: jnp.float32(2.0 ** -(2 + i)) for i, path in enumerate(params)}
    ours, theirs, bound = both(images, powers)
    assert np.all(bound <= EXACT)
    assert len(np.unique(ours)) > 5
    np.testing.assert_array_equal(ours, theirs)
    ours, theirs, _ = both(images, {path: jnp.float32(0.9) * step for path, step in powers.items()})
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
