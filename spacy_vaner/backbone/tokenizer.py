"""Text to subword ids with exact character offsets, over Hugging Face's fast tokenizers.

The tokenizer's own file is read, not its transformers class: the classes differ between the two
generations of transformers, the file does not. Instruction and text are encoded apart and joined
as ids: the text is read as if it began a line, so its subwords and offsets do not depend on the
instruction. For LLaMA-2 this is what the authors' code does (every word is encoded on its own,
with the tokenizer's prefix space).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from ..errors import Messages, VanerError

TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
VOCABULARY_FILES = (
    "tokenizer.model",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spm.model",
)
"""What older folders have instead of a tokenizer.json; transformers makes one of it."""

# How tokenizers spell a space: U+2581 (metaspace), U+0120 (byte-level).
_SPACE_MARKS = "\u2581\u0120"
_METASPACE = "\u2581"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_CACHED_INSTRUCTIONS = 1024

_SPECIAL_TOKENS = {
    "unk_token": "<unk>",
    "bos_token": "<s>",
    "eos_token": "</s>",
    "pad_token": "<pad>",
    "mask_token": "<mask>",
}
_BYTE_TOKENS = [f"<0x{byte:02X}>" for byte in range(256)]

# Pieces (docs/formats.md, section 3), each with the space before it: two or more capitals, small
# letters with at most one capital, a lone capital. Every other character stands alone. Marks and
# letters without case count as small ones.
_CAPITAL, _SMALL = r"[\p{Lu}\p{Lt}]", r"[\p{Ll}\p{Lo}\p{Lm}\p{M}]"
_PIECES = f"{_METASPACE}?(?:{_CAPITAL}{{2,}}|{_CAPITAL}?{_SMALL}+|{_CAPITAL}|[^\\p{{L}}\\p{{M}}])"

_PROBE = (
    "Mutations of BRCA1-deficient cells (p53, TNF-\u03b1) at 37 \u00b0C: 5\u00d710\u207b\u2076 M\n"
    "\u00e9\u4e2d\U0001f600 <s> \t end."
)


class SubwordTokenizer:
    """A fast tokenizer, reduced to what the tagger needs. Threads may share one.

    serialized: the content of a tokenizer.json.
    config: what a tokenizer_config.json says; of it, `bos_token`, `add_bos_token` and `pad_token`
        are used.
    RAISES VanerError: VE110, content that the tokenizers library cannot read.
    """

    def __init__(self, serialized: str, config: Mapping[str, object]) -> None:
        try:
            self._tokenizer = Tokenizer.from_str(serialized)
        except Exception as error:  # the library raises bare Exception
            raise VanerError(Messages.VE110.format(file=TOKENIZER_FILE, error=error)) from None
        # All mutation happens here: encoding while another thread changes a setting fails with
        # "Already borrowed", encoding alone is safe.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        # "<s>" in a text is text.
        self._tokenizer.encode_special_tokens = True
        self._config = dict(config)
        self._bos_ids = self._find_bos()
        self._marks = self._find_marks()
        self._pair_marks = self._find_pair_marks()
        self._instructions: dict[str, list[int]] = {}
        self.n_tokens: int = max(self._tokenizer.get_vocab().values(), default=-1) + 1
        """Rows that an embedding needs: the highest id plus one."""
        self.pad_id: int = self._find_pad()
        """Id that fills rows; masked, so any valid one will do where the tokenizer has none."""

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Cut a text into subwords, without special tokens and without a limit of length.

        text: anything, lone surrogates included (they are read as U+FFFD).
        RETURNS: ids, and per id the characters that it stands for: half-open, without white space
            at either end. A subword that is nothing but white space, or a mark that the tokenizer
            adds by itself, has an empty span; subwords that share a character (bytes of an emoji)
            all have its span.
        """
        encoding = self._tokenizer.encode(_replace_surrogates(text), add_special_tokens=False)
        ids: list[int] = encoding.ids
        marks = self._marks
        spans = []
        for id_, (start, end) in zip(ids, encoding.offsets, strict=True):
            while start < end and text[start].isspace():
                start += 1
            while start < end and text[end - 1].isspace():
                end -= 1
            # A mark in front of the first word borrows that word's first character; a literal
            # U+2581 or U+0120 in the text is a character like others.
            if start < end and id_ in marks and text[start:end] not in _SPACE_MARKS:
                end = start
            spans.append((start, end))
        return ids, spans

    def encode_instruction(self, text: str) -> list[int]:
        """Encode an instruction: the tokenizer's BOS, if it has one, and the ids of the text."""
        ids = self._instructions.get(text)
        if ids is None:
            if len(self._instructions) >= _MAX_CACHED_INSTRUCTIONS:
                self._instructions.clear()
            ids = self._bos_ids + self.encode(text)[0]
            self._instructions[text] = ids
        return list(ids)

    def encode_first_segment(self, text: str) -> tuple[list[int], list[int]]:
        """Encode an instruction for an encoder, whose input is a pair of instruction and window.

        RETURNS: the ids before the window and those after it, with the marks that the tokenizer
            itself puts around a pair: [CLS] instruction [SEP] and [SEP], say.
        """
        start, between, end = self._pair_marks
        return [*start, *self.encode(text)[0], *between], list(end)

    @property
    def separator_id(self) -> int | None:
        """The first mark between the two texts of a pair; None where there is none."""
        between = self._pair_marks[1]
        return between[0] if between else None

    def subword_texts(self) -> dict[int, tuple[str, bool]]:
        """What each subword stands for: its text, and whether a space comes before it.

        Special subwords and those that are single bytes have no text.
        """
        special = self._tokenizer.get_added_tokens_decoder()
        texts = {}
        for token, id_ in self._tokenizer.get_vocab().items():
            text = token.lstrip(_SPACE_MARKS)
            plain = "" if id_ in special or token in _BYTE_TOKENS else text
            texts[id_] = (plain, token != text)
        return texts

    def named_id(self, key: str) -> int | None:
        """The id of a special subword by its key in tokenizer_config.json, e.g. "mask_token"."""
        token = self._config.get(key)
        if isinstance(token, Mapping):
            token = token.get("content")
        if not isinstance(token, str):
            return None
        id_: int | None = self._tokenizer.token_to_id(token)
        return id_

    def to_files(self) -> dict[str, bytes]:
        """Give the files that `from_files` and transformers' AutoTokenizer read."""
        config = json.dumps(self._config, ensure_ascii=False, indent=2, sort_keys=True)
        return {
            TOKENIZER_FILE: self._tokenizer.to_str(pretty=True).encode("utf8"),
            CONFIG_FILE: config.encode("utf8"),
        }

    @classmethod
    def from_files(cls, files: Mapping[str, bytes]) -> SubwordTokenizer:
        """Undo `to_files`; other files are ignored, a missing tokenizer_config.json is empty.

        RAISES VanerError: VE111, no tokenizer.json; VE110, one of the two cannot be read.
        """
        if TOKENIZER_FILE not in files:
            raise VanerError(Messages.VE111.format(file=TOKENIZER_FILE, where="the saved files"))
        try:
            config = json.loads(files.get(CONFIG_FILE, b"{}"))
            serialized = files[TOKENIZER_FILE].decode("utf8")
        except ValueError as error:
            raise VanerError(Messages.VE110.format(file=CONFIG_FILE, error=error)) from None
        return cls(serialized, config)

    @classmethod
    def from_folder(cls, folder: Path) -> SubwordTokenizer:
        """Read a tokenizer as transformers or `python -m spacy vaner tokenizer` saved it.

        A folder with an older kind of vocabulary only is converted by transformers.
        RAISES VanerError: VE111, no tokenizer there; VE110, it cannot be read.
        """
        names = (TOKENIZER_FILE, CONFIG_FILE)
        files = {name: (folder / name).read_bytes() for name in names if (folder / name).is_file()}
        older = next((name for name in VOCABULARY_FILES if (folder / name).is_file()), None)
        if TOKENIZER_FILE not in files and older is not None:
            files[TOKENIZER_FILE] = _convert(folder, older)
        if TOKENIZER_FILE not in files:
            raise VanerError(Messages.VE111.format(file=TOKENIZER_FILE, where=folder))
        return cls.from_files(files)

    def to_folder(self, folder: Path) -> None:
        """Write the folder that `from_folder` and AutoTokenizer read: beside it, then renamed.

        RAISES VanerError: VE114, the folder is there and holds something else than a tokenizer.
        """
        files = self.to_files()
        # A tokenizer may be replaced; anything else in its place is somebody's work.
        if folder.exists() and (
            not folder.is_dir() or any(path.name not in files for path in folder.iterdir())
        ):
            raise VanerError(Messages.VE114.format(folder=folder))
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as beside:
            fresh, replaced = Path(beside) / "new", Path(beside) / "old"
            fresh.mkdir()
            for name, content in files.items():
                (fresh / name).write_bytes(content)
            if folder.exists():
                folder.rename(replaced)
            fresh.rename(folder)

    def fingerprint(self) -> str:
        """Hash of what the tokenizer does: vocabulary, BOS, and the encoding of a probe.

        The file itself is not hashed: versions of the tokenizers library write it differently.
        """
        vocab = sorted(self._tokenizer.get_vocab().items(), key=lambda item: (item[1], item[0]))
        facts = [vocab, self._bos_ids, self.encode(_PROBE)[0]]
        return hashlib.sha256(json.dumps(facts).encode("utf8")).hexdigest()

    def __reduce__(self) -> tuple[object, tuple[dict[str, bytes]]]:
        # The Rust object's own pickle forgets encode_special_tokens.
        return SubwordTokenizer.from_files, (self.to_files(),)

    def _find_bos(self) -> list[int]:
        bos = self.named_id("bos_token")
        return [] if bos is None or self._config.get("add_bos_token") is False else [bos]

    def _find_pad(self) -> int:
        found = (self.named_id(key) for key in ("pad_token", "eos_token", "unk_token"))
        return next((id_ for id_ in found if id_ is not None), 0)

    def _find_pair_marks(self) -> tuple[list[int], list[int], list[int]]:
        """Ids that the tokenizer's own template puts before, between and after two texts."""
        encoding = self._tokenizer.encode("a", "b")
        marks: tuple[list[int], list[int], list[int]] = ([], [], [])
        place = 0
        for id_, sequence in zip(encoding.ids, encoding.sequence_ids, strict=True):
            if sequence is None:
                marks[place].append(id_)
            else:
                place = sequence + 1
        return marks

    def _find_marks(self) -> frozenset[int]:
        vocab: dict[str, int] = self._tokenizer.get_vocab()
        return frozenset(id_ for token, id_ in vocab.items() if not token.strip(_SPACE_MARKS))


