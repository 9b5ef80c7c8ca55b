"""The transformers and their attention against plain loops in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import zoo
from compressjax.zoo import _attention


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def softmax(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


@pytest.mark.parametrize("causal", [False, True])
def test_attention_by_loops(causal):
    n, t, k, r, w, v = 2, 4, 2, 3, 5, 6
    query, key, value = draw(n, t, k, r, w), draw(n, t, k, w, seed=1), draw(n, t, k, v, seed=2)
    want = np.zeros((n, t, k, r, v))
    for i, at, head, q in np.ndindex(n, t, k, r):
        seen = at + 1 if causal else t
        scores = 0.3 * key[i, :seen, head].astype(np.float64) @ query[i, at, head, q]
        want[i, at, head, q] = softmax(scores) @ value[i, :seen, head]
    arrays = (jnp.asarray(a) for a in (query, key, value))
    got = _attention.attention(*arrays, scale=0.3, causal=causal)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_rotation_by_complex_numbers():
    x = draw(2, 5, 3, 8)
    cosine, sine = _attention.angles(5, (0, 1, 2, 3), 8, 100.0)
    turn = np.exp(1j * np.arange(5).reshape(1, 5, 1, 1) * 100.0 ** (-np.arange(4) / 4).reshape(1, 1, 1, 4))
    want = (x[..., :4] + 1j * x[..., 4:]) * turn
    got = _attention.rotate(jnp.asarray(x), cosine, sine)
    np.testing.assert_allclose(got, np.concatenate([want.real, want.imag], -1), rtol=1e-4, atol=1e-5)


def test_pairs_that_are_left_keep_their_frequency():
    whole, some = (_attention.angles(7, pairs, 8, 10000.0) for pairs in ((0, 1, 2, 3), (1, 3)))
    for a, b in zip(whole, some, strict=True):
        np.testing.assert_array_equal(a[:, [1, 3]], b)


def test_later_tokens_do_not_reach_earlier_ones():
    model = zoo.build("decoder", widths=(8, 1, 2, 4, 4, 8), layers=1, classes=11, input_shape=(6,))
    params = model.init(jax.random.key(0))
    tokens = jnp.array([[1, 2, 3, 4, 5, 6], [1, 2, 3, 7, 8, 9]])
    logits = jax.jit(model.apply)(params, tokens)
    assert logits.shape == (2, 6, 11)
    np.testing.assert_allclose(logits[0, :3], logits[1, :3], rtol=1e-5, atol=1e-6)
    assert abs(logits[0, 3:] - logits[1, 3:]).min() > 0


def test_a_decoder_by_hand():
    model = zoo.build("decoder", widths=(4, 1, 2, 2, 3, 5), layers=1, classes=7, tied=True, input_shape=(3,))
    params = jax.tree.map(lambda leaf: draw(*leaf.shape, seed=leaf.size), jax.eval_shape(model.init, jax.random.key(0)))
    tokens = [3, 0, 6]
    norm = lambda x, scale: x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale  # noqa: E731
    turn = lambda a, t: np.array([a[0] * np.cos(t) - a[1] * np.sin(t), a[1] * np.cos(t) + a[0] * np.sin(t)])  # noqa: E731
    x = params["embedding"][tokens].astype(np.float64)
    layer = {name: leaves.get("kernel", leaves.get("scale")) for name, leaves in params["layer0"].items()}
    h = norm(x, layer["norm1"])
    out = np.zeros((3, 2, 3))
    for t in range(3):
        for r in range(2):
            query = turn(h[t] @ layer["query"][:, 0, r], t)
            scores = [query @ turn(h[s] @ layer["key"][:, 0], s) / np.sqrt(2) for s in range(t + 1)]
            out[t, r] = softmax(np.array(scores)) @ (h[: t + 1] @ layer["value"][:, 0])
    x = x + np.einsum("trv,rvd->td", out, layer["out"][0])
    h = norm(x, layer["norm2"])
    gate = h @ layer["gate"]
    x = x + (gate / (1 + np.exp(-gate)) * (h @ layer["up"])) @ layer["down"]
    want = norm(x, params["norm"]["scale"]) @ params["embedding"].T
    got = jax.jit(model.apply)(params, jnp.array([tokens]))[0]
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_a_vision_transformer_by_hand():
    model = zoo.build("vit", widths=(4, 2, 3, 5, 6), layers=1, patch=2, classes=7, input_shape=(4, 2, 1))
    params = jax.tree.map(lambda leaf: draw(*leaf.shape, seed=leaf.size), jax.eval_shape(model.init, jax.random.key(0)))
    image = np.random.default_rng(0).random((4, 2, 1), dtype=np.float32)

    def norm(x, leaves):
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6) * leaves["scale"] + leaves[
            "bias"
        ]

    def dense(x, leaves, inputs=1):
        kernel = leaves["kernel"]
        return np.tensordot(x, kernel, inputs) + leaves["bias"].reshape((1, *leaves["bias"].shape))

    patches = image.reshape(2, 4).astype(np.float64)  # rows 0-1 and rows 2-3, pixel by pixel
    x = patches @ params["patch"]["kernel"].reshape(4, 4) + params["patch"]["bias"].reshape(1, 4) + params["positions"]
    layer = params["layer0"]
    h = norm(x, layer["norm1"])
    query, key, value = (dense(h, layer[name]) for name in ("query", "key", "value"))
    out = np.stack(
        [[softmax(key[:, head] @ query[t, head] / np.sqrt(3)) @ value[:, head] for head in range(2)] for t in range(2)]
    )
    x = x + dense(out, layer["out"], 2)
    h = dense(norm(x, layer["norm2"]), layer["up"])
    x = x + dense(np.asarray(jax.nn.gelu(h, approximate=False)), layer["down"])
    want = norm(x, params["norm"]).mean(0) @ params["fc"]["kernel"] + params["fc"]["bias"]
    got = jax.jit(model.apply)(params, image.reshape(1, 4, 2, 1))[0]
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name, kwargs, match",
    [
        ("decoder", {"layers": 2, "widths": (8,)}, "has 11 hidden layers"),
        ("decoder", {"layers": 1, "widths": (8, 1, 1, 3, 4, 4)}, "do not fit queries of width 3"),
        ("decoder", {"layers": 1, "widths": (8, 1, 1, 4, 4, 4), "pairs": ((0, 2),)}, "do not fit queries of width 4"),
        ("decoder", {"layers": 2, "widths": (8, *(1, 1, 4, 4, 4), *(1, 1, 2, 4, 4))}, r"widths \(4, 2\): say head_w"),
        ("decoder", {"input_shape": (4, 4)}, r"must be \(length,\), the number of tokens"),
        ("vit", {"patch": 5}, "not made of patches of 5x5 pixels"),
        ("vit", {"layers": 2, "widths": (8, *(1, 4, 4, 4), *(1, 2, 4, 4))}, "say head_width"),
    ],
)
def test_bad_builds(name, kwargs, match):
    with pytest.raises(ValueError, match=match):
        zoo.build(name, **kwargs)


def test_images_are_no_tokens():
    model = zoo.build("decoder", widths=(8, 1, 1, 4, 4, 4), layers=1, classes=5)
    with pytest.raises(ValueError, match=r"takes tokens \(n, length\), not \(2, 4, 4, 3\)"):
        model.apply({}, jnp.zeros((2, 4, 4, 3)))
    with pytest.raises(ValueError, match=r"takes images \(n, \*\(32, 32, 3\)\), not \(2, 4\)"):
        zoo.build("vit").apply_train({}, jnp.zeros((2, 4), int))
