"""A network whose channels are zero, and the smaller network that `Model.like` makes of what is left, are one function.

All widths of each network here are different, so that the size of an axis says what it is.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import channels, trees, zoo

RGB = {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25)}
MODELS = {
    "resnet20": zoo.build("resnet20", widths=(6, 7, 13, 8, 19, 9), blocks=(1, 1, 1), input_shape=(8, 8, 3), classes=4),
    "resnet50": zoo.build(
        "resnet50", widths=(8, 9, 10, 11, 12, 13, 14), blocks=(1, 1), input_shape=(32, 32, 3), classes=4
    ),
    "vgg16": zoo.build("vgg16", widths=tuple(range(5, 18)), classes=4),
    "mobilenet_v2": zoo.build(
        "mobilenet_v2",
        widths=(8, 9, 10, 11, 12, 13),
        blocks=(1, 2),
        strides=(1, 1, 2),
        input_shape=(8, 8, 3),
        classes=4,
        **RGB,
    ),
    "vit": zoo.build(
        "vit",
        widths=(13, 3, 5, 6, 11, 8, 9, 10, 12),
        layers=2,
        head_width=5,
        input_shape=(8, 8, 2),
        classes=7,
    ),
    "decoder": zoo.build(
        "decoder",
        widths=(13, 3, 5, 6, 7, 11, 2, 8, 10, 9, 12),
        layers=2,
        head_width=12,
        pairs=((0, 2, 5), (0, 1, 2, 3, 4)),
        input_shape=(4,),
        classes=19,
    ),
    "tied decoder": zoo.build(
        "decoder", widths=(13, 3, 5, 6, 7, 11), layers=1, tied=True, input_shape=(4,), classes=19
    ),
}
QK = {"decoder": (6, 10), "tied decoder": (6,)}


def cut(model, name, seed=0):
    """For every width of a model, which positions stay: some go everywhere, and rotated pairs go together."""
    rng = np.random.default_rng(seed)

    def some(size):
        mask = rng.random(size) < 0.6
        mask[rng.integers(size)] = True
        mask[(np.flatnonzero(mask)[0] + 1) % size] = False
        return mask

    keep = {size: some(size) for size in model.widths}
    for size in QK.get(name, ()):
        keep[size] = np.tile(some(size // 2), 2)
    if name == "resnet20":
        lo2, hi2, lo3, hi3 = dict(model.options)["pads"]
        keep[13] = np.concatenate([some(lo2), keep[6], some(hi2)])
        keep[19] = np.concatenate([some(lo3), keep[13], some(hi3)])
    return keep


def parameters(model, seed=0):
    """No leaf constant, statistics included."""
    rng = np.random.default_rng(seed)
    draw = lambda leaf: rng.uniform(0.1, 1.0, leaf.shape).astype(np.float32) - 0.45  # noqa: E731
    params = jax.tree.map(draw, jax.eval_shape(model.init, jax.random.key(0)))
    return trees.update(params, {p: leaf + 0.5 for p, leaf in trees.leaves(params).items() if p.endswith("/var")})


def apart(params, keep):
    """The masked and the smaller parameters, and the masks of all axes."""
    masked, small, kept = {}, {}, {}
    for path, leaf in trees.leaves(params).items():
        zeroed, left = np.array(leaf), np.asarray(leaf)
        for axis, size in enumerate(leaf.shape):
            if size in keep:
                kept[path, axis] = keep[size]
                zeroed = zeroed * keep[size].reshape([-1 if a == axis else 1 for a in range(leaf.ndim)])
                left = left.compress(keep[size], axis)
        masked[path], small[path] = zeroed.astype(np.float32), left
    return trees.update(params, masked), trees.update(params, small), kept


@pytest.mark.parametrize("name", MODELS)
def test_masked_equals_shrunk(name):
    model = MODELS[name]
    assert len(set(model.widths)) == len(model.widths)
    masked, small, kept = apart(parameters(model), cut(model, name))
    shrunk = model.like(small, kept)
    assert all(new < old for new, old in zip(shrunk.widths, model.widths, strict=True))
    rng = np.random.default_rng(1)
    if name.endswith("decoder"):
        x = jnp.asarray(rng.integers(0, 19, (2, 6)))
    else:
        x = jnp.asarray(rng.random((2, *model.input_shape), dtype=np.float32))
    want = jax.jit(model.apply)(masked, x)
    got = jax.jit(shrunk.apply)(small, x)
    assert np.std(want) > 0.01 * np.abs(want).max()
    assert np.linalg.norm(got - want) <= 1e-5 * np.linalg.norm(want)
    assert zoo.build(**shrunk.config) == shrunk
    assert trees.shapes(jax.eval_shape(shrunk.init, jax.random.key(0))) == trees.shapes(small)


@pytest.mark.parametrize("name", MODELS)
def test_a_traced_network_is_rebuilt_as_the_same_program(name):
    model = MODELS[name]
    params = parameters(model)
    x = jax.ShapeDtypeStruct((2, *model.input_shape), jnp.int32 if name.endswith("decoder") else jnp.float32)
    net = channels.trace(model.apply, params, x)
    rng = np.random.default_rng(0)
    small = net.shrink(params, {group.name: rng.permutation(group.size) < 0.7 * group.size for group in net.groups})
    sizes = trees.shapes(params)
    kept = {(m.path, m.axis): np.ones(sizes[m.path][m.axis], bool) for g in net.groups for m in g.members}
    for group in net.groups:
        for member in group.members:
            kept[member.path, member.axis] &= (member.index < 0) | small.keep[group.name][member.index]
    rebuilt = model.like(small.params, kept)
    net.check(rebuilt.apply, small.keep)
    # A group for every width; for the two streams that a shortcut pads with zeros, one before and one behind.
    padded = 2 if name == "resnet20" else 0
    assert len(net.groups) == len(model.widths) + padded


@pytest.mark.parametrize("name", ["resnet20", "decoder"])
def test_where_order_matters_it_is_asked_for(name):
    model = MODELS[name]
    _, small, _ = apart(parameters(model), cut(model, name))
    with pytest.raises(ValueError, match=r"say which were kept: model\.like\(params, kept\)"):
        model.like(small)


def test_half_a_rotated_pair_is_refused():
    model = MODELS["decoder"]
    kept = {("layer0/key/kernel", 2): np.array([1, 1, 0, 1, 1, 1], bool)}
    with pytest.raises(ValueError, match="must be kept or removed together"):
        model.like(parameters(model), kept)
