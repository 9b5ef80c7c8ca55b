"""Bit-exact storage of compressed networks: one small file, and an account of every bit in it."""

from compressjax.storage import bits as bits
from compressjax.storage._account import Account, LeafAccount, account
from compressjax.storage._artifact import Artifact, decode, encode, load, positive_zeros, save
from compressjax.storage._entries import Entries, Sparse, entries
from compressjax.storage._positions import CODECS as POSITION_CODECS
from compressjax.storage._positions import PositionCodec

__all__ = [
    "POSITION_CODECS",
    "Account",
    "Artifact",
    "Entries",
    "LeafAccount",
    "PositionCodec",
    "Sparse",
    "account",
    "bits",
    "decode",
    "encode",
    "entries",
    "load",
    "positive_zeros",
    "save",
]
