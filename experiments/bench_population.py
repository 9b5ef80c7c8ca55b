"""Populations of masked networks: one program for all members, against one call per member.

Part of `experiments.bench`.
"""

from typing import Any

from experiments.timing import Row, compare, interleaved

KEPT = 0.6  # share of the channels that a member keeps
DIFFERENT = 8  # first-layer masks among the members of the population that shares them


def population(repeats: int, small: bool = False) -> list[Row]:
    """Accuracy of 64 masked LeNet-5 on 500 images, weights shared.

    The base is a Python loop over members that calls one jitted function with a member's masks, so that nothing is
    compiled anew there either.
    """
    import jax
    import jax.numpy as jnp
    import numpy as np

    from compressjax import channels, search

    members, images = (4, 8) if small else (64, 500)
    rng = np.random.default_rng(0)
    model, params, x, labels = lenet5(images, rng)
    net = channels.trace(model.apply, params, x)
    first = net.groups[0].name

    def random_keeps() -> list[dict[str, np.ndarray]]:
        return [{g.name: rng.random(g.size) < KEPT for g in net.groups} for _ in range(members)]

    keeps = random_keeps()
    shared_keeps = [keep | {first: keeps[i % DIFFERENT][first]} for i, keep in enumerate(random_keeps())]
    masks, shared_masks = search.stack_keeps(net, keeps), search.stack_keeps(net, shared_keeps)
    slots = jax.tree.map(jnp.asarray, search.stack_slots(net, keeps))
    replay = channels.masked_replay(net)
    apply = jax.jit(lambda p, x, labels: search.accuracy(model.apply(p, x), labels))
    one = jax.jit(lambda p, m, x, labels: search.accuracy(replay(p, m, x), labels))
    together = jax.jit(search.population_accuracy(net, chunk=1))
    side_by_side = jax.jit(search.population_accuracy(net, chunk=min(8, members)))

    def each(masks: dict[str, Any]) -> list[dict[str, Any]]:
        return [{name: jnp.asarray(mask[i]) for name, mask in masks.items()} for i in range(members)]

    rows, shared_rows = each(masks), each(shared_masks)
    rest, shared = search.share(shared_masks, [first])
    everything = {name: jnp.asarray(mask) for name, mask in masks.items()}
    found = interleaved(
        {
            "member by member": lambda: [float(one(params, row, x, labels)) for row in rows],
            "parameters masked": lambda: [float(apply(net.mask(params, keep), x, labels)) for keep in keeps],
            "map": lambda: jax.block_until_ready(together(params, everything, x, labels)),
            "slots": lambda: jax.block_until_ready(together(params, slots, x, labels)),
            "side by side": lambda: jax.block_until_ready(side_by_side(params, everything, x, labels)),
            "shared, member by member": lambda: [float(one(params, row, x, labels)) for row in shared_rows],
            "shared": lambda: jax.block_until_ready(together(params, rest, x, labels, shared)),
        },
        max(1, repeats // 3),
    )
    base, shared_base = found["member by member"], found["shared, member by member"]
    whole = f"{members} masked LeNet-5, {images} images"
    return [
        compare("population", f"{whole}: in one program to one call each", found["map"], base, None),
        compare(
            "population",
            f"{whole}: gathered into slots to one call each",
            found["slots"],
            base,
            None if small else 0.5,
        ),
        compare("population", f"{whole}: 8 side by side to one call each", found["side by side"], base, None),
        compare("population", f"{whole}: parameters masked on the host", found["parameters masked"], base, None),
        compare(
            "population",
            f"{whole}: {min(DIFFERENT, members)} masks of conv1 shared",
            found["shared"],
            shared_base,
            None if small else 0.5,
        ),
    ]


def lenet5(images: int, rng: Any) -> tuple[Any, Any, Any, Any]:
    """The network, untrained weights, and random images with labels, which cost what real ones do."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from compressjax import zoo

    model = zoo.build("lenet5")
    x = jnp.asarray(rng.random((images, 28, 28, 1), np.float32))
    return model, model.init(jax.random.key(0)), x, jnp.asarray(rng.integers(0, 10, images, np.int32))
