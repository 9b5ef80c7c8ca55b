"""Trained residual networks for CIFAR-10.

The weights are those of Y. Idelbayev, "Proper ResNet implementation for CIFAR10/CIFAR100 in PyTorch" (BSD 2-clause,
Copyright (c) 2018 Yerlan Idelbayev), one array per parameter in an ``.npz`` file under PyTorch's names and layout.
They are not part of this library: put ``resnet20_cifar10.npz`` and so on into a folder ``weights``.
"""

import hashlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import ArrayLike

from compressjax.data._files import ENVIRONMENT, search_folders
from compressjax.interop._torch import from_torch
from compressjax.zoo import Model, build

_SHA256: Mapping[str, str] = MappingProxyType(
    {
        "resnet20": "b051f6bacfb75bf35e0a690fb7c1cfaeb64304b729b751b886b2f810d6321516",
        "resnet32": "efebe53ee9fe7aad7e5b486862d4a215bd8b637c33c3ab2dbf6bdd342cb874d2",
        "resnet44": "9c4837604ad50adee9ec72ad7d00efe18cc131c39393fc3cd4acaf30b79a2068",
        "resnet56": "32e304c2347f05a65f2d5948f645843085c9bd9071d84e57e11f9622966ece0a",
    }
)
_TOP = {"conv1": "conv0", "bn1": "norm0", "linear": "fc"}


def _renamed(name: str) -> str:
    """A name of theirs to a name of ours: ``layer2.0.bn1.weight`` to ``stage2_block0.norm1.weight``."""
    parts = name.split(".")
    if parts[0].startswith("layer") and len(parts) > 2:
        stage = parts[0].removeprefix("layer")
        return ".".join([f"stage{stage}_block{parts[1]}", parts[2].replace("bn", "norm"), *parts[3:]])
    return ".".join([_TOP.get(parts[0], parts[0]), *parts[1:]])


def from_torch_resnet(weights: Mapping[str, ArrayLike]) -> dict[str, Any]:
    """Parameters of a CIFAR-10 ResNet from weights in PyTorch's names and layout.

    Args:
      weights: Name (``layer1.0.conv1.weight``, ``bn1.running_mean``, ``linear.bias``; a leading ``module.`` is dropped)
        to array.

    Returns:
      Parameters for ``zoo.build("resnet20")`` and its deeper kin.

    >>> from compressjax import trees
    >>> params = from_torch_resnet({"layer2.0.conv1.weight": np.zeros((32, 16, 3, 3)), "bn1.running_var": np.ones(16)})
    >>> trees.shapes(params)
    {'norm0/var': (16,), 'stage2_block0/conv1/kernel': (3, 3, 16, 32)}
    """
    return from_torch({_renamed(name.removeprefix("module.")): value for name, value in weights.items()})


def pretrained(name: str, *, root: str | os.PathLike[str] | None = None) -> tuple[Model, dict[str, Any]]:
    """A trained network of the zoo with its parameters.

    The file ``weights/{name}_cifar10.npz`` is looked for in `root`, then in ``$COMPRESSJAX_DATA``, then in the user's
    cache directory, and checked against its SHA-256.

    Args:
      name: ``"resnet20"``, ``"resnet32"``, ``"resnet44"`` or ``"resnet56"``.
      root: Folder that holds the folder ``weights``.

    Returns:
      The model, which takes images scaled to [0, 1] and standardizes them itself, and its parameters.

    Raises:
      ValueError: If no weights are known under this name, or the file is not the one that is meant.
      FileNotFoundError: If the file is in none of the folders.

    >>> pretrained("lenet5")
    Traceback (most recent call last):
    ...
    ValueError: There are no trained weights of 'lenet5'. Known: resnet20, resnet32, resnet44, resnet56.
    """
    if name not in _SHA256:
        raise ValueError(f"There are no trained weights of {name!r}. Known: {', '.join(_SHA256)}.")
    folders = search_folders("weights", root)
    paths = [folder / f"{name}_cifar10.npz" for folder in folders]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"The weights of {name} are not there; looked for {', '.join(map(str, paths)) or 'no file'}. Set "
            f"{ENVIRONMENT} (or `root`) to the folder above a folder 'weights' that holds {name}_cifar10.npz."
        )
    model = build(name)
    params = from_torch_resnet(_read(path, _SHA256[name]))
    return model, params


def _read(path: Path, sha256: str) -> dict[str, np.ndarray]:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ValueError(f"{path} is damaged or another file: its SHA-256 is not {sha256}. Fetch it again.")
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)
