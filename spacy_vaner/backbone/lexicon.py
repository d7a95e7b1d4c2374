"""Names that a small backbone knows of: which words of a text are in a set of names.

A model of a few million weights cannot learn a million names by heart. Here their hashes are kept
in a Bloom filter, two or three bytes per name, and every word of a text is looked up with the words
behind it. What is found is one more feature of the words, computed from their hashes alone, so it
is the same in training and in prediction. Names are compared in lower case, signs are words of
their own, white space does not count.

SOURCE: Bloom, "Space/time trade-offs in hash coding with allowable errors" (1970); positions by
double hashing: Kirsch and Mitzenmacher, "Less hashing, same performance" (2006).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import Messages, VanerError
from .hashing import mixed, powers, signed, word_key

MAX_WORDS = 6
"""Words of the longest name that is looked up; most names are shorter, and longer ones rare."""

# Letters and digits with the signs that are set over them, or any other sign.
_WORD = re.compile(r"[^\W_](?:[^\W_]|[\u0300-\u036f])*|[^\s]")
# Odd factors of hashes modulo 2**64.
_TURN = 0x9FB21C651E98DF25
_OF_TYPE = 0xD6E8FEB86659FD93
_SECOND = 0xA0761D6478BD642F
# What is known of a word per type: it is in a name, begins one, ends one, of several words.
N_FACTS = 4


class LexiconTable:
    """A set of names per type, as a file: `bits` (bytes,), the filter, and the names of the types.

    n_hashes: bits of the filter that every name sets.
    n_names: in it, those of several types once per type.
    """

    def __init__(self, types: Sequence[str], bits: Tensor, n_hashes: int, n_names: int) -> None:
        self.types = tuple(types)
        self.bits = bits
        self.n_hashes = n_hashes
        self.n_names = n_names

    @classmethod
    def from_names(
        cls,
        names: Iterable[tuple[str, str]],
        types: Sequence[str],
        *,
        bits_per_name: float = 24.0,
    ) -> LexiconTable:
        """Make a table of the names of some types.

        names: pairs of name and type; other types, names of more than MAX_WORDS words, and those
            of fewer than three letters and digits or without a letter are left out.
        bits_per_name: with 10 one foreign run of words in 120 is taken for a name, with 24 one in
            100,000.
        """
        found: set[tuple[int, int]] = set()
        for name, type_name in names:
            words = split_name(name)
            n_signs = sum(map(str.isalnum, name))
            if (
                type_name in types
                and 0 < len(words) <= MAX_WORDS
                and n_signs >= 3
                and any(map(str.isalpha, name))
            ):
                found.add((types.index(type_name), name_key(words)))
        n_bytes = max(8, math.ceil(len(found) * bits_per_name / 8))
        n_hashes = max(1, round(math.log(2) * bits_per_name))
        keys = torch.tensor(sorted(found), dtype=torch.int64).reshape(-1, 2)
        places = _places(keys[:, 1], keys[:, 0], n_hashes, n_bytes).numpy()
        bits = numpy.zeros(n_bytes, numpy.uint8)
        numpy.bitwise_or.at(bits, places >> 3, numpy.left_shift(1, places & 7).astype(numpy.uint8))
        return cls(types, torch.from_numpy(bits), n_hashes, len(found))

    def to_file(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        facts = {
            "types": "\n".join(self.types),
            "n_hashes": str(self.n_hashes),
            "n_names": str(self.n_names),
        }
        save_file({"bits": self.bits}, path, metadata=facts)

    @classmethod
    def from_file(cls, path: Path) -> LexiconTable:
        """RAISES VanerError: VE142, no such file, or another kind of file."""
        try:
            with safe_open(path, framework="pt") as file:
                facts = file.metadata() or {}
                bits = file.get_tensor("bits")
            n_hashes, n_names = int(facts["n_hashes"]), int(facts["n_names"])
            return cls(facts["types"].split("\n"), bits, n_hashes, n_names)
        except (OSError, KeyError, ValueError, SafetensorError) as error:
            raise VanerError(Messages.VE142.format(path=path, error=error)) from None


class Lexicon(nn.Module):
    """What a lexicon adds to the embeddings of subwords.

    n_types, n_bytes, n_hashes: of its table.
    dropout: share of the rows that are read without it in training; may be changed.
    """

    def __init__(self, n_types: int, n_bytes: int, n_hashes: int, hidden_size: int) -> None:
        super().__init__()
        self.n_types = n_types
        self.n_hashes = n_hashes
        self.dropout = 0.0
        # Frozen, and a parameter all the same: it is saved with the others, by name.
        self.bits = nn.Parameter(torch.zeros(n_bytes, dtype=torch.uint8), requires_grad=False)
        # Nothing at first, so that a pretrained backbone is as it was.
        self.weight = nn.Parameter(torch.zeros(hidden_size, n_types * N_FACTS))
        turns = torch.tensor(powers(_TURN, MAX_WORDS))
        self.register_buffer("turns", turns, persistent=False)

    def forward(self, keys: Tensor, word: Tensor, known: Tensor) -> Tensor:
        """Embed what is known of the words.

        keys: (B, S), the hash of each subword's word; word: (B * S,), its number, from 0, no word
            in two rows; known: (B, S), whether the subword is text.
        RETURNS: (B, S, hidden_size).
        """
        facts = self.facts(keys, word, known)
        if self.training and self.dropout:
            is_kept = torch.rand(len(keys), device=keys.device) >= self.dropout
            facts = facts * is_kept[:, None, None]
        return nn.functional.linear(facts.to(self.weight.dtype), self.weight)

    @torch.no_grad()
    def facts(self, keys: Tensor, word: Tensor, known: Tensor) -> Tensor:
        """What is known of the word of each subword, the longest names first.

        keys, word, known: as above.
        RETURNS: (B, S, types * N_FACTS), bool; per type whether it is in a name, begins one, ends
            one, is in one of several words.
        """
        n_rows, size = keys.shape
        n = n_rows * size
        row = torch.arange(n, device=keys.device) // size
        # Of words that there are not: no row.
        of_word = torch.zeros(n, dtype=torch.int64, device=keys.device)
        key_of = of_word.scatter(0, word, keys.flatten())
        row_of = (of_word - 1).scatter(0, word, row)
        is_known = of_word.bool().scatter(0, word, known.flatten())
        hits = self._hits(key_of, row_of, is_known)
        found = _longest_first(hits)
        facts: Tensor = found[:, :, word].flatten(0, 1).T.reshape(n_rows, size, -1)
        return facts

    def _hits(self, keys: Tensor, rows: Tensor, is_known: Tensor) -> Tensor:
        """RETURNS: (MAX_WORDS, types, words), whether a name of n + 1 words begins at a word."""
        turns = self.turns
        assert isinstance(turns, Tensor)
        types = torch.arange(self.n_types, device=keys.device)[:, None]
        total, fits = torch.zeros_like(keys), torch.ones_like(is_known)
        hits = []
        for n in range(MAX_WORDS):
            total = total + _shifted(keys, n) * turns[n]
            fits = fits & _shifted(is_known, n) & (_shifted(rows, n) == rows)
            places = _places(total, types, self.n_hashes, len(self.bits))
            is_set = (self.bits[places >> 3].long() >> (places & 7)) & 1
            hits.append(is_set.bool().all(0) & fits)
        return torch.stack(hits)


def split_name(name: str) -> list[str]:
    """The words of a name in lower case, as the embedding sees those of a text."""
    return _WORD.findall(name.lower())


def name_key(words: Sequence[str]) -> int:
    """The hash of a name: a signed 64-bit number."""
    factors = powers(_TURN, len(words))
    return signed(sum(word_key(word) * factor for word, factor in zip(words, factors, strict=True)))


def _places(keys: Tensor, types: Tensor, n_hashes: int, n_bytes: int) -> Tensor:
    """The bits that stand for names of types: (n_hashes, …), keys and types broadcast."""
    first = mixed(keys + (types + 1) * signed(_OF_TYPE))
    second = mixed(first * signed(_SECOND))
    # Odd and below 2**40: no sum overflows.
    first, second = first & (2**40 - 1), second & (2**40 - 1) | 1
    return torch.stack([(first + n * second) % (8 * n_bytes) for n in range(n_hashes)])


def _longest_first(hits: Tensor) -> Tensor:
    """Take the longest names, then those that meet none of them, and so on.

    hits: (MAX_WORDS, types, words). RETURNS: (types, N_FACTS, words).
    """
    n_words = hits.shape[-1]
    covered = torch.zeros_like(hits[0])
    begins, ends, long = (torch.zeros_like(covered) for _ in range(3))
    for n in range(min(len(hits), n_words), 0, -1):
        is_free = torch.stack([~_shifted(covered, place) for place in range(n)]).all(0)
        starts = hits[n - 1] & is_free
        here = torch.zeros_like(covered)
        for place in range(n):
            here[:, place:] |= starts[:, : n_words - place]
        covered |= here
        begins |= starts
        ends[:, n - 1 :] |= starts[:, : n_words - n + 1]
        if n > 1:
            long |= here
    return torch.stack([covered, begins, ends, long], 1)


def _shifted(values: Tensor, n: int) -> Tensor:
    """The value n places further on, along the last axis; 0 behind the end."""
    return nn.functional.pad(values[..., n:], (0, min(n, values.shape[-1])))
