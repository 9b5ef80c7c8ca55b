"""How many channels should each layer keep? Let an evolution strategy find out, within a budget, and check it.

    python docs/examples/search_amounts.py

Candidates are masked, not cut, and masks are data: one compiled program judges a whole population. The control that a
search has to beat is the same share everywhere, and luck: as many random candidates.
"""

import jax
import jax.numpy as jnp
import optax
from evosax.algorithms import CMA_ES

from compressjax import channels, cost, data, scores, search, zoo

BUDGET = 0.25  # of the multiply-adds
POPULATION, GENERATIONS = 8, 8


def fit(model, params, images, labels, steps):
    """Trains on all images at once."""
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(params, state):
        def loss(params):
            return optax.softmax_cross_entropy_with_integer_labels(model.apply(params, images), labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state)
    return params


def main() -> dict[str, float]:
    """Trains, searches three ways, cuts and retrains what was found."""
    digits = data.load("digits")
    images, labels = digits.train.images / 255.0, digits.train.labels
    valid, answers = digits.validation.images / 255.0, digits.validation.labels
    model = zoo.build("lenet300", widths=(120, 60))
    params = fit(model, model.init(jax.random.key(0)), images, labels, steps=60)

    net = channels.trace(model.apply, params, valid)
    at = cost.of_widths(net, cost.layers(model.apply, params, valid))
    sizes = {group.name: group.size for group in net.groups}
    # A channel's place in its group, the most important first: keeping n of them is the mask `place < n`.
    ranked = scores.importance(params, net.groups)
    place = {name: jnp.argsort(jnp.argsort(-jnp.asarray(score))) for name, score in ranked.items()}

    # 1. The space: one ratio per group. 2. The price of a design, in multiply-adds of the dense network.
    space = search.Space({"ratio": search.Float(0.05, 1.0, size=len(sizes))})

    def widths(design):
        return {name: jnp.round(design["ratio"][i] * size) for i, (name, size) in enumerate(sizes.items())}

    @jax.jit
    def price(design):
        return cost.macs(at(widths(design))).sum() / cost.macs(at({})).sum()

    # 3. The judge: validation error of all masked networks of a generation, in one call.
    judge = search.population_accuracy(net)

    @jax.jit
    def error(designs, key):
        masks = jax.vmap(lambda d: {name: (place[name] < n) * 1.0 for name, n in widths(d).items()})(designs)
        return 1 - judge(params, masks, valid, answers)

    # 4. The repair scales every candidate into the budget; 5. the driver runs the circle.
    repair = search.to_budget(space, price, BUDGET)
    same = repair({"ratio": jnp.ones(len(sizes))})
    ways = {
        "CMA-ES": search.strategy(CMA_ES, space, POPULATION),
        "random search": search.random_search(space, POPULATION),
    }
    found = {"the same share": same}
    for name, strategy in ways.items():
        driver = search.Driver(space, strategy, error, repair=repair, cost=price)
        found[name] = search.minimize(driver, jax.random.key(1), GENERATIONS, same).design

    # 6. Cut each winner out, retrain it shortly; the test split is read once, at the end.
    test, result = digits.test(), {}
    for name, design in found.items():
        left = {group: int(n) for group, n in widths(design).items()}
        cut = net.shrink(params, {group: jax.device_get(place[group] < n) for group, n in left.items()})
        narrow = model.like(cut.params, cut.kept)
        tuned = fit(narrow, cut.params, images, labels, steps=20)
        correct = (jax.jit(narrow.apply)(tuned, test.images / 255.0).argmax(-1) == test.labels).mean()
        result |= {
            f"{name}: widths": list(left.values()),
            f"{name}: share of the multiply-adds": float(price(design)),
            f"{name}: masked validation error": float(error(jax.tree.map(lambda x: x[None], design), None)[0]),
            f"{name}: test accuracy": float(correct),
        }
    return result


if __name__ == "__main__":
    for name, value in main().items():
        print(f"{name}: {value if isinstance(value, list) else round(value, 4)}")
