"""Text that must not be trained on, as hashes of its runs of twelve words.

A document that shares one such run with a protected text is left out. Words are letters and digits
in lower case, so neither tokenisation nor punctuation matters; a run may cross sentences. A
protected sentence of fewer than twelve words is not found by this rule.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from spacy_vaner.errors import Messages, VanerError

N_WORDS = 12

_FORMAT = "spacy_vaner protected runs 1"
_WORD = re.compile(r"[^\W_]+")
# Odd, so that no word of a run loses bits modulo 2**64.
_MULTIPLIER = 0x9E3779B97F4A7C15
_MAX_CACHED_WORDS = 2_000_000

Hashes = NDArray[numpy.uint64]


class ProtectedRuns:
    """The protected runs; `shares_run` is what they are for."""

    def __init__(self, hashes: Hashes) -> None:
        self._hashes: Hashes = numpy.unique(hashes)
        self._words: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._hashes)

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> ProtectedRuns:
        """Runs of whole documents."""
        runs = cls(numpy.zeros(0, numpy.uint64))
        # Made unique here and there: corpora come in several views of the same text.
        found = [runs.hashes(text) for text in texts]
        return cls(numpy.concatenate([*found, runs._hashes]))

    def hashes(self, text: str) -> Hashes:
        """One hash per run of a text, in order; none where it has fewer than twelve words."""
        words = [self._word(word) for word in _WORD.findall(text.lower())]
        n_runs = len(words) - N_WORDS + 1
        if n_runs < 1:
            return numpy.zeros(0, numpy.uint64)
        values = numpy.array(words, numpy.uint64)
        hashes = numpy.zeros(n_runs, numpy.uint64)
        for start in range(N_WORDS):
            hashes *= numpy.uint64(_MULTIPLIER)
            hashes += values[start : start + n_runs]
        return hashes

    def shares_run(self, text: str) -> bool:
        """Whether a text has a run of twelve words in common with a protected one."""
        if not len(self._hashes):
            return False
        hashes = self.hashes(text)
        places = numpy.searchsorted(self._hashes, hashes)
        places[places == len(self._hashes)] = 0
        return bool((self._hashes[places] == hashes).any())

    def fingerprint(self) -> str:
        """Hash of all runs."""
        return hashlib.sha256(self._hashes.astype("<u8").tobytes()).hexdigest()

    def to_file(self, path: Path) -> None:
        """Save the runs as one file, written beside and renamed."""
        beside = path.with_name(path.name + ".part")
        beside.write_bytes(save({"runs": self._hashes}, metadata={"format": _FORMAT}))
        beside.replace(path)

    @classmethod
    def from_file(cls, path: Path) -> ProtectedRuns:
        """Undo `to_file`.

        RAISES VanerError: VE516, a file that cannot be read or is none of ours.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                if (file.metadata() or {}).get("format") != _FORMAT:
                    raise ValueError("it is none, or of another version")
                return cls(file.get_tensor("runs"))
        except (OSError, ValueError, SafetensorError) as error:
            raise VanerError(Messages.VE516.format(path=path, reason=error)) from None

    def _word(self, word: str) -> int:
        value = self._words.get(word)
        if value is None:
            if len(self._words) >= _MAX_CACHED_WORDS:
                self._words.clear()
            digest = hashlib.blake2b(word.encode("utf8"), digest_size=8).digest()
            value = self._words[word] = int.from_bytes(digest, "little")
        return value
