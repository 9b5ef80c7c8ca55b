"""Files for other engines, run by these engines; skipped where the extras are absent."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import runtime
from compressjax.runtime import As
from tests.runtime.nets import params, weights


def network(p, x):
    x = runtime.conv(x, p["conv"]["kernel"], p["conv"]["bias"], jax.nn.relu, strides=2)
    return runtime.linear(x.reshape(x.shape[0], 72), p["fc"]["kernel"], p["fc"]["bias"])


def packed(form):
    tree = params()
    tree["fc"]["kernel"] = np.tile(tree["fc"]["kernel"], (3, 1))
    return runtime.pack(tree, {"conv/kernel": As(block=(2, 8)), "fc/kernel": form})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "form",
    [As(block=(4, 5)), As(nm=(2, 4)), As(channels=True), As(bits=8), As(bits=4), As(block=(4, 5), bits=4)],
    ids=str,
)
def test_onnx_computes_the_same_for_any_batch(form):
    pytest.importorskip("jax2onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    tree = packed(form)
    data = runtime.to_onnx(network, tree, jax.ShapeDtypeStruct((1, 6, 6, 4), jnp.float32))
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    for batch in (1, 3):
        x = weights(batch, 6, 6, 4, seed=5)
        (y,) = session.run(None, {session.get_inputs()[0].name: x})
        np.testing.assert_allclose(y, network(tree, jnp.asarray(x)), rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_litert_holds_dense_weights():
    tensorflow = pytest.importorskip("tensorflow")
    tree = packed(As(nm=(2, 4)))
    x = weights(2, 6, 6, 4, seed=5)
    interpreter = tensorflow.lite.Interpreter(model_content=runtime.to_litert(network, tree, x))
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    y = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    np.testing.assert_allclose(y, network(tree, jnp.asarray(x)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "convert"), [("jax2onnx", runtime.to_onnx), ("tensorflow", runtime.to_litert)])
def test_an_absent_converter_names_its_extra(name, convert, monkeypatch):
    real = importlib.import_module

    def absent(wanted, *rest):
        if wanted == name:
            raise ImportError(wanted)
        return real(wanted, *rest)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(ImportError, match=rf"{name} is not installed: pip install 'compressjax\[(onnx|litert)\]'"):
        convert(lambda p, x: x, None, jnp.ones((1, 2)))
