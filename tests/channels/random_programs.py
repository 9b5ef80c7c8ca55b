"""Random convolutional programs: what no one thought of."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from tests.channels.functions import conv

WIDTHS = (1, 2, 4, 6, 8, 12)


class Builder:
    """Draws steps ``x, earlier -> x`` on images (n, h, w, c) and the parameters they need."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.params, self.steps = {}, []
        self.width = 2

    def leaf(self, *shape):
        name = f"w{len(self.params)}"
        scale = np.sqrt(max(1, np.prod(shape[:-1])))
        self.params[name] = ((self.rng.random(shape) + 0.1) * self.rng.choice([-1, 1], shape) / scale).astype(
            np.float32
        )
        return name

    def draw(self):
        """One step; returns its function of (params, x) or None where it does not fit the width."""
        kind = str(self.rng.choice(sorted(name for name in dir(self) if name.startswith("step_"))))
        return getattr(self, kind)(self.width)

    def step_conv(self, c):
        self.width = int(self.rng.choice(WIDTHS))
        w = self.leaf(3, 3, c, self.width)
        return lambda p, x: conv(x, p[w])

    def step_depthwise(self, c):
        times = int(self.rng.choice([1, 2]))
        self.width = c * times
        w = self.leaf(3, 3, 1, self.width)
        return lambda p, x: conv(x, p[w], feature_group_count=c)

    def step_grouped(self, c):
        if c % 2:
            return None
        self.width = 2 * int(self.rng.choice([1, 2, 3]))
        w = self.leaf(1, 1, c // 2, self.width)
        return lambda p, x: conv(x, p[w], feature_group_count=2)

    def step_residual(self, c):
        a, b = self.leaf(1, 1, c, 4), self.leaf(3, 3, 4, c)
        return lambda p, x: x + conv(jax.nn.relu(conv(x, p[a])), p[b])

    def step_concat(self, c):
        w = self.leaf(1, 1, c, 4)
        self.width = c + 4
        return lambda p, x: jnp.concatenate([conv(x, p[w]), x], -1)

    def step_slice(self, c):
        if c < 3:
            return None
        self.width = c - 1
        return lambda p, x: x[..., 1:]

    def step_activation(self, c):
        choices = (jnp.tanh, jax.nn.relu, jax.nn.sigmoid, lambda x: jnp.exp(-jnp.abs(x)), jax.nn.silu)
        function = choices[int(self.rng.integers(len(choices)))]
        return lambda p, x: function(x)

    def step_softmax_over_space(self, c):
        return lambda p, x: jax.nn.softmax(x, (1, 2)) * x

    def step_batch_norm(self, c):
        mean, var, bias = self.leaf(c), self.leaf(c), self.leaf(c)

        def step(p, x):
            scale = lax.rsqrt(jnp.abs(p[var]) + 1e-3)
            return (x - jnp.broadcast_to(p[mean], x.shape)) * jnp.broadcast_to(scale, x.shape) + p[bias][
                None, None, None
            ]

        return step

    def step_rms_norm(self, c):
        return lambda p, x: x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-3)

    def step_gate(self, c):
        a, b = self.leaf(c, 3), self.leaf(3, c)
        return lambda p, x: x * jax.nn.sigmoid(jax.nn.relu(x.mean((1, 2)) @ p[a]) @ p[b])[:, None, None]

    def step_split_gate(self, c):
        if c % 2:
            return None
        self.width = c // 2
        return lambda p, x: x[..., : c // 2] * jnp.tanh(x[..., c // 2 :])

    def step_pad(self, c):
        self.width = c + 3
        return lambda p, x: jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 2)))

    def step_shuffle(self, c):
        if c % 2:
            return None
        return lambda p, x: jnp.swapaxes(x.reshape(*x.shape[:-1], 2, c // 2), -1, -2).reshape(x.shape)

    def step_group_mean(self, c):
        if c % 2:
            return None

        def step(p, x):
            y = x.reshape(*x.shape[:-1], 2, c // 2)
            return (y * lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + 1e-2)).reshape(x.shape)

        return step

    def step_roll(self, c):
        return lambda p, x: x + jnp.roll(x, 2, -1)

    def step_repeat(self, c):
        if c > 6:
            return None
        self.width = 2 * c
        return lambda p, x: jnp.repeat(x, 2, -1)

    def step_stride_pairs(self, c):
        if c % 2:
            return None
        self.width = c // 2
        return lambda p, x: x[..., ::2] * x[..., 1::2]

    def step_scan(self, c):
        w = self.leaf(2, c, c)
        return lambda p, x: lax.scan(lambda h, k: (jnp.tanh(h @ k) + h, None), x, p[w])[0]

    def step_attention(self, c):
        qkv, out = self.leaf(c, 24), self.leaf(8, c)

        def step(p, x):
            n, h, w, _ = x.shape
            q, k, v = jnp.split((x.reshape(n, h * w, c) @ p[qkv]).reshape(n, h * w, 3, 2, 4), 3, 2)
            weight = jax.nn.softmax(jnp.einsum("nqzhd,nkzhd->nhqk", q, k) / 2)
            y = jnp.einsum("nhqk,nkzhd->nqhd", weight, v).reshape(n, h, w, 8)
            return x + y @ p[out]

        return step


def random_program(seed, length=7):
    """A function, its parameters and its inputs."""
    build = Builder(seed)
    steps = [build.step_conv(2)]
    while len(steps) < length:
        width = build.width
        if width <= 16 and (step := build.draw()) is not None:
            steps.append(step)
        elif width > 16:
            steps.append(build.step_conv(width))
    head = build.leaf(9 * build.width, 3)

    def f(p, x):
        for step in steps:
            x = step(p, x)
        return x.reshape(len(x), -1) @ p[head]

    return f, build.params, (build.rng.standard_normal((2, 3, 3, 2)).astype(np.float32),)
