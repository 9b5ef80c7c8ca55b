import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from compressjax import cost, trees, zoo

SMALL = zoo.build("resnet20", widths=(4, 3, 9, 5, 11, 6), blocks=(1, 1, 1), input_shape=(9, 8, 3), classes=4)


def parameters(model):
    """Weights, scales and biases; running statistics are no parameters."""
    shapes = jax.eval_shape(model.init, jax.random.key(0))
    chosen = jax.tree.map(lambda leaf, mine: leaf.size if mine else 0, shapes, zoo.trainable(shapes))
    return sum(jax.tree.leaves(chosen))


@pytest.mark.parametrize(
    "name, count",
    [
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        # 3x3 convolutions without bias 14,710,464; scales and biases 2 * 4,224; dense 512 * 10 + 10.
        ("vgg16", 14_724_042),
        ("resnet50", 25_557_032),
        ("mobilenet_v2", 3_504_872),
        # Twelve layers: norms 2 * 768; query and out 768 * 12 * 64 each; key and value 768 * 4 * 64 each; gate, up and
        # down 768 * 2,048 each.  Then embedding and output 32,000 * 768 each, and the last norm.
        ("decoder", 12 * (1_536 + 2 * 589_824 + 2 * 196_608 + 3 * 1_572_864) + 2 * 24_576_000 + 768),
        # Patches 48 * 192 + 192, positions 64 * 192; six layers: norms 4 * 192, attention 4 * 192 * 193, hidden
        # 2 * 192 * 768 + 768 + 192; last norm 2 * 192; classes 1,930.
        ("vit", 9_408 + 12_288 + 6 * (768 + 148_224 + 295_872) + 384 + 1_930),
    ],
)
def test_published_sizes(name, count):
    assert parameters(zoo.build(name)) == count


def test_standard_deviations_at_the_start():
    model = zoo.build("resnet20", widths=(64, 64), blocks=(1,))
    params = model.init(jax.random.key(0))
    kernel = params["stage1_block0"]["conv2"]["kernel"]
    assert abs(float(kernel.std()) - np.sqrt(2 / (9 * 64))) < 1e-3
    assert abs(float(params["fc"]["kernel"].std()) - np.sqrt(1 / 64)) < 1e-2
    assert not (kernel == params["stage1_block0"]["conv1"]["kernel"]).any()
    assert {p: float(v.mean()) for p, v in trees.leaves(params["norm0"]).items()} == {
        "bias": 0,
        "mean": 0,
        "scale": 1,
        "var": 1,
    }


