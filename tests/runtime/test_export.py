"""Exported programs give the same numbers in a process that knows nothing but JAX, for any batch."""

import subprocess
import sys

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import runtime
from compressjax.runtime import As
from tests.runtime.nets import params, weights


def network(p, x):
    x = runtime.conv(x, p["conv"]["kernel"], p["conv"]["bias"], jax.nn.relu, strides=2)
    x = x.reshape(x.shape[0], -1, 24).sum(1)
    return runtime.linear(x, p["fc"]["kernel"], p["fc"]["bias"])


def packed():
    return runtime.pack(params(), {"conv/kernel": As(block=(2, 8)), "fc/kernel": As(nm=(2, 4))})


ELSEWHERE = """
import sys
import jax.export, numpy as np
folder = sys.argv[1]
program = jax.export.deserialize(bytearray(open(folder + "/program", "rb").read()))
np.save(folder + "/y.npy", program.call(np.load(folder + "/x.npy")))
assert not {name for name in sys.modules if "compressjax" in name or "pallas_kernels" in name}
"""


def test_a_fresh_process_computes_the_same(tmp_path):
    tree = packed()
    data = runtime.export(network, tree, jax.ShapeDtypeStruct((1, 6, 6, 4), jnp.float32))
    x = weights(3, 6, 6, 4, seed=5)
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "program").write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    want = network(runtime.unpack(tree), jnp.asarray(x))
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), want, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(runtime.load(data)(jnp.asarray(x[:2])), want[:2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("platforms", [("tpu",), ("cuda",), ("cpu", "tpu", "cuda")])
def test_other_platforms_are_lowered_without_being_there(platforms):
    tree = runtime.pack({"w": weights(16, 16)}, {"w": As(block=(8, 8))})
    data = runtime.export(lambda p, x: runtime.linear(x, p["w"]), tree, jnp.ones((1, 16)), platforms=platforms)
    program = jax.export.deserialize(bytearray(data))
    assert program.platforms == platforms
    assert program.in_avals[0].shape[1:] == (16,)
    assert not isinstance(program.in_avals[0].shape[0], int)
    if "cpu" not in platforms:
        with pytest.raises(ValueError, match="platforms"):
            runtime.load(data)(jnp.ones((2, 16)))


def test_a_fixed_batch_and_several_inputs():
    function = lambda p, x: x["a"] @ p + x["b"]  # noqa: E731
    inputs = {"a": jnp.ones((2, 3)), "b": jnp.ones((2, 4))}
    program = runtime.load(runtime.export(function, jnp.ones((3, 4)), inputs, symbolic=False))
    np.testing.assert_array_equal(program(inputs), np.full((2, 4), 4.0))
    with pytest.raises(ValueError, match=r"\(3, 3\)|shape"):
        program({"a": jnp.ones((3, 3)), "b": jnp.ones((3, 4))})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"platforms": ("gpu",)}, "name at least one of cpu, tpu, cuda"),
        ({"platforms": ()}, "name at least one of cpu, tpu, cuda"),
        ({"implementation": "native"}, "cannot be exported"),
        ({"implementation": "reference"}, "cannot be exported"),
    ],
)
def test_what_cannot_be_exported_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        runtime.export(lambda p, x: x * p, jnp.float32(1), jnp.ones(3), **settings)


def test_bytes_of_another_kind_are_refused():
    with pytest.raises(ValueError, match="no program written by runtime"):
        runtime.load(b"not a program at all, but long enough for a header")
    with pytest.raises(ValueError, match="no batch axis"):
        runtime.export(lambda p, x: x, None, jnp.float32(1))
