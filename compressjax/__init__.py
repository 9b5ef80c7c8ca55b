"""Pruning, quantization and compact storage of neural networks in JAX.

The library is a house of rooms, each importable by itself::

    what is allowed         projections, quantizers     sets of tensors with exact Euclidean projections
    what matters            scores, masks               saliencies, and the masks a budget makes of them
    how training gets there training                    optax gradient transformations
    or calibration data     oneshot                     layer-wise solvers, streamed through a network
    what ships              storage                     bytes, and an account of every one of them
                            runtime                     packed networks that multiply in their packed form
    what it costs           cost                        counts from the jaxpr, modelled and measured platforms
    who decides             search                      designs within a budget
    around them             trees, channels, data, zoo, interop

Rooms are imported on first use, so that ``import compressjax`` costs nothing; only `zoo` and `interop` load Flax
(and evosax does, when a strategy of `search` is first used).

>>> import compressjax
>>> compressjax.trees.leaves({"fc": {"kernel": 1}})
{'fc/kernel': 1}
"""

import importlib
from types import ModuleType

__version__ = "0.1.0"

__all__ = [
    "channels",
    "cost",
    "data",
    "interop",
    "masks",
    "oneshot",
    "projections",
    "quantizers",
    "runtime",
    "scores",
    "search",
    "storage",
    "training",
    "trees",
    "zoo",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(f"compressjax has no room {name!r}; it has {', '.join(__all__)}.")
    return importlib.import_module(f"compressjax.{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
