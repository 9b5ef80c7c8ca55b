"""Parameters with every kind of structure, and the rules that gave it to them."""

import jax.numpy as jnp
import numpy as np

from compressjax import projections as p
from compressjax import quantizers as q
from compressjax.runtime import As


def weights(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


# Rule, and shape of a leaf it is for.
CONSTRAINTS = {
    "tiles": (p.Block((4, 2), 0.3), (12, 8)),
    "punched kernel": (p.BlockPunched((2, 4), 0.3), (3, 3, 4, 8)),
    "punched matrix": (p.BlockPunched((2, 4), 0.3), (4, 8)),
    "block rows": (p.BlockRows(4, 0.3), (3, 3, 2, 8)),
    "block columns": (p.BlockColumns(2, 0.3), (3, 3, 2, 8)),
    "filters": (p.Filters(3), (3, 3, 2, 8)),
    "channels": (p.Channels(2), (3, 3, 4, 8)),
    "columns": (p.Columns(7), (3, 3, 4, 8)),
    "2:4": (p.NM(2, 4), (12, 8)),
    "1:4 kernel": (p.NM(1, 4), (3, 3, 4, 2)),
    "2:4 outputs": (p.NM(2, 4, axis=-1), (6, 8)),
    "single weights": (p.Cardinality(9), (12, 16)),
    "pattern": (p.Pattern(), (3, 3, 4, 4)),
    "even levels": (q.Levels(3), (6, 5)),
    "even levels of an odd matrix": (q.Levels(3), (5, 5)),
    "many levels": (q.Levels(7), (40, 30)),
    "powers of two": (q.PowerOfTwo(3), (6, 5)),
    "codebook": (q.Codebook(3), (6, 5)),
    "binary": (q.Binary(), (6, 5)),
    "ternary": (q.Ternary(), (6, 5)),
    "tiles of levels": (p.Both(p.Block((8, 8), 0.25), q.Levels(3)), (32, 32)),
    "few weights of levels": (p.Both(p.Cardinality(5), q.Levels(3)), (32, 32)),
    "shared budget": (p.Joint(p.Cardinality(20)), (12, 8)),
}


def member(name, dtype=jnp.float32):
    """A leaf that keeps to the rule of this name."""
    rule, shape = CONSTRAINTS[name]
    leaf = jnp.asarray(weights(*shape), dtype)
    if isinstance(rule, p.Both):  # not the nearest point, but a member, and soon compiled
        return rule.levels.project(rule.sparsity.project(leaf))
    return rule.project(leaf)


FORMS = {
    "dense": As(),
    "blocks": As(block=(4, 3)),
    "ragged blocks": As(block=(5, 3)),
    "single weights": As(block=(1, 1)),
    "channels": As(channels=True),
    "half": As(nm=(2, 4)),
}


def params(seed=0):
    """A small plain network's parameters: a convolution, a dense layer, vectors."""
    draw = np.random.default_rng(seed)
    kernel = np.where((draw.random((3, 3, 2, 1)) < 0.4).repeat(2, 2), draw.normal(size=(3, 3, 4, 8)), 0)
    dense = np.where(np.arange(24)[:, None] % 4 < 2, draw.normal(size=(24, 10)), 0)
    f32 = np.float32
    return {
        "conv": {"kernel": kernel.astype(f32), "bias": draw.normal(size=8).astype(f32)},
        "fc": {"kernel": dense.astype(f32), "bias": draw.normal(size=10).astype(f32)},
    }
