"""Joint sparsity and quantization."""

from itertools import combinations

import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.projections import Both, Cardinality, Joint, LowRank
from compressjax.quantizers import Binary, Codebook, Levels


def test_keeps_what_gains_most_not_what_is_largest() -> None:
    # At level 1, storing 3 saves 5 and storing 1 saves 1; 0.4 costs more than it saves and goes, though it may stay.
    both = Both(Cardinality(3), Levels(1, scale=1.0))
    np.testing.assert_array_equal(both.project(jnp.array([3.0, -1.0, 0.4, 0.3])), [1, -1, 0, 0])


def test_close_to_the_best_of_all_choices() -> None:
    rng = np.random.default_rng(0)
    for _ in range(5):
        x = rng.standard_normal(7).astype(np.float32)
        best = np.inf
        for k in (1, 2, 3):
            for kept in combinations(range(7), k):
                inside = np.isin(np.arange(7), kept)
                z = np.where(inside, np.sign(x) * np.abs(x[inside]).mean(), 0)
                best = min(best, float(np.sum((x - z) ** 2)))
        z = np.asarray(Both(Cardinality(3), Binary()).project(jnp.asarray(x)))
        assert np.sum((x - z) ** 2) <= best * 1.001


def test_never_worse_than_one_set_after_the_other() -> None:
    rng = np.random.default_rng(1)
    for _ in range(3):
        x = jnp.asarray(rng.standard_normal((6, 8)), jnp.float32)
        plain = Codebook(2).project(Cardinality(20).project(x))
        both = Both(Cardinality(20), Codebook(2)).project(x)
        assert float(jnp.sum((x - both) ** 2)) <= float(jnp.sum((x - plain) ** 2)) * (1 + 1e-6)


def test_support_is_what_the_projection_keeps() -> None:
    x = jnp.array([3.0, -1.0, 0.4, 0.3])
    np.testing.assert_array_equal(Both(Cardinality(3), Levels(1, scale=1.0)).support(x), [True, True, False, False])


@pytest.mark.parametrize(
    "sparsity", [LowRank(1), Joint(Cardinality(1)), Binary(), Both(Cardinality(1), Binary())], ids=str
)
def test_the_first_set_must_select_entries(sparsity) -> None:
    with pytest.raises(ValueError, match="does not select entries"):
        Both(sparsity, Binary())


def test_the_second_set_must_be_a_quantizer() -> None:
    # The annotation says so too; the tests check annotations at run time, users may not.
    with pytest.raises((ValueError, TypeError), match=r"is no quantizer|Quantizer"):
        Both(Cardinality(1), Cardinality(1))  # type: ignore[arg-type]
