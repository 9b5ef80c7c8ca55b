"""A population of masked networks: one set of weights, many keep sets, one compiled program.

    accuracy_i = mean_n [argmax f(w, m_i, x_n) == y_n]        i = 1 .. population

Masks multiply what the readers of a group read (`compressjax.channels.masked_replay`), so they are data: a new
population compiles nothing, and everything before the first mask runs once for all members.  On a CPU the members are a
loop (`lax.map`), because the batched convolutions of `vmap` are slower there; on an accelerator they run side by side.

Members that agree in some groups can share more: `share` finds the different masks of these groups, and what depends on
them alone runs once for each.

Masks compute what they remove.  `stack_slots` gathers what every member keeps instead, so that the program has the size
of the largest member; the smaller the networks, the more that saves.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from compressjax.channels import Net, Shared, Slots, population_replay
from compressjax.trees import in_chunks

Params = Any
Masks = Mapping[str, Float[Any, "population size"]]


def accuracy(logits: Float[Any, "samples classes"], labels: Int[Any, " samples"]) -> Float[Array, ""]:
    """Share of samples whose label has the largest logit.

    Args:
      logits: (samples, classes).
      labels: Class numbers.

    Returns:
      In [0, 1], float32.

    >>> accuracy(jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([1, 1]))
    Array(0.5, dtype=float32)
    """
    return jnp.mean(jnp.argmax(logits, axis=-1) == labels, dtype=jnp.float32)


def population_accuracy(
    network: Net | Callable[[Params, Mapping[str, Any], Any], Any],
    *,
    metric: Callable[[Any, Any], Any] = accuracy,
    chunk: int | None = None,
) -> Callable[..., Any]:
    """Accuracy of one set of weights under every mask of a population.

    Args:
      network: A net traced on ``(params, x)`` with a batch of the size that is evaluated; or a function
        ``apply(params, masks, x)`` that takes one member's masks and multiplies activations by them itself.
      metric: (logits, labels) -> one number per member, or a tree of them.
      chunk: Members computed side by side; 1 is a loop.  By default 1 on a CPU, all on an accelerator.

    Returns:
      Pure ``evaluate(params, masks, x, labels, shared=None)``: `masks` is a dictionary from group name to (population,
      size) floats, 1 where a member stays, or for a net what `stack_slots` gives; the result is what `metric` gives,
      with the population in front.  Jit it, with weights and batch as arguments, and use it for every population of one
      size.  `shared`, for a net only, comes from `share`.

    Raises:
      ValueError: If `chunk` is no whole number of 1 or more; when called, if masks, weights or batch do not fit.

    >>> import jax
    >>> from compressjax import channels
    >>> params = {"a": jnp.eye(2), "b": jnp.eye(2)}
    >>> x, labels = jnp.array([[3.0, 1.0], [0.0, 2.0]]), jnp.array([0, 1])
    >>> net = channels.trace(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], params, x)
    >>> evaluate = jax.jit(population_accuracy(net))
    >>> evaluate(params, {"g0": jnp.array([[1.0, 1.0], [0.0, 1.0]])}, x, labels)
    Array([1. , 0.5], dtype=float32)
    """
    vmap = in_chunks(chunk)

    def evaluate(params: Params, masks: Masks | Slots, x: Any, labels: Any, shared: Shared | None = None) -> Any:
        _check_population(masks.filled if isinstance(masks, Slots) else masks, shared)

        def summary(logits: Any) -> Any:
            return metric(logits, labels)

        if isinstance(network, Net):
            return population_replay(network, chunk=chunk, summary=summary)(params, masks, x, shared=shared)
        if shared is not None:
            raise ValueError("shared masks need a traced net, which knows what depends on them: leave them out.")
        if isinstance(masks, Slots):
            raise ValueError("Slots need a traced net, which knows what to gather: give masks.")

        def member(one: Mapping[str, Any]) -> Any:
            return summary(network(params, one, x))

        return vmap(member)(dict(masks))

    return evaluate


def _check_population(masks: Masks, shared: Shared | None) -> None:
    counts = {name: np.shape(mask)[:1] for name, mask in masks.items()}
    if shared is not None:
        counts["shared.which"] = np.shape(shared.which)
    if len(set(counts.values())) != 1 or next(iter(counts.values())) in ((), (0,)):
        raise ValueError(f"The masks have no common population of at least 1: {counts or 'there are none'}.")


def stack_keeps(net: Net, keeps: Sequence[Mapping[str, Any]]) -> dict[str, Float[np.ndarray, "population size"]]:
    """Keep sets as the masks of a population.

    Args:
      net: The traced function.
      keeps: One keep set per member: group name to Boolean vector; a missing group stays whole.

    Returns:
      Group name to (population, size), float32.

    Raises:
      ValueError: If there is no keep set, or one does not fit.

    >>> import jax
    >>> from compressjax import channels
    >>> params = {"a": jnp.eye(2), "b": jnp.eye(2)}
    >>> net = channels.trace(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], params, jnp.ones((1, 2)))
    >>> stack_keeps(net, [{}, {"g0": np.array([False, True])}])["g0"].tolist()
    [[1.0, 1.0], [0.0, 1.0]]
    """
    complete = [net.keep(keep) for keep in keeps]
    if not complete:
        raise ValueError("There is no keep set: a population has at least one member.")
    return {group.name: np.stack([keep[group.name] for keep in complete]).astype(np.float32) for group in net.groups}


def stack_slots(net: Net, keeps: Sequence[Mapping[str, Any]], *, parts: int = 8) -> Slots:
    """Keep sets as the slots of a population: every network at the size of the largest.

    The number of slots of a group is the largest number of kept members, rounded up to a `parts`-th of the group and to
    a multiple of four, so that a search with changing widths compiles few programs, and vector units are full.  A group
    that would need all its slots has masks instead.

    Args:
      net: The traced function.
      keeps: One keep set per member: group name to Boolean vector; a missing group stays whole.
      parts: Steps in which the number of slots of a group grows.

    Returns:
      The slots, for what `population_accuracy` returns.

    Raises:
      ValueError: If there is no keep set, one does not fit, or `parts` is below 1.

    >>> import jax
    >>> from compressjax import channels
    >>> params = {"a": jnp.eye(8), "b": jnp.eye(8)}
    >>> net = channels.trace(lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"], params, jnp.ones((1, 8)))
    >>> slots = stack_slots(net, [{"g0": np.arange(8) % 3 == 1}, {"g0": np.arange(8) < 2}])
    >>> slots.members["g0"].tolist(), slots.filled["g0"].tolist()
    ([[1, 4, 7, 0], [0, 1, 2, 3]], [[1.0, 1.0, 1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    """
    if isinstance(parts, bool) or int(parts) != parts or parts < 1:
        raise ValueError(f"parts={parts} must be a whole number from 1: in how many steps the number of slots grows.")
    members, filled = {}, {}
    for name, mask in stack_keeps(net, keeps).items():
        size, most = mask.shape[1], int(mask.sum(axis=1).max())
        step = 4 * -(-size // (4 * parts))
        width = -(-most // step) * step
        if width < size:
            order = np.argsort(-mask, axis=1, kind="stable")[:, :width]
            members[name] = order.astype(np.int32)
            mask = np.take_along_axis(mask, order, axis=1)
        filled[name] = mask
    return Slots(members, filled)


def share(masks: Masks, groups: Sequence[str]) -> tuple[dict[str, Any], Shared]:
    """Splits off the masks of some groups, each different combination once.

    Works on the host.  The number of different combinations is filled up to a power of two by repeating the last, so
    that a search compiles few programs.

    Args:
      masks: Group name to (population, size).
      groups: Groups to share, those that come first in the network, and in which members agree most.

    Returns:
      The masks of the other groups, and the shared ones: the second and the last argument of what
      `population_accuracy` returns.

    Raises:
      ValueError: If `groups` is empty or names a group without masks.

    >>> masks = {"g0": np.array([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]]), "g1": np.ones((3, 4))}
    >>> rest, shared = share(masks, ["g0"])
    >>> list(rest), shared.masks["g0"].tolist(), shared.which.tolist()
    (['g1'], [[1.0, 0.0], [1.0, 1.0]], [0, 1, 0])
    """
    if isinstance(groups, str) or not groups:
        raise ValueError(f"groups is {groups!r}: give a sequence of at least one group name.")
    for name in groups:
        if name not in masks:
            raise ValueError(f"groups names {name!r}, which has no masks; there are masks for {', '.join(masks)}.")
    arrays = [np.asarray(masks[name]) for name in groups]
    rows, which = np.unique(np.concatenate(arrays, axis=1), axis=0, return_inverse=True)
    size = 1 << (len(rows) - 1).bit_length()
    rows = np.concatenate([rows, np.repeat(rows[-1:], size - len(rows), axis=0)])
    pieces = np.split(rows, np.cumsum([array.shape[1] for array in arrays])[:-1], axis=1)
    rest = {name: mask for name, mask in masks.items() if name not in groups}
    first = {name: jnp.asarray(piece, jnp.float32) for name, piece in zip(groups, pieces, strict=True)}
    return rest, Shared(first, jnp.asarray(which.reshape(-1), jnp.int32))
