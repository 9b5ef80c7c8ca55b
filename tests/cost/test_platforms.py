"""Platforms: small cases by hand, laws over all of them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import cost


def dense(rows, inputs, outputs, **fields):
    net = cost.layers(lambda w, x: x @ w["fc"], {"fc": jnp.ones((inputs, outputs))}, jnp.ones((rows, inputs)))
    return net.replace(**fields)


def network(**fields):
    def f(params, x):
        x = jax.lax.conv_general_dilated(
            x, params["conv"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=2
        )
        return x.reshape(2, -1) @ params["fc"]

    shapes = {"conv": (3, 3, 4, 16), "fc": (6 * 6 * 16, 10)}
    params = {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in shapes.items()}
    return cost.layers(f, params, jax.ShapeDtypeStruct((2, 6, 6, 8), jnp.float32)).replace(**fields)


PLATFORMS = {
    "roofline": cost.Roofline(peak=1e9, bandwidth=1e9),
    "simd": cost.SIMD(frequency=1e9, vector_bits=128, units=2, bandwidth=1e9),
    "systolic": cost.Systolic(rows=16, columns=16, frequency=1e9, bandwidth=1e9),
    "fpga": cost.FPGATile(tile_outputs=16, tile_inputs=4, frequency=1e8, bandwidth=1e9),
    "bit fusion": cost.BitFusion(bricks=1024, frequency=1e9, bandwidth=1e9),
    "bit serial": cost.BitSerial(lanes=1024, frequency=1e9, bandwidth=1e9),
}


@pytest.mark.parametrize("name", PLATFORMS)
class TestEveryModel:
    def test_is_a_labelled_platform(self, name):
        platform = PLATFORMS[name]
        assert isinstance(platform, cost.Platform)
        assert platform.modelled
        assert platform.source

    def test_more_work_never_takes_less(self, name):
        platform = PLATFORMS[name]
        for field, less, more in (
            ("outputs", 16.0, 18.0),
            ("inputs", 4.0, 6.0),
            ("batch", 1.0, 2.0),
            ("repeats", 1.0, 3.0),
        ):
            few, many = (network(**{field: value}) for value in (less, more))
            assert (platform.latency(few) <= platform.latency(many)).all(), field
            assert (platform.energy(few) < platform.energy(many)).all(), field

    def test_fewer_bits_never_take_more(self, name):
        times, joules = [], []
        for bits in (1, 2, 4, 8, 16, 32):
            net = network(weight_bits=bits, activation_bits=bits)
            times.append(PLATFORMS[name].latency(net))
            joules.append(PLATFORMS[name].energy(net))
        assert (np.diff(times, axis=0) >= 0).all()
        assert (np.diff(joules, axis=0) > 0).all()

    def test_traced_equals_plain_over_a_population(self, name):
        platform, net = PLATFORMS[name], network(block_outputs=8, block_inputs=4)
        bits, density = jnp.array([4.0, 8.0, 32.0]), jnp.array([0.5, 1.0, 0.25])

        def price(bits, density):
            changed = net.replace(weight_bits=bits, activation_bits=bits, density=density)
            return platform.latency(changed), platform.energy(changed)

        seconds, joules = jax.jit(jax.vmap(price))(bits, density)
        for i in range(3):
            plain = net.replace(weight_bits=float(bits[i]), activation_bits=float(bits[i]), density=float(density[i]))
            np.testing.assert_allclose(seconds[i], platform.latency(plain), rtol=1e-5)
            np.testing.assert_allclose(joules[i], platform.energy(plain), rtol=1e-5)

    def test_memory_bounds_latency(self, name):
        slow = cost.Roofline(peak=1e30, bandwidth=1e9)
        assert (PLATFORMS[name].latency(network()) >= slow.latency(network())).all()


WRONG = {
    "roofline": {
        "peak": -1.0,
        "utilisation": 1.5,
        "native": 0,
        "widths": (8, -16),
        "overhead": -0.1,
        "balance": 0.0,
        "bandwidth": 0.0,
        "on_chip": -1.0,
    },
    "simd": {"frequency": 0.0, "vector_bits": -128, "units": 0, "widths": (), "overhead": np.nan},
    "systolic": {"rows": 0, "columns": -1, "frequency": np.nan, "width": 0},
    "fpga": {"tile_outputs": 0, "tile_inputs": 0, "frequency": -1.0, "lut_macs": -1.0, "float_dsps": 0.0},
    "bit fusion": {"bricks": 0, "frequency": 0.0},
    "bit serial": {"lanes": -64, "frequency": 0.0},
}


@pytest.mark.parametrize("name, field", [(name, field) for name, fields in WRONG.items() for field in fields])
def test_numbers_out_of_range(name, field):
    with pytest.raises(ValueError, match=rf"^{field} of {type(PLATFORMS[name]).__name__} is "):
        dataclasses.replace(PLATFORMS[name], **{field: WRONG[name][field]})


@pytest.mark.parametrize("name", PLATFORMS)
def test_every_number_of_a_platform_is_checked(name, unchecked):
    for field in dataclasses.fields(PLATFORMS[name]):
        if field.name != "energy_model":
            with pytest.raises(ValueError, match=f"{field.name} of .* is 'fast': it must be a number"):
                dataclasses.replace(PLATFORMS[name], **{field.name: "fast"})


@pytest.mark.parametrize("field", ["static", "reuse", "sram", "dram", "scale"])
def test_energies_out_of_range(field):
    with pytest.raises(ValueError, match=rf"{field} of Energy is -1\.0"):
        cost.Energy(**{field: -1.0})


def test_platforms_may_be_traced(unchecked):
    net = dense(10, 100, 50)

    def seconds(peak, bandwidth):
        return cost.Roofline(peak=peak, bandwidth=bandwidth).latency(net).sum()

    found = jax.jit(jax.vmap(seconds))(jnp.array([1e6, 1e9]), jnp.array([1e9, 1e6]))
    np.testing.assert_allclose(found, [0.05, 0.026], rtol=1e-6)


def test_roofline_bounds():
    net = dense(10, 100, 50)  # 50,000 MACs, 4 x (1000 + 500 + 5000) bytes
    assert cost.Roofline(peak=1e6).latency(net) == pytest.approx(0.05)
    assert cost.Roofline(peak=1e6, utilisation=0.5).latency(net) == pytest.approx(0.1)
    assert cost.Roofline(peak=1e9, bandwidth=1e6).latency(net) == pytest.approx(0.026)
    assert cost.Roofline(peak=1e6).latency(net.replace(weight_bits=8, activation_bits=8)) == pytest.approx(0.0125)
    assert cost.Roofline(peak=1e6).latency(net.replace(weight_bits=3, activation_bits=12)) == pytest.approx(0.025)


def test_roofline_is_differentiable():
    platform = cost.Roofline(peak=1e6)
    net = dense(10, 100, 50)
    slope = jax.jit(jax.grad(lambda outputs: platform.latency(net.replace(outputs=outputs)).sum()))(50.0)
    assert slope == pytest.approx(1e-3)


def test_lanes_round_channels_up():
    platform = cost.SIMD(frequency=1.0, vector_bits=128, units=1)
    assert [float(platform.latency(dense(1, 10, n))[0]) for n in (1, 4, 5, 8, 9)] == [10, 10, 20, 20, 30]
    narrow = [float(platform.latency(dense(1, 10, n, weight_bits=8, activation_bits=8))[0]) for n in (1, 16, 17)]
    assert narrow == [10, 10, 20]


def test_depthwise_fills_lanes_across_groups():
    depthwise = dense(1, 1, 16).replace(groups=16, window=9)
    assert cost.SIMD(frequency=1.0, vector_bits=128, units=1).latency(depthwise) == 9 * 4
    assert cost.Systolic(rows=8, columns=8, frequency=1.0).latency(depthwise)[0] > 16 * 2 * 8


def test_blocks_that_fill_the_lanes_pay_and_single_weights_do_not():
    platform = cost.SIMD(frequency=1.0, vector_bits=128, units=1)
    net = dense(1, 16, 16)
    single = platform.latency(net.replace(density=0.5))
    blocks = platform.latency(net.replace(density=0.5, block_outputs=4))
    assert (platform.latency(net), single, blocks) == (64, 128, 32)


def test_systolic_tiles_by_hand():
    array = cost.Systolic(rows=8, columns=4, frequency=1.0)
    net = dense(100, 20, 10, weight_bits=8, activation_bits=8)
    assert array.latency(net) == 3 * 3 * (2 * 8 + 4 + 100 - 2)
    assert array.latency(net.replace(weight_bits=16)) == 2 * array.latency(net)
    # Half of each column block of 4: 10 rows are left of 20, which makes two tiles of 8 instead of three.
    assert array.latency(net.replace(density=0.5, block_outputs=4)) == 3 * 2 * 118
    # Single weights: every column is a tile column of its own.
    assert array.latency(net.replace(density=0.5)) == 10 * 2 * 118


def test_fpga_tiles_by_hand():
    fpga = cost.FPGATile(tile_outputs=16, tile_inputs=4, frequency=1.0)
    conv = dense(1, 6, 40).replace(positions=25, window=9, weight_bits=16, activation_bits=16)
    assert fpga.latency(conv) == 25 * 9 * 3 * 2
    eight = conv.replace(weight_bits=8, activation_bits=8)  # two MACs per slice: 32 outputs at a time
    assert fpga.latency(eight) == 25 * 9 * 2 * 2
    assert fpga.latency(conv.replace(weight_bits=32)) == 5 * fpga.latency(conv)
    pruned = eight.replace(density=4 / 9, block_outputs=32, block_inputs=4)  # 4 of 9 positions stay
    assert fpga.latency(pruned) == pytest.approx(25 * 4 * 2 * 2)
    small = eight.replace(density=4 / 9, block_outputs=8, block_inputs=4)  # blocks of a quarter of a tile
    assert fpga.latency(small) == pytest.approx(25 * 4 * 5 * 2)


def test_bit_accelerators_by_hand():
    net = dense(1, 64, 8)
    fusion, serial = (p(frequency=1.0, **{n: 64}) for p, n in ((cost.BitFusion, "bricks"), (cost.BitSerial, "lanes")))
    for weights, inputs, fused, bits in ((1, 1, 1, 1), (2, 3, 2, 6), (4, 5, 8, 20), (8, 8, 16, 64), (9, 2, 8, 18)):
        changed = net.replace(weight_bits=weights, activation_bits=inputs)
        assert fusion.latency(changed) == 8 * fused, (weights, inputs)
        assert serial.latency(changed) == 8 * bits, (weights, inputs)


def test_energy_by_hand():
    net = dense(10, 100, 50, weight_bits=8, activation_bits=8)
    energy = cost.Energy(static=2.0, reuse=1.0)
    macs, words = 50_000, (1000 + 500 + 5000) / 4
    expected = 2.0 * 0.5 + macs * 0.3e-12 + macs * 16 / 32 * 5e-12 + words * 640e-12
    assert energy(net, np.array([0.5])) == pytest.approx(expected)
    on_chip = expected - 1500 / 4 * 640e-12
    assert energy(net, np.array([0.5]), on_chip=1500.0) == pytest.approx(on_chip)


@pytest.mark.parametrize("overhead, balance", [(0.0, 1.0), (0.11, 0.5), (1.0, 0.25)])
def test_break_even_on_a_roofline_is_the_formula(overhead, balance):
    platform = cost.Roofline(peak=1e9, overhead=overhead, balance=balance)
    ratio = cost.break_even(dense(10, 100, 50), platform)
    np.testing.assert_allclose(ratio, (1 + overhead) / balance, rtol=1e-6)


def test_break_even_depends_on_the_pattern():
    net = dense(1, 64, 64)
    platform = cost.SIMD(frequency=1.0, vector_bits=128, units=1, overhead=0.5)
    assert cost.break_even(net, platform)[0] == pytest.approx(6.0)  # 4 lanes x 1.5
    assert cost.break_even(net.replace(block_outputs=4), platform)[0] == pytest.approx(1.5)
    assert cost.break_even(net, cost.BitSerial(lanes=64, frequency=1.0), ratios=[2.0]) == 2.0  # as fast: not slower
    assert cost.break_even(net, platform, ratios=[2.0, 4.0])[0] == np.inf
    with pytest.raises(ValueError, match="must increase"):
        cost.break_even(net, platform, ratios=[2.0, 1.0])


def test_pruned_weights_save_arithmetic_only_where_they_are_skipped():
    dense_net, pruned = dense(10, 100, 50), dense(10, 100, 50, density=0.5, block_inputs=100, block_outputs=50)
    for platform, skips in ((cost.Roofline(peak=1e9), True), (cost.BitSerial(lanes=64, frequency=1e9), False)):
        memory = cost.Energy()(pruned, np.zeros(1)) - cost.Energy()(dense_net, np.zeros(1))
        saved = platform.energy(pruned) - platform.energy(dense_net)
        assert (saved == pytest.approx(memory)) == skips
        assert (platform.latency(pruned) < platform.latency(dense_net)) == skips
        assert saved < 0  # its weights still need less memory
