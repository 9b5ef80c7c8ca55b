"""Dead members: channels that pruning or training left without any effect.

A member is a candidate when the kernels that make it, or those that read it, are all zero; its importance (see
`compressjax.scores.importance`) is then 0.  Removing one may leave others unmade or unread, so candidates are looked for
until there are none.  Whether a member without makers is dead depends on what lies between (``relu(0)`` is 0,
``sigmoid(0)`` is not; a bias is not either), so that every removal is tried on inputs and taken back if the results
change.  The chain's exact rule, which folds constants onward, is `remove_dead`.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from compressjax import scores, trees
from compressjax.channels._groups import Group
from compressjax.channels._net import Net, Tree
from compressjax.projections import producers, readers

Keep = dict[str, Bool[np.ndarray, " members"]]
Place = tuple[str, int]  # group and member


def dead(
    net: Net, params: Tree, *xs: Any, outputs: trees.Rules[int] | None = None, tolerance: float = 1e-6
) -> Keep:
    """Finds the members whose removal does not change the function.

    Args:
      net: The traced function.
      params: Parameters of the traced shapes, some of them zero.
      *xs: Inputs of the traced shapes on which removals are tried; random ones do.
      outputs: As for `compressjax.projections.producers`.
      tolerance: Largest relative change of the results (Frobenius) that counts as none.

    Returns:
      A keep set for `Net.shrink`: False for the dead.  One member of every group stays, and groups without both a
      making and a reading kernel stay whole.

    Raises:
      ValueError: If `params`, `xs` or `outputs` do not fit, or the function is not finite to begin with.

    >>> import jax.numpy as jnp
    >>> from compressjax import channels
    >>> params = {"a": jnp.array([[1.0, 0.0, 2.0]]), "b": jnp.array([[1.0], [5.0], [0.0]])}
    >>> f = lambda p, x: jax.nn.relu(x @ p["a"]) @ p["b"]
    >>> channels.dead(channels.trace(f, params, jnp.ones((2, 1))), params, jnp.ones((2, 1)))["g0"].tolist()
    [True, False, False]
    """
    params = jax.tree.map(jnp.asarray, params)
    if outputs:
        trees.assign(outputs, params)
    groups = [group for group in net.groups if _two_sided(group, params, outputs)]
    forward = jax.jit(net.replay({}))
    before = _results(forward, params, xs)
    if not all(np.isfinite(result).all() for result in before):
        raise ValueError("The function gives infinite or nan values before anything is removed.")

    def harmless(keep: Keep) -> bool:
        after = _results(forward, net.mask(params, keep), xs)
        gap = sum(float(np.linalg.norm(a - b)) ** 2 for a, b in zip(after, before, strict=True))
        size = sum(float(np.linalg.norm(b)) ** 2 for b in before)
        return bool(gap <= tolerance**2 * size)

    keep: Keep = {group.name: np.ones(group.size, bool) for group in net.groups}
    refused: set[Place] = set()
    while True:
        found = scores.importance(net.mask(params, keep), groups, outputs=outputs)
        places = [place for place in _candidates(found, keep) if place not in refused]
        if not places:
            return keep
        keep, wrong = _remove(keep, places, harmless)
        refused |= wrong


def _candidates(importance: Mapping[str, Any], keep: Keep) -> Iterator[Place]:
    """Members of importance 0 that are still there; one member of every group is left out."""
    for name, values in importance.items():
        idle = (np.asarray(values) == 0) & keep[name]
        members = np.flatnonzero(idle).tolist()
        yield from ((name, member) for member in (members if idle.sum() < keep[name].sum() else members[1:]))


def _remove(keep: Keep, places: list[Place], harmless: Callable[[Keep], bool]) -> tuple[Keep, set[Place]]:
    """Removes what can go without harm, by halving what cannot go together; also returns what cannot go."""
    trial = {name: vector.copy() for name, vector in keep.items()}
    for name, member in places:
        trial[name][member] = False
    if harmless(trial):
        return trial, set()
    if len(places) == 1:
        return keep, set(places)
    middle = len(places) // 2
    keep, first = _remove(keep, places[:middle], harmless)
    keep, second = _remove(keep, places[middle:], harmless)
    return keep, first | second


def _two_sided(group: Group, params: Tree, outputs: trees.Rules[int] | None) -> bool:
    try:
        producers([group], params, outputs=outputs)
        readers([group], params, outputs=outputs)
    except ValueError:
        return False
    return True


def _results(forward: Callable[..., Any], params: Tree, xs: tuple[Any, ...]) -> list[np.ndarray]:
    return [np.asarray(result, np.float64) for result in jax.tree.leaves(forward(params, *xs))]
