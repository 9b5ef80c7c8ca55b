"""Low rank: the truncated singular value decomposition, and what counts as a member."""

import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.projections import LowRank


def test_error_is_the_energy_of_the_removed_singular_values() -> None:
    x = np.random.default_rng(0).standard_normal((9, 5)).astype(np.float32)
    z = np.asarray(LowRank(2).project(jnp.asarray(x)))
    s = np.linalg.svd(x, compute_uv=False)
    np.testing.assert_allclose(np.linalg.norm(x - z), np.linalg.norm(s[2:]), rtol=1e-5)
    assert np.linalg.matrix_rank(z, tol=1e-4) == 2


def test_convolutions_are_read_as_matrices_of_filters() -> None:
    x = np.random.default_rng(0).standard_normal((3, 3, 2, 4)).astype(np.float32)
    z = LowRank(1).project(jnp.asarray(x))
    np.testing.assert_array_equal(z.reshape(18, 4), LowRank(1).project(jnp.asarray(x.reshape(18, 4))))


def test_full_rank_is_everything() -> None:
    x = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)
    np.testing.assert_array_equal(LowRank(3).project(x), x)
    assert bool(LowRank(3).contains(x))
    assert not bool(LowRank(2).contains(x))


@pytest.mark.parametrize("rank", [0, -1, True])
def test_bad_rank(rank) -> None:
    with pytest.raises(ValueError, match="must be an int of at least 1"):
        LowRank(rank)


def test_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="exceeds the smaller side"):
        LowRank(4).project(jnp.ones((3, 5)))
    with pytest.raises(ValueError, match="at least 2 dimensions"):
        LowRank(1).support(jnp.ones(3))
