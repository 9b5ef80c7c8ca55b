import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from compressjax import interop, trees


class Net(nnx.Module):
    def __init__(self, rngs):
        self.conv = nnx.Conv(1, 2, (3, 3), padding="VALID", rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.layers = nnx.List([nnx.Linear(8, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)])

    def __call__(self, x):
        x = jax.nn.relu(self.norm(self.conv(x), use_running_average=True))
        return self.layers[1](jax.nn.relu(self.layers[0](x.reshape(x.shape[0], -1))))


def test_there_and_back_keeps_values_and_function():
    net = Net(nnx.Rngs(0))
    graph, state = nnx.split(net)
    x = jax.random.normal(jax.random.key(1), (4, 4, 4, 1))
    back = interop.to_nnx(state, interop.from_nnx(state))
    np.testing.assert_array_equal(nnx.merge(graph, back)(x), net(x))
    assert jax.tree.structure(back) == jax.tree.structure(state)


def test_paths_and_plainness():
    state = nnx.state(Net(nnx.Rngs(0)))
    tree = interop.from_nnx(state)
    assert type(tree) is dict
    assert type(tree["layers"][0]) is dict
    assert trees.leaves(tree).keys() == trees.leaves(state).keys()
    assert trees.leaves(tree)["norm/var"].tolist() == [1.0, 1.0]


def test_original_state_stays():
    state = nnx.state(Net(nnx.Rngs(0)), nnx.Param)
    before = np.array(trees.leaves(state)["conv/kernel"])
    new = interop.to_nnx(state, jax.tree.map(jnp.zeros_like, interop.from_nnx(state)))
    assert not trees.leaves(new)["conv/kernel"].any()
    np.testing.assert_array_equal(trees.leaves(state)["conv/kernel"], before)


def test_narrower_arrays_run():
    graph, state = nnx.split(Net(nnx.Rngs(0)))
    tree = interop.from_nnx(state)
    first, second = tree["layers"][0], tree["layers"][1]
    masked = {0: {k: v.at[..., 2].set(0) for k, v in first.items()}, 1: second}
    shrunk = {0: {k: v[..., :2] for k, v in first.items()}, 1: second | {"kernel": second["kernel"][:2]}}
    x = jax.random.normal(jax.random.key(1), (4, 4, 4, 1))
    outs = [nnx.merge(graph, interop.to_nnx(state, tree | {"layers": t}))(x) for t in (masked, shrunk)]
    np.testing.assert_allclose(*outs, rtol=1e-5, atol=1e-6)


def test_missing_and_unknown_paths_are_named():
    state = nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)))
    tree = interop.from_nnx(state)
    with pytest.raises(ValueError, match="no leaf 'bias'"):
        interop.to_nnx(state, {"kernel": tree["kernel"]})
    with pytest.raises(ValueError, match="No leaf has the path 'gain'"):
        interop.to_nnx(state, tree | {"gain": tree["bias"]})
