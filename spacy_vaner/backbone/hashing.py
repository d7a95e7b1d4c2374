"""Hashes of characters and words: the same numbers in plain Python and in tensors of int64."""

from __future__ import annotations

from functools import cache

from torch import Tensor

MAX_WORD = 64
"""Characters of a word after the first so many share a factor."""

_PLACE = 0x5851F42D4C957F2D
_MASK = 2**64 - 1


def word_key(word: str) -> int:
    """The hash of a lower-case word, as the embedding computes it: a signed 64-bit number."""
    total = 0
    factor = 1
    for place, character in enumerate(word):
        total += _of_character(character) * factor
        if place < MAX_WORD - 1:
            factor = factor * _PLACE & _MASK
    return signed(total)


def place_factors() -> list[int]:
    """The factor of each place in a word."""
    return powers(_PLACE, MAX_WORD)


def powers(factor: int, n: int) -> list[int]:
    """Powers of an odd number modulo 2**64, from the 0th on, as signed numbers."""
    return [signed(pow(factor, exponent, 2**64)) for exponent in range(n)]


def signed(x: int) -> int:
    """A number modulo 2**64 as int64 holds it."""
    x &= _MASK
    return x - 2**64 if x >= 2**63 else x


def mixed(x: Tensor) -> Tensor:
    """Spread what differs in high bits over the low ones; not negative."""
    x = (x ^ (x >> 31)) * signed(0xBF58476D1CE4E5B9)
    return (x ^ (x >> 29)) & (2**62 - 1)


@cache
def _of_character(character: str) -> int:
    """A fixed random number per character (splitmix64)."""
    x = (ord(character) + 1) * 0x9E3779B97F4A7C15 & _MASK
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return x ^ (x >> 31)