def train_bpe(
    texts: Iterable[str], *, vocab_size: int = 8000, min_frequency: int = 2
) -> SubwordTokenizer:
    """Train a byte-pair encoding that can encode everything; the same texts give the same one.

    Subwords never cross a boundary between pieces (docs/formats.md, section 3), digits stand
    alone, case is kept, white space only marks that the next subword begins a word. Characters
    that the vocabulary lacks are spelt in bytes.

    texts: read twice; an iterator is kept in memory for that, so give a list or a re-iterable.
    vocab_size: the highest; 5 special and 256 byte tokens included. Small data gives fewer.
    min_frequency: of a pair that is merged, and of a character that gets an id of its own.
    RAISES VanerError: VE112, a vocabulary without room for letters; VE113, no text.
    """
    n_fixed = len(_SPECIAL_TOKENS) + len(_BYTE_TOKENS)
    if vocab_size <= n_fixed:
        raise VanerError(Messages.VE112.format(vocab_size=vocab_size, n_fixed=n_fixed))
    if iter(texts) is texts:
        texts = list(texts)
    # Half of the room at most for single characters: the rare ones have their bytes.
    alphabet = _alphabet(texts, min_frequency)[: (vocab_size - n_fixed + 1) // 2]
    if not alphabet:
        raise VanerError(Messages.VE113)
    specials = list(_SPECIAL_TOKENS.values())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(_BYTE_TOKENS),
        min_frequency=min_frequency,
        special_tokens=specials,
        # Given, not found by the trainer: it breaks ties between rare characters at random.
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer = Tokenizer(models.BPE())
    _set_pipeline(tokenizer)
    with _single_threaded():
        tokenizer.train_from_iterator(map(_replace_surrogates, texts), trainer)
    trained = json.loads(tokenizer.to_str())["model"]
    learned = sorted(set(trained["vocab"]) - set(specials), key=trained["vocab"].__getitem__)
    vocab = {token: id_ for id_, token in enumerate(specials + _BYTE_TOKENS + learned)}
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in trained["merges"]]
    complete = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True)
    )
    _set_pipeline(complete)
    complete.add_special_tokens(specials)
    config = {
        **_SPECIAL_TOKENS,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    return SubwordTokenizer(complete.to_str(), config)


def _set_pipeline(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Strip(),
            normalizers.Replace(Regex(r"\s+"), _METASPACE),
            # The first word looks like every other one.
            normalizers.Prepend(_METASPACE),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECES), "isolated")
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(_METASPACE, " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    bos = _SPECIAL_TOKENS["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A $B",
        special_tokens=[(bos, list(_SPECIAL_TOKENS.values()).index(bos))],
    )


