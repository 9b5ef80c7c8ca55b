"""The constraint protocol: a closed set of tensors with an exact Euclidean projection."""

from typing import Protocol, runtime_checkable

from jaxtyping import Array, Bool, Float


@runtime_checkable
class Constraint(Protocol):
    """A closed set S of tensors.  Instances are frozen dataclasses: static, hashable, without arrays.

    All methods are pure, keep shape and dtype, and work under `jax.jit` and `jax.vmap`.  They raise `ValueError` at
    trace time when the set does not fit the tensor's shape (a budget larger than the layer, a block that does not
    divide it).
    """

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """The point of S nearest to `x`: argmin_{z in S} ||x - z||_2.  Ties are broken by index, lowest first."""
        ...

    def contains(self, x: Float[Array, "..."]) -> Bool[Array, ""]:
        """Whether `x` lies in S."""
        ...

    def support(self, x: Float[Array, "..."]) -> Bool[Array, "..."]:
        """The entries that `project` leaves free to be non-zero: the mask for masked retraining."""
        ...


@runtime_checkable
class Quantizer(Constraint, Protocol):
    """A constraint on the values of the non-zero entries: they take few *levels*, chosen anew for each tensor.

    Zeros are pruned weights: they are members of every level set, play no part in the fit and stay exactly zero.  So
    `project` is the nearest point among the tensors with the zeros of `x`; only a quantizer that says so (`Ternary`)
    may add zeros.  ``project(x) == snap(x, fit(x))``.
    """

    def fit(self, x: Float[Array, "..."]) -> Float[Array, "levels"]:
        """The level values chosen for `x`: sorted, non-zero, of static number, in the dtype of `x`."""
        ...

    def snap(self, x: Float[Array, "..."], levels: Float[Array, "levels"]) -> Float[Array, "..."]:
        """Every non-zero entry of `x` at its nearest level; shape and dtype stay."""
        ...