def reference(params, x, pads, blocks=(1, 1, 1)):
    """The definition, in the channel-first layout it was published in, without the zoo's helpers."""

    def conv(x, layer, stride=1):
        kernel = params_at(layer)["kernel"].transpose(3, 2, 0, 1)
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=("NCHW", "OIHW", "NCHW")
        )

    def params_at(layer):
        node = params
        for part in layer.split("/"):
            node = node[part]
        return node

    def norm(x, layer):
        leaf = {k: v.reshape(1, -1, 1, 1) for k, v in params_at(layer).items()}
        return (x - leaf["mean"]) / jnp.sqrt(leaf["var"] + 1e-5) * leaf["scale"] + leaf["bias"]

    mean, std = (np.array(v, np.float32).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    h = jax.nn.relu(norm(conv((x.transpose(0, 3, 1, 2) - mean) / std, "conv0"), "norm0"))
    for stage, count in enumerate(blocks, 1):
        for block in range(count):
            at, enters = f"stage{stage}_block{block}", stage > 1 and block == 0
            branch = jax.nn.relu(norm(conv(h, f"{at}/conv1", 2 if enters else 1), f"{at}/norm1"))
            branch = norm(conv(branch, f"{at}/conv2"), f"{at}/norm2")
            if enters:
                lo, hi = pads[2 * stage - 4 : 2 * stage - 2]
                h = h[:, :, ::2, ::2]
                zeros = [jnp.zeros((h.shape[0], n, *h.shape[2:])) for n in (lo, hi)]
                h = jnp.concatenate([zeros[0], h, zeros[1]], 1)
            h = jax.nn.relu(h + branch)
    return h.mean((2, 3)) @ params["fc"]["kernel"] + params["fc"]["bias"].reshape(1, -1)


def scrambled(params, seed=0):
    """Parameters in which no leaf is constant."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda w: w + 0.3 * rng.random(w.shape, dtype=np.float32), params)


def test_it_agrees_with_its_definition():
    params = scrambled(SMALL.init(jax.random.key(0)))
    x = np.random.default_rng(1).random((2, 9, 8, 3), dtype=np.float32)
    pads = dict(SMALL.options)["pads"]
    assert pads == (2, 3, 1, 1)
    want = jax.jit(lambda p, x: reference(p, x, pads))(params, x)
    np.testing.assert_allclose(jax.jit(SMALL.apply)(params, x), want, rtol=1e-4, atol=1e-4)


def test_uneven_pads_need_to_be_known():
    leaves = jax.eval_shape(SMALL.init, jax.random.key(0))
    # Of stage 2, channel 0 of the two before the shortcut and channels 6 and 8 of the three behind it are cut.
    small = zoo.build("resnet20", widths=(4, 3, 6, 5, 8, 6), blocks=(1, 1, 1), pads=(1, 1, 1, 1))
    params = jax.eval_shape(small.init, jax.random.key(0))
    with pytest.raises(ValueError, match=r"pads \(2, 3, 1, 1\) do not lead .* model\.like\(params, kept\)"):
        SMALL.like(params)
    kept = {
        ("stage2_block0/conv2/kernel", 3): np.array([0, 1, 1, 1, 1, 1, 0, 1, 0], bool),
        ("stage3_block0/conv2/kernel", 3): np.array([1, 0, 1, 1, 1, 1, 1, 0, 1, 0, 1], bool),
        ("fc/kernel", 0): np.ones(11, bool),
    }
    assert dict(SMALL.like(params, kept).options)["pads"] == (1, 1, 1, 1)
    assert SMALL.like(leaves, {}) == SMALL


@pytest.mark.parametrize(
    "kwargs, match",
    [
        ({"pads": (8, 8)}, r"pads \(8, 8\) do not lead from each of the streams \[16, 32, 64\]"),
        ({"pads": (-1, 17, 16, 16)}, "do not lead"),
        ({"widths": (16, 4, 8, 4), "blocks": (1, 1)}, "must not get narrower"),
        ({"input_shape": (32, 32, 1), "mean": (0.5, 0.5, 0.5)}, "one number per channel"),
        ({"std": (0.5, 0.0, 0.5)}, "positive for std"),
        ({"depth": 20}, "resnet20 has no option 'depth'; its options: blocks, pads, mean, std"),
    ],
)
def test_bad_builds(kwargs, match):
    with pytest.raises(ValueError, match=match):
        zoo.build("resnet20", **kwargs)


def test_grey_images_pass_as_they_are():
    assert zoo.build("resnet20", input_shape=(28, 28, 1)).config["std"] == [1.0]


@pytest.mark.parametrize(
    "name, options, count",
    [
        ("resnet50", {}, 4_089_184_256),
        ("resnet56", {}, 125_485_696),
        ("mobilenet_v2", {"depthwise": "grouped"}, 300_774_272),
        ("vgg16", {}, 313_201_664),
    ],
)
def test_published_multiplications(name, options, count):
    model = zoo.build(name, **options)
    params = jax.eval_shape(model.init, jax.random.key(0))
    layers = cost.layers(model.apply, params, jax.ShapeDtypeStruct((1, *model.input_shape), jnp.float32))
    assert cost.macs(layers).sum() == count
