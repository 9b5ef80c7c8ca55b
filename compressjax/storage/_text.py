"""The textual part of the header: leaf paths and metadata, deflated with a preset dictionary.

The text is the paths, one per line, then NUL, then the metadata as canonical JSON.  Deflate starts with a dictionary of
names common in small networks (part of the format version), so that the paths of a whole LeNet cost three bytes.
"""

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Meta = Mapping[str, Any]  # str, int, float or a sequence of int; checked by `_plain`
LONGEST_TEXT = 1 << 24  # bytes; an artefact that inflates to more is refused

_LENET300 = "fc1/bias\nfc1/kernel\nfc2/bias\nfc2/kernel\nfc3/bias\nfc3/kernel"
_LENET5 = "conv1/bias\nconv1/kernel\nconv2/bias\nconv2/kernel\nfc1/bias\nfc1/kernel\nfc2/bias\nfc2/kernel"
# Deflate finds the longest match and writes its distance from the end: the most useful strings come last.
_DICTIONARY = (
    "/embedding\n/scale\n/bias\n/kernel\nbatch_stats/BatchNorm_0/mean\nbatch_stats/BatchNorm_0/var\nparams/Dense_0/bias\n"
    "params/Conv_0/kernel\nlayers_0/block_0/norm/scale\nattention/query/key/value/out/mlp/\n"
    "conv3/bias\nconv3/kernel\nconv4/bias\nconv4/kernel\nconv5/bias\nconv5/kernel\nfc4/bias\nfc4/kernel"
    '"accuracy":0.99,"bits":2,"classes":10,"epochs":"name":"resnet20","seed":0,"step":"version":"vgg16"'
    '\0{"dataset":"cifar100","model":"{"dataset":"cifar10","model":"alexnet","widths":['
    '\0{"dataset":"digits","model":"lenet300","widths":[300,100]}'
    f'{_LENET300}\0{{"dataset":"fashion_mnist","model":"lenet300","widths":[300,100]}}'
    f'{_LENET5}\0{{"dataset":"digits","model":"lenet5","widths":[20,50,500]}}'
    f'{_LENET300}\0{{"dataset":"mnist","model":"lenet300","widths":['
    f'{_LENET5}\0{{"dataset":"mnist","model":"lenet5","widths":['
).encode()


def deflate(paths: Sequence[str], meta: Meta) -> bytes:
    """Paths and metadata as bytes.

    Raises:
      ValueError: For metadata other than str, int, finite float or list of int under str keys, or a path that the
        format cannot hold.
    """
    text = ("\n".join(paths) + "\0" + json.dumps(_plain(meta), sort_keys=True, separators=(",", ":"))).encode()
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"Paths and metadata take {len(text)} bytes, more than the {LONGEST_TEXT} an artefact allows.")
    coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
    return coder.compress(text) + coder.flush()


def inflate(data: bytes) -> tuple[list[str], dict[str, Any]]:
    """Inverse of `deflate`.

    Raises:
      ValueError: If the bytes are not what `deflate` writes.
    """
    coder = zlib.decompressobj(-zlib.MAX_WBITS, _DICTIONARY)
    try:
        text = coder.decompress(data, LONGEST_TEXT + 1)
        if len(text) > LONGEST_TEXT or not coder.eof or coder.unused_data:
            raise ValueError("wrong length")
        names, meta = text.decode().split("\0")
        decoded = _plain(json.loads(meta))
    except (ValueError, zlib.error, RecursionError) as error:
        raise ValueError(f"The artefact's names or metadata are damaged ({error}).") from error
    return names.split("\n") if names else [], decoded


def _plain(meta: Any) -> dict[str, Any]:
    """The metadata as plain Python values, checked."""
    if not isinstance(meta, Mapping):
        raise ValueError(f"Metadata must be a mapping of names to values, not {type(meta).__name__}.")
    for key in meta:
        if not isinstance(key, str):
            raise ValueError(f"Metadata key {key!r} is not a string: rename it.")
    return {key: _plain_value(key, value) for key, value in meta.items()}


def _plain_value(key: str, value: Any) -> Any:
    if isinstance(value, str | bool):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating) and math.isfinite(value):
        return float(value)
    if isinstance(value, list | tuple) and all(
        isinstance(item, int | np.integer) and not isinstance(item, bool) for item in value
    ):
        return [int(item) for item in value]
    raise ValueError(f"Metadata {key!r} must be a string, an integer, a finite float or a list of integers: {value!r}.")
