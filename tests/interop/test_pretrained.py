import hashlib
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import interop, trees, zoo
from compressjax.data import _load
from compressjax.interop import _pretrained


def torch_names(depth):
    """Names and shapes as the published state dictionaries have them."""
    shapes = {"conv1.weight": (16, 3, 3, 3), **norm("bn1", 16)}
    width = 16
    for layer, out in enumerate((16, 32, 64), 1):
        for block in range((depth - 2) // 6):
            at = f"layer{layer}.{block}"
            shapes |= {f"{at}.conv1.weight": (out, width, 3, 3), **norm(f"{at}.bn1", out)}
            shapes |= {f"{at}.conv2.weight": (out, out, 3, 3), **norm(f"{at}.bn2", out)}
            width = out
    return shapes | {"linear.weight": (10, 64), "linear.bias": (10,)}


def norm(name, width):
    return {f"{name}.{leaf}": (width,) for leaf in ("weight", "bias", "running_mean", "running_var")}


@pytest.fixture(name="weights", scope="module")
def fixture_weights():
    rng = np.random.default_rng(0)
    return {name: rng.random(shape, dtype=np.float32) for name, shape in torch_names(20).items()}


def test_converted_weights_are_a_resnet_of_the_zoo(weights):
    params = interop.from_torch_resnet(weights)
    expected = jax.eval_shape(zoo.build("resnet20").init, jax.random.key(0))
    assert trees.shapes(params) == trees.shapes(expected)
    np.testing.assert_array_equal(params["norm0"]["var"], weights["bn1.running_var"])
    kernel = params["stage3_block1"]["conv2"]["kernel"]
    np.testing.assert_array_equal(kernel, weights["layer3.1.conv2.weight"].transpose(2, 3, 1, 0))
    prefixed = {f"module.{name}": value for name, value in weights.items()}
    assert trees.shapes(interop.from_torch_resnet(prefixed)) == trees.shapes(params)


def test_files_are_found_and_checked(weights, tmp_path, monkeypatch):
    monkeypatch.delenv("COMPRESSJAX_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"COMPRESSJAX_DATA \(or `root`\) .* holds resnet20_cifar10.npz"):
        interop.pretrained("resnet20", root=tmp_path)
    path = tmp_path / "weights" / "resnet20_cifar10.npz"
    path.parent.mkdir()
    np.savez(path, **weights)
    with pytest.raises(ValueError, match="damaged or another file: its SHA-256 is not b051f6ba"):
        interop.pretrained("resnet20", root=tmp_path)
    sums = {"resnet20": hashlib.sha256(path.read_bytes()).hexdigest()}
    monkeypatch.setattr(_pretrained, "_SHA256", sums)
    monkeypatch.setenv("COMPRESSJAX_DATA", str(tmp_path))
    model, params = interop.pretrained("resnet20")
    assert model == zoo.build("resnet20")
    np.testing.assert_array_equal(params["fc"]["bias"], weights["linear.bias"])


def test_unknown_weights_are_refused():
    with pytest.raises(ValueError, match=r"no trained weights of 'vgg16'\. Known: resnet20"):
        interop.pretrained("vgg16")


def published(name, images, accuracy):
    folder = Path(os.environ.get("COMPRESSJAX_DATA", ""))
    if not ((folder / "weights").is_dir() and (folder / "cifar10").is_dir()):
        pytest.skip("COMPRESSJAX_DATA holds no weights or no CIFAR-10")
    model, params = interop.pretrained(name)
    test = _load._read("cifar10", "test", None)
    forward = jax.jit(lambda p, x: model.apply(p, x.astype(jnp.float32) / 255).argmax(-1))
    found = [np.asarray(forward(params, test.images[i : i + 500])) for i in range(0, images, 500)]
    assert (np.concatenate(found) == test.labels[:images]).mean() == pytest.approx(accuracy, abs=5e-4)


@pytest.mark.skipif("COMPRESSJAX_DATA" not in os.environ, reason="needs COMPRESSJAX_DATA")
def test_the_first_500_images_of_a_trained_network():
    published("resnet20", 500, 0.91)


@pytest.mark.slow
@pytest.mark.skipif("COMPRESSJAX_DATA" not in os.environ, reason="needs COMPRESSJAX_DATA")
@pytest.mark.parametrize(
    "name, accuracy", [("resnet20", 0.9173), ("resnet32", 0.9263), ("resnet44", 0.9311), ("resnet56", 0.9339)]
)
def test_published_accuracies(name, accuracy):
    published(name, 10_000, accuracy)
