"""Prune a network of your own to 5 % of its weights, store it in a file, and judge the file.

    python docs/examples/prune_and_store.py

The network is an ordinary Flax Linen module, the data are the handwritten digits that come with scikit-learn, at half
their resolution.
"""

import tempfile
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax

from compressjax import data, projections, storage, training


class MLP(nn.Module):
    """Nothing in the module knows that it will be pruned."""

    @nn.compact
    def __call__(self, x):
        x = x.reshape(len(x), -1)
        x = nn.relu(nn.Dense(128)(x))
        return nn.Dense(10)(x)


def small(images):
    """Digits of 14 x 14 pixels in [0, 1]."""
    return images.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4), dtype=np.float32) / 255


def fit(model, params, optimizer, images, labels, steps):
    """Any training loop will do: compressjax's part is an optax transformation, so it is in `optimizer`."""

    @jax.jit
    def step(params, state):
        def loss(params):
            logits = model.apply({"params": params}, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def main(folder: Path) -> dict[str, float]:
    """Trains, prunes, stores, loads and evaluates; the file lands in `folder`."""
    digits = data.load("digits")
    images, labels = small(digits.train.images), digits.train.labels
    model = MLP()
    params = model.init(jax.random.key(0), images[:1])["params"]

    def accuracy(params, split):
        return float((model.apply({"params": params}, small(split.images)).argmax(-1) == split.labels).mean())

    # 1. The dense network.
    params = fit(model, params, optax.adam(3e-3), images, labels, steps=100)
    dense = params

    # 2. What is allowed: 5 % of the entries of every kernel. The name of a leaf is its path; a rule is a glob.
    rules = {"*/kernel": projections.Cardinality(0.05)}

    # 3. How training gets there: ADMM pulls the weights towards the allowed set while the loss is minimized...
    pull = training.admm(optax.adam(3e-3), rules, rho=training.half_cosine(1e-3, 0.3, 150), every=10)
    params = fit(model, params, pull, images, labels, steps=150)
    params = projections.project(rules, params)  # ... and the projection lands exactly in it.

    # 4. What survived is trained on; pruned weights stay exactly zero.
    keep = training.masked(optax.adam(3e-3), projections.supports(rules, params))
    params = fit(model, params, keep, images, labels, steps=100)

    # 5. What ships is a file that gives every bit back. Only now is the test split read, by the reloaded file.
    path = folder / "mlp.cjx"
    storage.save(path, jax.device_get(params), {"about": "an MLP on digits, 5 % of its weights"})
    loaded = storage.load(path).params
    test = digits.test()
    return {
        "weights": sum(int((leaf != 0).sum()) for leaf in jax.tree.leaves(loaded)),
        "bytes": path.stat().st_size,
        "dense bytes": 4 * sum(leaf.size for leaf in jax.tree.leaves(loaded)),
        "dense test accuracy": accuracy(dense, test),
        "test accuracy of the file": accuracy(loaded, test),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        for name, value in main(Path(temporary)).items():
            print(f"{name}: {value:,.4g}" if value < 2 else f"{name}: {value:,}")
