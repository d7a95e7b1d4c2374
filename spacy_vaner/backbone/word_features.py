"""What a subword's embedding knows of the word that it is part of: a declared part of small LLaMAs.

A small backbone reads "nephrotoxicity" as four subwords and has to put them together itself. Here
each of them also gets embeddings of the whole word: of its lower-case form, its first and last
three characters and its shape, from hashed tables, and a static vector where it has one. They
cost bytes but hardly any time. Everything is computed from subword ids alone, so nothing else of
the model knows of it, and a masked word is hidden from its features as well.

A word is a run of subwords of letters and digits; every other sign is a word of its own.
SOURCE: hashed tables of word, affixes and shape: spaCy's MultiHashEmbed; static vectors beside
them: scispaCy's models.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..errors import Messages, VanerError
from .hashing import MAX_WORD, mixed, place_factors, powers, word_key
from .lexicon import Lexicon, LexiconTable
from .tokenizer import SubwordTokenizer

CONFIG_KEY = "word_features"
"""Key of config.json under which a backbone declares them."""

_AFFIX = 3
# Odd factor of hashes modulo 2**64, of a subword's place in its word.
_TURN = 0x14057B7EF767814F
_SHAPE = 0x2545F4914F6CDD1D
_TABLES = ("norm", "prefix", "suffix", "shape")
# The classes of _is_part; white space and every other sign end a word.
_WORD = re.compile(r"(?:[^\W_])(?:[^\W_]|[\u0300-\u036f])*")
_INIT_STD = 0.02
_TABLE_STD = 0.1


@dataclass(frozen=True)
class WordFeatures:
    """Sizes of the tables.

    n_rows: of the table of lower-case forms; affixes have a quarter, shapes an eighth of it.
    width: of every hashed table.
    n_vectors, vector_width: of the static vectors; 0 = none.
    lexicon_types, lexicon_bytes, lexicon_hashes: of a table of names; no types = none.
    """

    n_rows: int
    width: int
    n_vectors: int = 0
    vector_width: int = 0
    lexicon_types: tuple[str, ...] = ()
    lexicon_bytes: int = 0
    lexicon_hashes: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values; of a lexicon only where there is one."""
        values = {**asdict(self), "lexicon_types": list(self.lexicon_types)}
        is_left = {} if self.lexicon_types else {n for n in values if n.startswith("lexicon_")}
        return {name: value for name, value in values.items() if name not in is_left}


class WordVectors:
    """Static vectors of words, as a file: `keys` (n,) and `vectors` (n, width), keys ascending."""

    def __init__(self, keys: Tensor, vectors: Tensor) -> None:
        self.keys = keys
        self.vectors = vectors

    @classmethod
    def from_words(cls, words: Iterable[str], vectors: Tensor) -> WordVectors:
        """words: lower-case and distinct, a row of `vectors` (n, width) each."""
        keys = torch.tensor([word_key(word) for word in words], dtype=torch.int64)
        order = torch.argsort(keys)
        return cls(keys[order], vectors[order].float().contiguous())

    def to_file(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"keys": self.keys, "vectors": self.vectors}, path)

    @classmethod
    def from_file(cls, path: Path) -> WordVectors:
        """RAISES VanerError: VE140, no such file, or another kind of file."""
        try:
            tensors = load_file(path)
            return cls(tensors["keys"], tensors["vectors"].float())
        except (OSError, KeyError, SafetensorError) as error:
            raise VanerError(Messages.VE140.format(path=path, error=error)) from None


