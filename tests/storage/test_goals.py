"""What a compressed LeNet-5 may cost: header under 60 bytes, positions and values near their entropy."""

import numpy as np
import pytest

from compressjax import storage

WEIGHTS = 430_500
META = {"model": "lenet5", "widths": [10, 24, 80], "dataset": "mnist"}
LAYERS = {
    "conv1": ((5, 5, 1, 10), 100),
    "conv2": ((5, 5, 10, 24), 750),
    "fc1": ((384, 80), 520),
    "fc2": ((80, 10), 180),
}


@pytest.fixture(scope="module")
def lenet():
    """Random positions, four levels per kernel, biases of six bits: nothing to exploit but the levels."""
    rng = np.random.default_rng(0)
    params = {}
    for name, (shape, count) in LAYERS.items():
        kernel = np.zeros(shape, np.float32)
        levels = np.float32(rng.uniform(0.05, 0.3)) * np.array([-2, -1, 1, 2], np.float32)
        kernel.reshape(-1)[rng.choice(kernel.size, count, replace=False)] = rng.choice(levels, count)
        steps = np.clip(np.rint(rng.normal(size=shape[-1]) * 12), -32, 32).astype(np.float32)
        params[name] = {"kernel": kernel, "bias": np.float32(rng.uniform(0.003, 0.01)) * np.where(steps, steps, 1)}
    return params


def test_header_below_sixty_bytes(lenet):
    account = storage.account(storage.encode(lenet, META))
    assert account.header_bits < 60 * 8
    assert account.bits == sum(sum(leaf.values()) for leaf in account.streams().values()) + account.header_bits


def test_file_near_its_entropy(lenet):
    data = storage.encode(lenet, META)
    account = storage.account(data)
    positions = sum(storage.bits.entropy(int(np.prod(shape)), count) for shape, count in LAYERS.values())
    assert positions < account.positions < positions + 4 * 16
    kernels = [leaf for leaf in account.leaves if not leaf.is_bias]
    assert sum(leaf.values for leaf in kernels) == pytest.approx(2 * 1550, abs=4)
    assert account.codebook <= 8 * 62  # a 31-bit scale, its width, two ends and a model per leaf
    assert len(data) < 1600
    assert account.ratio_file(WEIGHTS) > 860
    assert account.ratio_data(WEIGHTS) == pytest.approx(32 * WEIGHTS / 3100, rel=0.01)
    assert account.ratio_data(WEIGHTS, biases=True) < account.ratio_data(WEIGHTS)
    assert account.ratio_file(WEIGHTS, biases=False) > account.ratio_file(WEIGHTS)


def test_short_scales_cost_less(lenet):
    """A scale rounded to bfloat16 by the quantizer saves two bytes per leaf."""

    def shorten(x):
        q = np.abs(x[x != 0]).min()
        short = (q.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        return np.rint(x / q) * short

    short = {name: {key: shorten(x) for key, x in layer.items()} for name, layer in lenet.items()}
    assert len(storage.encode(short, META)) <= len(storage.encode(lenet, META)) - 14


def test_a_population_of_names_stays_small():
    names = {f"block{i}": {"kernel": np.zeros((3, 3)), "bias": np.zeros(3)} for i in range(20)}
    assert len(storage.encode(names)) < 250
