"""Dead members: channels that pruning or training left without any effect.

A member is a candidate when the kernels that make it, or those that read it, are all zero.  Removing one may leave
others unmade or unread, so candidates are looked for until there are none.  An unmade member is the same number on
every input, but not always 0: behind a bias or a sigmoid it is another constant, which the readers need.  So every
removal is tried on inputs, and taken back if the results change; for unmade members also with random numbers in place
of their readers, so that a constant shows even where the present readers hide it.  The chain's exact rule, which folds
constants onward, is `remove_dead`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from compressjax import scores, trees
from compressjax.channels._groups import Group
from compressjax.channels._net import Net, Tree, wide
from compressjax.projections import output_axes, producers, readers

Keep = dict[str, Bool[np.ndarray, " members"]]
Place = tuple[str, int]  # group and member
# Of both signs and large: what follows the readers may let only one sign, and only large numbers, through.
_STRESS = (1.0, -1.0, 100.0, -100.0)


def dead(net: Net, params: Tree, *xs: Any, outputs: trees.Rules[int] | None = None, tolerance: float = 1e-6) -> Keep:
    """Finds the members whose removal changes nothing.

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
    output_axes(params, outputs)  # groups that lack a side are left out below; rules that do not fit are errors
    groups = [group for group in net.groups if _two_sided(group, params, outputs)]
    forward = jax.jit(net.replay({}))
    before = _results(forward, params, xs)
    if not all(np.isfinite(result).all() for result in before):
        raise ValueError("The function gives infinite or nan values before anything is removed.")

    def same(tree: Tree, reference: list[np.ndarray]) -> bool:
        after = _results(forward, tree, xs)
        gap = sum(float(np.linalg.norm(a - b)) ** 2 for a, b in zip(after, reference, strict=True))
        return gap <= tolerance**2 * sum(float(np.linalg.norm(b)) ** 2 for b in reference)

    keep: Keep = {group.name: np.ones(group.size, bool) for group in net.groups}
    refused: set[Place] = set()
    while True:
        masked = net.mask(params, keep)
        made = scores.l2(masked, producers(groups, masked, outputs=outputs)) if groups else {}
        read = scores.l2(masked, readers(groups, masked, outputs=outputs)) if groups else {}
        unmade = {name: np.asarray(values) == 0 for name, values in made.items()}
        unread = {name: np.asarray(values) == 0 for name, values in read.items()}
        idle = {name: (unmade[name] | unread[name]) & keep[name] for name in unmade}
        places = [place for place in _places(idle, keep) if place not in refused]
        if not places:
            return keep
        constant = {name: unmade[name] & ~unread[name] for name in unmade}

        def harmless(trial: Keep, masked: Tree = masked, constant: Keep = constant) -> bool:
            gone = {name: vector & ~trial[name] for name, vector in constant.items()}
            small = net.mask(masked, trial)
            return same(small, before) and all(
                same(small, _results(forward, _stressed(masked, groups, gone, outputs, scale), xs)) for scale in _STRESS
            )

        keep, wrong = _remove(keep, places, harmless)
        refused |= wrong


def _places(idle: Keep, keep: Keep) -> Iterator[Place]:
    """Idle members that are still there; one member of every group is left out."""
    for name, vector in idle.items():
        members = np.flatnonzero(vector).tolist()
        yield from ((name, member) for member in (members if vector.sum() < keep[name].sum() else members[1:]))


def _stressed(
    params: Tree, groups: Sequence[Group], gone: Keep, outputs: trees.Rules[int] | None, scale: float
) -> Tree:
    """The tree with random numbers, `scale` times as large as the leaf's others, where the given members are read."""
    rng = np.random.default_rng(0)
    leaves = {path: np.array(leaf) for path, leaf in trees.leaves(params).items()}
    changed = set()
    for group in readers(groups, params, outputs=outputs) if groups else ():
        for member in group.members:
            leaf = leaves[member.path]
            where = np.append(gone[group.name], False)[member.index]  # index -1: no member
            if where.any():
                at = (slice(None),) * member.axis + (where,)
                size = float(np.sqrt(np.mean(np.square(np.abs(leaf))))) or 1.0
                leaf[at] = scale * size * rng.standard_normal(leaf[at].shape)
                changed.add(member.path)
    return trees.update(params, {path: jnp.asarray(leaves[path]) for path in changed})


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
    return [wide(result) for result in jax.tree.leaves(forward(params, *xs))]