class WordEmbedding(nn.Embedding):
    """The embedding of subwords, with the features of their words added.

    Its own rows are the output layer in pretraining, as without features.

    word_dropout: share of the words whose features are left out in training; may be changed.
    """

    def __init__(self, n_subwords: int, hidden_size: int, features: WordFeatures) -> None:
        super().__init__(n_subwords, hidden_size)
        self.features = features
        self.word_dropout = 0.0
        rows = features.n_rows
        sizes = {"norm": rows, "prefix": rows // 4, "suffix": rows // 4, "shape": rows // 8}
        self.tables = nn.ModuleDict(
            {name: nn.Embedding(max(1, size), features.width) for name, size in sizes.items()}
        )
        # Frozen, and parameters all the same: they are saved with the others, by name.
        self.keys = _frozen(torch.zeros(features.n_vectors, dtype=torch.int64))
        self.vectors = _frozen(torch.zeros(features.n_vectors, features.vector_width))
        width = len(_TABLES) * features.width + features.vector_width
        self.projection = nn.Linear(width, hidden_size, bias=False)
        self.lexicon: Lexicon | None = None
        if features.lexicon_types:
            n_types = len(features.lexicon_types)
            sizes_of = (n_types, features.lexicon_bytes, features.lexicon_hashes)
            self.lexicon = Lexicon(*sizes_of, hidden_size)
        for table in self.tables.values():
            assert isinstance(table, nn.Embedding)
            nn.init.normal_(table.weight, std=_TABLE_STD)
        nn.init.normal_(self.weight, std=_INIT_STD)
        # What is added is then as large as the subword's own row.
        nn.init.normal_(self.projection.weight, std=_INIT_STD / _TABLE_STD / width**0.5)
        turns = powers(_TURN, MAX_WORD)
        self.register_buffer("place_factors", torch.tensor(place_factors()), persistent=False)
        self.register_buffer("turn_factors", torch.tensor(turns), persistent=False)

    def bind(self, tokenizer: SubwordTokenizer) -> None:
        """Tell what the subword ids stand for; needed once, before the first forward pass."""
        tables = _id_tables(tokenizer, self.num_embeddings)
        for name, values in tables.items():
            self.register_buffer(f"of_id_{name}", values.to(self.weight.device), persistent=False)

    def set_vectors(self, vectors: WordVectors) -> None:
        """Take static vectors; scaled, so that their numbers are as large as the tables'."""
        scale = vectors.vectors.std().clamp_min(1e-9)
        self.keys.copy_(vectors.keys)
        self.vectors.copy_(vectors.vectors * (_TABLE_STD / scale))

    def set_lexicon(self, table: LexiconTable) -> None:
        """Take a table of names, which adds nothing until it is trained."""
        n_bytes = len(table.bits)
        self.features = replace(
            self.features,
            lexicon_types=table.types,
            lexicon_bytes=n_bytes,
            lexicon_hashes=table.n_hashes,
        )
        lexicon = Lexicon(len(table.types), n_bytes, table.n_hashes, self.embedding_dim)
        lexicon.bits.data.copy_(table.bits)
        self.lexicon = lexicon.to(self.weight.device).train(self.training)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Embed. input_ids: (B, S), int64. RETURNS: (B, S, hidden_size)."""
        subwords = super().forward(input_ids)
        hashes, known, word = self._hash_words(input_ids)
        parts = []
        for name in _TABLES:
            table = self.tables[name]
            assert isinstance(table, nn.Embedding)
            parts.append(table(mixed(hashes[name]) % table.num_embeddings))
        if self.features.n_vectors:
            key = hashes["norm"]
            row = torch.searchsorted(self.keys, key).clamp_max(self.features.n_vectors - 1)
            found = self.keys[row] == key
            parts.append(nn.functional.embedding(row, self.vectors) * found.unsqueeze(-1))
        features = torch.cat(parts, dim=-1) * known.unsqueeze(-1)
        added: Tensor = self.projection(features)
        if self.lexicon is not None:
            added = added + self.lexicon(hashes["norm"], word, self._of_id("is_known", input_ids))
        return subwords + added

    def _hash_words(self, input_ids: Tensor) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        """RETURNS: per table the hash of each subword's word, (B, S); whether it counts, (B, S);
        the number of the word, (B * S,).
        """
        is_part = self._of_id("is_part", input_ids)
        starts = self._of_id("starts", input_ids).clone()
        starts[:, 1:] |= ~is_part[:, :-1]
        starts[:, 0] = True
        n_rows, size = input_ids.shape
        word = torch.cumsum(starts.flatten().long(), 0) - 1
        n_words = n_rows * size

        def of_words(values: Tensor) -> Tensor:
            sums = torch.zeros(n_words, dtype=torch.int64, device=values.device)
            return sums.index_add_(0, word, values.flatten())[word]

        length = self._of_id("length", input_ids).flatten()
        before = torch.cumsum(length, 0) - length
        place = torch.arange(n_words, device=word.device)
        first = torch.cummax(torch.where(starts.flatten(), place, 0), 0).values
        offset = before - before[first]
        left = of_words(length) - offset - length
        flat = input_ids.flatten()
        n_prefix = (_AFFIX - offset).clamp(0, _AFFIX)[:, None]
        n_suffix = (_AFFIX - left).clamp(0, _AFFIX)[:, None]
        from_start = self._factor("place_factors", offset)
        from_end = self._factor("place_factors", left)
        hashes = {
            "norm": self._of_id("norm", flat) * from_start,
            "prefix": self._of_id("prefix", flat).gather(1, n_prefix)[:, 0] * from_start,
            "suffix": self._of_id("suffix", flat).gather(1, n_suffix)[:, 0] * from_end,
            "shape": self._of_id("shape", flat) * self._factor("turn_factors", place - first),
        }
        known = self._of_id("is_known", input_ids)
        if self.training and self.word_dropout:
            is_kept = torch.rand(n_words, device=word.device) >= self.word_dropout
            known = known & is_kept[word].view(n_rows, size)
        of_subwords = {n: of_words(value).view(n_rows, size) for n, value in hashes.items()}
        return of_subwords, known, word

    def _of_id(self, name: str, input_ids: Tensor) -> Tensor:
        table = getattr(self, f"of_id_{name}")
        assert isinstance(table, Tensor)
        return table[input_ids]

    def _factor(self, name: str, place: Tensor) -> Tensor:
        factors = getattr(self, name)
        assert isinstance(factors, Tensor)
        return factors[place.clamp_max(MAX_WORD - 1)]


def split_words(text: str) -> list[str]:
    """The words of letters and digits of a text, in lower case, as the embedding sees them."""
    return _WORD.findall(text.lower())


def add_word_features(decoder: nn.Module, features: WordFeatures) -> None:
    """Give a decoder an embedding with features; fresh weights, the subwords' ones kept."""
    model: Any = decoder
    before = model.get_input_embeddings()
    embedding = WordEmbedding(before.num_embeddings, before.embedding_dim, features)
    with torch.no_grad():
        embedding.weight.copy_(before.weight)
    model.set_input_embeddings(embedding)
    setattr(model.config, CONFIG_KEY, features.to_dict())


def add_lexicon(decoder: nn.Module, table: LexiconTable) -> None:
    """Give a decoder with word features a table of names.

    RAISES VanerError: VE143, the decoder has no word features.
    """
    model: Any = decoder
    embedding = word_embedding(decoder)
    if embedding is None:
        raise VanerError(Messages.VE143)
    embedding.set_lexicon(table)
    setattr(model.config, CONFIG_KEY, embedding.features.to_dict())


def declared_features(config: object) -> WordFeatures | None:
    """The features that a backbone's config declares.

    RAISES VanerError: VE141, a declaration that cannot be read.
    """
    declared = getattr(config, CONFIG_KEY, None)
    if declared is None:
        return None
    try:
        types = tuple(declared.get("lexicon_types", ()))
        return WordFeatures(**{**declared, "lexicon_types": types})
    except (TypeError, AttributeError) as error:
        raise VanerError(Messages.VE141.format(error=error)) from None


def word_embedding(decoder: nn.Module) -> WordEmbedding | None:
    """The decoder's embedding, if it is one with features."""
    model: Any = decoder
    embedding = model.get_input_embeddings()
    return embedding if isinstance(embedding, WordEmbedding) else None


def _frozen(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def _id_tables(tokenizer: SubwordTokenizer, n_ids: int) -> dict[str, Tensor]:
    """What is known of each subword.

    RETURNS: `starts` (n_ids,), it begins a word; `is_part`, it consists of letters and digits;
        `is_known`, it is text and no special token; `length` in characters; `norm` and `shape`,
        hashes; `prefix` and `suffix` (n_ids, 4): of its first or last 0 to 3 characters.
    """
    # Plain lists: setting single numbers of tensors takes a second for 16,000 subwords.
    starts, is_part, is_known = [True] * n_ids, [False] * n_ids, [False] * n_ids
    length, norm, shape = [0] * n_ids, [0] * n_ids, [0] * n_ids
    none = [0] * (_AFFIX + 1)
    # Affixes come again and again.
    key_of = cache(word_key)
    prefix, suffix = [none] * n_ids, [none] * n_ids
    for id_, (text, begins_word) in tokenizer.subword_texts().items():
        lower = text.lower()
        if not lower:
            continue
        is_known[id_] = True
        is_part[id_] = all(_is_part(character) for character in text)
        starts[id_] = begins_word or not is_part[id_]
        length[id_] = len(lower)
        norm[id_] = word_key(lower)
        shape[id_] = _shape_key(text)
        prefix[id_] = [0, *(key_of(lower[:n]) for n in range(1, _AFFIX + 1))]
        # Counted from the end, as places in a suffix are.
        suffix[id_] = [0, *(key_of(lower[-n:][::-1]) for n in range(1, _AFFIX + 1))]
    tables = {
        "starts": starts,
        "is_part": is_part,
        "is_known": is_known,
        "length": length,
        "norm": norm,
        "shape": shape,
        "prefix": prefix,
        "suffix": suffix,
    }
    return {name: torch.tensor(values) for name, values in tables.items()}


def _is_part(character: str) -> bool:
    return character.isalnum() or "\u0300" <= character <= "\u036f"


def _shape_key(text: str) -> int:
    """Hash of the text's classes of characters, runs cut at two."""
    shape = ""
    for character in text:
        if character.isdigit():
            kind = "d"
        elif character.isalpha():
            kind = "X" if character.isupper() else "x"
        else:
            kind = character
        if shape[-2:] != kind * 2:
            shape += kind
    return word_key(shape) ^ _SHAPE
