"""The decoder on everything that is not what the encoder wrote: ValueError with a sentence, and nothing else."""

import base64
import tracemalloc
import zlib

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compressjax import storage
from compressjax.storage import _text
from tests.storage.test_versions import VERSION_1


def _tree():
    rng = np.random.default_rng(0)
    kernel = np.zeros((8, 20), np.float32)
    kernel.reshape(-1)[rng.choice(160, 30, replace=False)] = 0.25 * rng.choice([-2, -1, 1, 2], 30)
    cut = rng.normal(size=(3, 3, 4, 6)).astype(np.float32)
    cut[..., ::2] = 0
    return {
        "conv": {"kernel": cut, "bias": np.float16(rng.normal(size=6)), "table": rng.choice(rng.normal(size=5), 60)},
        "fc": {"kernel": kernel, "mask": kernel != 0, "steps": np.arange(3), "empty": np.zeros((0, 3))},
    }


_CODECS = [storage.POSITION_CODECS, *((codec,) for codec in storage.POSITION_CODECS)]
FILES = [
    storage.encode(_tree(), {"model": "tiny", "widths": [6, 20]}, positions=(*c, *storage.POSITION_CODECS[:1]))
    for c in _CODECS
]
FILES += [base64.b64decode(text) for text in VERSION_1]
FILES += [
    storage.encode({"x": (np.random.default_rng(1).random((30, 40)) < 0.1).astype(np.float32)}, positions=(codec,))
    for codec in storage.POSITION_CODECS
]


def resealed(data):
    """The file with a checksum that matches, so that damage reaches the parser."""
    start = zlib.crc32(data[3:4]) if data[3] > 2 else 0
    return data[:4] + zlib.crc32(data[8:], start).to_bytes(4, "little") + data[8:]


def attempt(data):
    """Decoding either works or raises ValueError with one sentence."""
    complaint = "The artefact"
    try:
        storage.account(data, max_elements=1 << 22)
        storage.decode(data, max_elements=1 << 22)
    except ValueError as error:
        complaint = str(error)
    assert complaint.startswith(("The artefact", "This is not", "Leaf "))
    assert "\n" not in complaint


@st.composite
def mutated(draw):
    data = bytearray(draw(st.sampled_from(FILES)))
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["flip", "byte", "insert", "delete", "truncate"]))
        place = draw(st.integers(8, max(8, len(data) - 1)))
        if kind == "flip" and place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif kind == "byte" and place < len(data):
            data[place] = draw(st.integers(0, 255))
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=8))
        elif kind == "delete":
            del data[place : place + draw(st.integers(1, 8))]
        else:
            del data[place:]
    return bytes(data)


@settings(max_examples=300)
@given(mutated())
def test_mutated_files_with_a_valid_checksum(data):
    attempt(resealed(data))


@settings(max_examples=100)
@given(mutated())
def test_the_checksum_catches_mutations(data):
    if data not in FILES:
        with pytest.raises(ValueError, match=r"checksum|truncated"):
            storage.decode(data)


@settings(max_examples=200)
@given(
    st.sampled_from([b"\1", b"\2", b"\3"]), st.sampled_from([b"", b"x", b"a\nb", b"a/b\na"]), st.binary(max_size=300)
)
@example(b"\1", b"a", b"")
@example(b"\2", b"a", b"")
@example(b"\3", b"a", b"\xff" * 300)
def test_any_stream_behind_a_valid_header(version, names, stream):
    paths = names.decode().split("\n") if names else []
    text, _ = _text.deflate(paths, {"widths": [1, 2]})
    attempt(resealed(b"cjx" + version + bytes(4) + bytes([len(text)]) + text + b"\0" + stream))


@settings(max_examples=100)
@given(st.binary(max_size=100))
def test_any_bytes(data):
    attempt(data)
    attempt(resealed(b"cjx\3" + bytes(4) + data))


@pytest.mark.parametrize("length", range(len(FILES[0])))
def test_every_truncation(length):
    with pytest.raises(ValueError, match=r"truncated|not a compressjax"):
        storage.decode(FILES[0][:length])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a compressjax artefact"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "not a compressjax artefact"),
        (b"cjx", "truncated"),
        (b"cjx\4" + bytes(50), "format version 4"),
        (b"cjx\0" + bytes(50), "format version 0"),
        (FILES[0] + b"\0", "checksum"),
        (resealed(b"cjx\1" + bytes(4) + b"\xff" * 20), "section longer than itself"),
        (resealed(b"cjx\1" + bytes(4) + b"\x05hello\0"), "names or metadata"),
    ],
)
def test_clear_sentences(data, message):
    with pytest.raises(ValueError, match=message):
        storage.decode(data)


@pytest.mark.parametrize("meta", [b"[" * 100_000, b"NaN", b'{"a":NaN}', b'{"a":{}}', b'{"a":1e999}', b"[]", b"", b"{"])
def test_hostile_metadata(meta):
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    text = coder.compress(b"\0" + meta) + coder.flush()
    prefix = bytes([len(text) & 127 | 128, len(text) >> 7])
    with pytest.raises(ValueError, match="names or metadata"):
        storage.decode(resealed(b"cjx\1" + bytes(4) + prefix + text + b"\0"))


def test_inflating_bomb_is_stopped():
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    text = coder.compress(bytes(1 << 26)) + coder.flush()
    length = bytes([len(text) & 127 | 128, len(text) >> 7 & 127 | 128, len(text) >> 14])
    with pytest.raises(ValueError, match="names or metadata"):
        storage.decode(resealed(b"cjx\1" + bytes(4) + length + text + b"\0"))


def test_max_elements():
    data = storage.encode({"a": np.zeros(600, np.int8), "b": np.zeros(600, np.int8)})
    assert storage.decode(data, max_elements=1200).params["b"].size == 600
    with pytest.raises(ValueError, match=r"'b' has shape \(600,\).*max_elements"):
        storage.decode(data, max_elements=1000)


def test_a_small_file_cannot_unfold_to_much():
    ones = storage.encode({"x": np.ones(1 << 21, np.float32)})
    padding = (1 << 21) // 512 - 300
    assert len(ones) > padding
    tracemalloc.start()
    with pytest.raises(ValueError, match="more than its length allows"):
        storage.decode(resealed(ones[:100]))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
