"""Remove half of a small ResNet's channels, retrain it shortly, and compare what both networks cost.

    python docs/examples/shrink_resnet.py

Masks save nothing by themselves. Here channels are taken out: the result is the same network with smaller arrays.
Images are digits of 14 x 14 pixels, so that a processor trains it in seconds.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from compressjax import channels, cost, data, scores, search, zoo


def small(images):
    """Digits at half the resolution, in [0, 1]."""
    return images.reshape(-1, 14, 2, 14, 2, 1).mean((2, 4), dtype=np.float32) / 255


def fit(model, params, images, labels, epochs, batch=115):
    """Trains; the running statistics of batch normalization are leaves like any other, so they are updated apart."""
    steps = epochs * (len(labels) // batch)
    optimizer = optax.masked(optax.adam(optax.cosine_decay_schedule(1e-2, steps)), zoo.trainable(params))

    @jax.jit
    def step(params, state, images, labels):
        def loss(params):
            logits, statistics = model.apply_train(params, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), statistics

        gradients, statistics = jax.grad(loss, has_aux=True)(params)
        updates, state = optimizer.update(gradients, state, params)
        return zoo.update_statistics(optax.apply_updates(params, updates), statistics), state

    state, sampler = optimizer.init(params), data.Sampler(len(labels), batch_size=batch, seed=0)
    for number in range(steps):
        rows = sampler.indices(number)
        params, state = step(params, state, images[rows], labels[rows])
    return params


def main() -> dict[str, float]:
    """Trains, cuts, retrains and compares."""
    digits = data.load("digits")
    images, labels = small(digits.train.images), digits.train.labels
    model = zoo.build("resnet20", blocks=(1, 1, 1), input_shape=(14, 14, 1))
    params = fit(model, model.init(jax.random.key(0)), images, labels, epochs=4)

    # 1. Which channels can only go together? Read from the traced program; residual streams need no annotation.
    net = channels.trace(model.apply, params, images[:1])

    # 2. What the network costs at any widths, from the same program: multiply-adds here, a platform's time elsewhere.
    at = cost.of_widths(net, cost.layers(model.apply, params, images[:1]))

    def macs(widths):
        return jnp.sum(cost.macs(at(widths)))

    # 3. Half of the multiply-adds, the least important channels first; the share is found by bisection.
    ranked = scores.importance(params, net.groups)
    keep = search.at_cost(lambda share: channels.allocate(net.groups, ranked, share), macs, float(macs({})) / 2)
    cut = net.shrink(params, keep)
    narrow = model.like(cut.params, cut.kept)  # the same module with smaller widths

    # 4. The law of the library: the smaller network computes what the masked one computes.
    wide, thin, batch = jax.jit(model.apply), jax.jit(narrow.apply), images[:360]
    error = float(jnp.abs(thin(cut.params, batch) - wide(net.mask(params, keep), batch)).max())

    # 5. New statistics of batch normalization, then a short retraining.
    again = fit(narrow, zoo.reestimate(narrow.apply_train, cut.params, [images]), images, labels, epochs=2)

    # 6. What it really costs, the two networks taking turns on this machine; the test split is read once.
    before, after = cost.take_turns([lambda: wide(params, batch), lambda: thin(again, batch)], repeats=9)

    test = digits.test()

    def entries(params):
        return sum(map(np.size, jax.tree.leaves(params)))

    def accuracy(forward, params):
        return float((forward(params, small(test.images)).argmax(-1) == test.labels).mean())

    return {
        "groups of channels": len(net.groups),
        "masked against cut, largest difference": error,
        "multiply-adds, times fewer": float(macs({}) / cost.macs(cost.layers(narrow.apply, again, batch[:1])).sum()),
        "parameters, times fewer": sum(map(np.size, jax.tree.leaves(params)))
        / sum(map(np.size, jax.tree.leaves(again))),
        "measured time, times less": before.median / after.median,
        "dense test accuracy": accuracy(wide, params),
        "test accuracy": accuracy(thin, again),
    }


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value:.3g}")
