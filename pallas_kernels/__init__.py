"""Sparse and low-bit matrix products: Pallas kernels, their references, and the choice of one by backend.

This package knows arrays, not models: it imports JAX only, and `compressjax.runtime` is its one client in the library.
No kernel is implemented yet, and nothing is exported.
"""

__all__: list[str] = []
