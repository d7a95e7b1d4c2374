"""Making, reading and writing the documents of `.spacy` files (DocBin)."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ParamSpec, TypeVar

import numpy
from spacy.lang.en import English
from spacy.language import create_tokenizer
from spacy.pipeline import Sentencizer
from spacy.tokenizer import Tokenizer
from spacy.tokens import Doc, DocBin, Span
from spacy.util import filter_spans
from spacy.vocab import Vocab, create_vocab
from srsly.msgpack import msgpack_decoders, msgpack_encoders

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Record

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

SPANS_KEY = "gold"
"""Group of `doc.spans` that holds the mentions of a converted document."""

_ATTRS = ("ORTH", "SPACY", "SENT_START", "ENT_IOB", "ENT_TYPE")


def find_files(paths: Iterable[str | Path], *, split: str | Sequence[str]) -> list[Path]:
    """Replace every folder by the `*.SPLIT.spacy` in it, by name; a file given twice counts once.

    split: one, or several, of which a folder may lack some.
    RAISES VanerError: VE301, a path that does not exist; VE302, a folder without such a file.
    """
    splits = [split] if isinstance(split, str) else split
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if path.is_dir():
            files = [file for name in splits for file in sorted(path.glob(f"*.{name}.spacy"))]
            if not files:
                names = " nor *.".join(f"{name}.spacy" for name in splits)
                raise VanerError(Messages.VE302.format(path=path, files=names))
        elif path.is_file():
            files = [path]
        else:
            raise VanerError(Messages.VE301.format(path=path))
        for file in files:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def read_docs(path: Path, vocab: Vocab | None = None) -> Iterator[Doc]:
    """The documents of a `.spacy` file.

    Lists inside of `user_data` come back as tuples, as DocBin has it.

    vocab: theirs; None = a new one.
    RAISES VanerError: VE202, a file that cannot be read.
    """
    vocab = make_vocab() if vocab is None else vocab
    try:
        doc_bin = DocBin().from_disk(path)
    except OSError as error:
        raise VanerError(Messages.VE202.format(path=path, reason=error)) from error
    except Exception as error:  # zlib, msgpack and numpy each raise their own for a broken file
        # spaCy's own message sends to another command.
        reason = "it is damaged, or no .spacy file (DocBin)"
        raise VanerError(Messages.VE202.format(path=path, reason=reason)) from error
    yield from docs_of(doc_bin, vocab)


def docs_of(doc_bin: DocBin, vocab: Vocab) -> Iterator[Doc]:
    """What doc_bin.get_docs gives, without the time that srsly needs for every document."""
    docs = doc_bin.get_docs(vocab)
    next_doc = _quick(lambda: next(docs, None))
    while (doc := next_doc()) is not None:
        yield doc


def make_vocab() -> Vocab:
    """An English vocab. Every file takes one of its own, since a vocab keeps each word it meets."""
    vocab: Vocab = create_vocab("en", English.Defaults)
    return vocab


def make_tokenizer() -> Tokenizer:
    """The tokenizer of `spacy.blank("en")`, with a vocab of its own.

    Made without a pipeline, for which spaCy would load every installed component: with
    spacy-transformers 225 MB in each process.
    """
    pipeline: Any = SimpleNamespace(vocab=make_vocab(), Defaults=English.Defaults)
    return create_tokenizer()(pipeline)


def sentence_bounds(doc: Doc) -> Iterator[tuple[int, int]]:
    """First word and end of every sentence: the document's own, else parted at end marks."""
    if not len(doc):
        return
    if doc.has_annotation("SENT_START"):
        starts = [token.i for token in doc if token.is_sent_start or token.i == 0]
    else:
        (begins,) = Sentencizer().predict([doc])
        starts = [i for i, is_start in enumerate(begins) if is_start or i == 0]
    yield from zip(starts, [*starts[1:], len(doc)], strict=True)


def words_to_doc(record: Record, vocab: Vocab) -> Doc:
    """A document of the record's own words; its text is the record's.

    More than one blank between two words becomes a token of white space, as in spaCy's tokenizer.
    """
    assert record.words is not None
    words: list[str] = []
    spaces: list[bool] = []
    at = 0
    for start, end in [*record.words, (len(record.text), len(record.text))]:
        gap = record.text[at:start]
        if words and gap.startswith(" "):
            spaces[-1] = True
            gap = gap[1:]
        if gap:
            words.append(gap)
            spaces.append(False)
        if start < end:
            words.append(record.text[start:end])
            spaces.append(False)
        at = end
    return Doc(vocab, words=words, spaces=spaces)


def mark_record(doc: Doc, record: Record) -> int:
    """Write a record's sentences and mentions onto a document of the same text.

    Contiguous mentions go to `doc.spans["gold"]`, those of them that do not overlap to `doc.ents`.

    RETURNS: how many mentions cut a token and were widened to it.
    """
    # Token by token through spaCy's objects, this took half of a conversion's time.
    starts = doc.to_array("IDX").tolist()
    ends = (doc.to_array("IDX") + doc.to_array("LENGTH")).tolist()
    if record.sentences:
        sentence_starts = {start for start, _ in record.sentences}
        flags: Any = numpy.array([[1 if at in sentence_starts else -1] for at in starts])
        doc.from_array(["SENT_START"], flags.astype("uint64"))
    spans = []
    n_widened = 0
    for mention in record.mentions:
        if len(mention.fragments) > 1:
            continue
        ((start, end),) = mention.fragments
        first, beyond = bisect_right(ends, start), bisect_left(starts, end)
        if first < beyond:
            spans.append(Span(doc, first, beyond, label=mention.type))
            n_widened += (starts[first], ends[beyond - 1]) != (start, end)
    doc.spans[SPANS_KEY] = spans
    doc.set_ents(filter_spans(spans))
    return n_widened


def docs_to_bytes(docs: Iterable[Doc], *, attrs: Iterable[str] = _ATTRS) -> bytes:
    """A DocBin: the same bytes for the same documents. attrs: of tokens, what is stored."""
    doc_bin = DocBin(attrs=attrs, store_user_data=True)
    add = _quick(doc_bin.add)
    for doc in docs:
        add(doc)
    return doc_bin.to_bytes()


def _quick(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """The function, without srsly's search for converters at every value it packs or unpacks.

    That search walks all entry points of the environment: 0.8 ms for each of the three values of a
    document, 100 times the packing itself. Here it is done once. For the length of a call the
    registries are srsly's own for all threads; what they answer is the same, so that a thread that
    meets another's call loses at most the time that is saved here.
    """
    found = [(registry, registry.get_all()) for registry in (msgpack_encoders, msgpack_decoders)]

    def call(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        for registry, converters in found:
            registry.get_all = partial(dict, converters)
        try:
            return function(*args, **kwargs)
        finally:
            for registry, _ in found:
                vars(registry).pop("get_all", None)

    return call
