"""The textual part of the header: leaf paths and metadata, deflated with a preset dictionary.

The text is the paths, one per line, then NUL, then the metadata as canonical JSON.  Deflate starts with a dictionary of
names common in small networks (part of the format version), so that the paths of a whole LeNet cost three bytes.
Since version 2 a mark stands for every integer of the metadata, and the integers are range-coded: a few bits each
instead of a byte per digit.
"""

import json
import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Meta = Mapping[str, Any]  # str, int, float or a sequence of int; checked by `_plain`
_MARK = "\1"  # cannot occur in JSON, which escapes it
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


# The same with marks for integers; LeNets last.
_DICTIONARY_2 = (
    _DICTIONARY
    + (
        f'\0{{"blocks":[{_MARK},{_MARK},{_MARK}],"dataset":"cifar10","model":"resnet20","widths":['
        + ",".join([_MARK] * 22)
        + f']}}{_LENET300}\0{{"dataset":"mnist","model":"lenet300","widths":[{_MARK},{_MARK}]}}'
        f'{_LENET5}\0{{"dataset":"mnist","model":"lenet5","widths":[{_MARK},{_MARK},{_MARK}]}}'
    ).encode()
)


def deflate(paths: Sequence[str], meta: Meta) -> tuple[bytes, list[int]]:
    """Paths and metadata as bytes, and the integers to be coded beside.

    Raises:
      ValueError: For metadata other than str, int, finite float or list of int under str keys, or a path that the
        format cannot hold.
    """
    integers: list[int] = []
    text = "\n".join(paths) + "\0" + _marked(_plain(meta), integers)
    data = text.encode()
    if len(data) > LONGEST_TEXT:
        raise ValueError(f"Paths and metadata take {len(data)} bytes, more than the {LONGEST_TEXT} an artefact allows.")
    coder = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS, 9, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY_2)
    return coder.compress(data) + coder.flush(), integers


def inflate(data: bytes, version: int, number: Callable[[], int]) -> tuple[list[str], dict[str, Any]]:
    """Inverse of `deflate`, and of what version 1 wrote.

    Args:
      data: The bytes.
      version: Of the format.
      number: Gives the integers, one at a time.

    Raises:
      ValueError: If the bytes are not what `deflate` writes.
    """
    coder = zlib.decompressobj(-zlib.MAX_WBITS, _DICTIONARY if version == 1 else _DICTIONARY_2)
    try:
        text = coder.decompress(data, LONGEST_TEXT + 1)
        if len(text) > LONGEST_TEXT or not coder.eof or coder.unused_data:
            raise ValueError("wrong length")
        names, meta = text.decode().split("\0")
        first, *rest = meta.split(_MARK)
        meta = first + "".join(str(number()) + piece for piece in rest)
        decoded = _plain(json.loads(meta))
    except (ValueError, zlib.error, RecursionError) as error:
        raise ValueError(f"The artefact's names or metadata are damaged ({error}).") from error
    return names.split("\n") if names else [], decoded


def _marked(meta: dict[str, Any], integers: list[int]) -> str:
    """Canonical JSON with marks for the integers, which are appended to the list."""

    def value(item: Any) -> str:
        if isinstance(item, list):
            return "[" + ",".join(map(value, item)) + "]"
        if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 1 << 47:
            integers.append(item)
            return _MARK
        return json.dumps(item)

    return "{" + ",".join(f"{json.dumps(key)}:{value(meta[key])}" for key in sorted(meta)) + "}"


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
