"""The front door: what it refuses, and what it says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels as pk
from tests.pallas_kernels.cases import FORMATS, blocks

X = jnp.ones((2, 24))


def test_epilogue_by_hand():
    w = pk.BlockSparse.from_dense(np.array([[1.0, 0.0], [0.0, -1.0]], np.float32), (1, 1))
    got = pk.matmul(jnp.array([2.0, 3.0]), w, jnp.array([0.5, 1.0]), jax.nn.relu)
    assert got.tolist() == [2.5, 0.0]


BAD = {
    "inputs": (lambda: pk.matmul(jnp.ones((2, 23)), blocks()), r"x has shape \(2, 23\)"),
    "bias": (lambda: pk.matmul(X, blocks(), jnp.ones(3)), r"bias has shape \(3,\)"),
    "integers": (lambda: pk.matmul(jnp.ones((2, 24), int), blocks()), "int32"),
    "name": (lambda: pk.matmul(X, blocks(), implementation="fast"), "no implementation 'fast'"),
    "platform": (lambda: pk.matmul(X, blocks(), platform="abacus"), "'abacus' is not one of"),
    "other platform": (
        lambda: pk.matmul(X, blocks(), implementation="mosaic_tpu", platform="cpu"),
        "runs on tpu, and this program is for cpu",
    ),
    "transposed": (lambda: pk.matmul_transposed(jnp.ones((2, 3)), blocks()), r"g has shape \(2, 3\)"),
    "outer": (lambda: pk.outer(X, jnp.ones((3, 20)), blocks()), r"g \(3, 20\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(case, unchecked):
    call, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_refusals_can_be_asked_for():
    assert pk.refusal("xla", "matmul", X, blocks(), "cpu") is None
    assert "this program is for cpu" in pk.refusal("mosaic_gpu", "matmul", X, blocks(), "cpu")


def test_training_keeps_the_pattern():
    w = blocks()
    random = np.random.default_rng(1)
    target, x = (jnp.asarray(random.normal(size=(16, size)), jnp.float32) for size in (20, 24))

    @jax.jit
    def step(values):
        def loss(values):
            return ((pk.matmul(x, w.with_values(values)) - target) ** 2).mean()

        value, gradient = jax.value_and_grad(loss)(values)
        return value, values - 0.3 * gradient

    losses, values = [], w.values
    for _ in range(20):
        loss, values = step(values)
        losses.append(float(loss))
    assert losses[-1] < 0.7 * losses[0]
    assert not np.asarray(w.with_values(values).todense())[np.asarray(w.todense()) == 0].any()


def test_gpus_that_are_no_hopper_are_refused(monkeypatch):
    class Ampere:
        compute_capability = "8.0"

    w = blocks(128, 128, (64, 64), 1.0)
    w = w.with_values(w.values.astype(jnp.bfloat16))
    x = jax.ShapeDtypeStruct((64, 128), jnp.bfloat16)
    assert pk.refusal("mosaic_gpu", "matmul", x, w, "gpu") is None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "devices", lambda: [Ampere()])
    assert "compute capability 9.0), and this one has 8.0" in pk.refusal("mosaic_gpu", "matmul", x, w)


@pytest.mark.parametrize("name", FORMATS)
def test_no_rows_at_all(name):
    w = FORMATS[name]()
    assert pk.matmul(jnp.zeros((0, w.shape[0])), w, implementation="xla").shape == (0, w.shape[1])


def test_the_value_under_grad_is_that_without():
    w = pk.Dense(jnp.full((8, 1), 1e4, jnp.float16))
    x = jnp.ones(8, jnp.float16)

    def scaled(z):
        return z * 1e-3

    plain = pk.matmul(x, w, activation=scaled)
    value, gradient = jax.value_and_grad(lambda x: pk.matmul(x, w, activation=scaled)[0])(x)
    assert float(plain[0]) == float(value) == 80
    assert gradient.tolist() == [10.0] * 8


def test_pruned_levels_and_absent_weights_have_no_gradient():
    codes = np.array([[0, 1], [2, 1]])
    w = pk.Quantized.from_codes(codes, np.ones((1, 2), np.float32), np.array([-1.0, 0.0, 1.0], np.float32), bits=8)
    gradient = jax.grad(lambda w: pk.matmul(jnp.ones(2), w).sum(), allow_int=True)(w)
    assert gradient.codebook.tolist() == [1.0, 0.0, 1.0]
    sparse = pk.NM.from_dense(np.array([[0.0], [2.0], [0.0], [0.0]], np.float32), 2, 4)
    assert sparse.indices.ravel().tolist() == [1, 4]
    gradient = jax.grad(lambda w: pk.matmul(jnp.ones(4), w).sum(), allow_int=True)(sparse)
    assert gradient.values.ravel().tolist() == [1.0, 0.0]


def test_what_prepare_chose_is_no_must():
    w = pk.Quantized.from_dense(np.ones((8, 4), np.float32))
    prepared = pk.Prepared(w, "mosaic_tpu", "cpu", "by hand")
    assert pk.matmul(jnp.ones((3, 8)), prepared).tolist() == [[8.0] * 4] * 3