def _alphabet(texts: Iterable[str], min_frequency: int) -> list[str]:
    """The characters that occur often enough, the most frequent first."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_replace_surrogates(text))
    spaces = [character for character in counts if character.isspace()]
    for space in spaces:
        del counts[space]
    if counts:
        counts[_METASPACE] = max(counts.values()) + 1
    frequent = [character for character, count in counts.items() if count >= min_frequency]
    return sorted(frequent, key=lambda character: (-counts[character], character))


def _replace_surrogates(text: str) -> str:
    # One character for another, so that offsets stay.
    return _LONE_SURROGATE.sub("\ufffd", text)


@contextmanager
def _single_threaded() -> Iterator[None]:
    # Once the library has used its own threads, every later fork of the process (n_process > 1)
    # prints a warning from the child.
    key = "TOKENIZERS_PARALLELISM"
    before = os.environ.get(key)
    os.environ[key] = "false"
    try:
        yield
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before


def _convert(folder: Path, vocabulary: str) -> bytes:
    import transformers

    auto_tokenizer: Any = transformers.AutoTokenizer
    try:
        converted = auto_tokenizer.from_pretrained(
            str(folder), use_fast=True, trust_remote_code=False, local_files_only=True
        )
        serialized: str = converted.backend_tokenizer.to_str()
    except Exception as error:  # a missing sentencepiece package, a damaged file, …
        raise VanerError(Messages.VE110.format(file=vocabulary, error=error)) from error
    return serialized.encode("utf8")
