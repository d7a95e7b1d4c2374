"""spaCy's `.spacy` files (DocBin): documents with their tokens and all that is known of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from spacy.tokens import Doc
from spacy.vocab import Vocab

from spacy_vaner.annotation.document import (
    Annotated,
    Annotation,
    Document,
    Native,
    Passage,
    Rejection,
    Unreadable,
    check_fragments,
    whole,
)
from spacy_vaner.annotation.formats.docbin_stream import read_parts
from spacy_vaner.corpora.docbins import SPANS_KEY, docs_to_bytes
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.gold import KEY
from spacy_vaner.predictions import PREDICTIONS_KEY

FAMILY = "spacy"
_ATTRS = ("ORTH", "SPACY", "ENT_IOB", "ENT_TYPE", "ENT_KB_ID", "ENT_ID", "LEMMA")
_TAGS = ("TAG", "POS", "MORPH")
MODEL_KEY = "model"
"""Key of doc.user_data["vaner"] that says which model the predictions are by."""


def read(stream: BinaryIO, name: str) -> Iterator[Document | Rejection]:
    """Read the documents, part by part.

    RAISES VanerError: VE202, this is no DocBin; nothing can be read behind it.
    """
    vocab, number = Vocab(), 0
    parts = read_parts(stream)
    while True:
        try:
            part = next(parts, None)
            if part is None:
                return
            for string in part.strings:
                vocab.strings.add(string)
            # The words of a part go with it: memory stays flat.
            with vocab.memory_zone():
                found = [
                    _read(doc, at, name) for at, doc in enumerate(part.get_docs(vocab), number + 1)
                ]
        except (OSError, EOFError):
            raise
        except Exception as error:  # msgpack and numpy each raise their own for a broken file
            raise VanerError(Messages.VE202.format(path=name, reason=error)) from error
        number += len(found)
        yield from found


def _read(doc: Doc, number: int, name: str) -> Document | Rejection:
    position = f"document {number}"
    try:
        return _document(doc, number, position)
    except Unreadable as error:
        return Rejection(name, position, str(error))


def _document(doc: Doc, number: int, position: str) -> Document:
    data = doc.user_data.get(KEY) or {}
    text = doc.text
    try:
        passages = tuple(
            Passage(start, end, offset, dict(infons))
            for start, end, offset, infons in data.get("passages") or ()
        ) or whole(text)
        annotations = tuple(_annotations(doc, data))
    except (TypeError, ValueError, AttributeError) as error:
        raise Unreadable(f'doc.user_data["vaner"] is not as it should be: {error}') from error
    id_, pmid = data.get("id"), data.get("pmid")
    native = Native(FAMILY, doc.to_bytes())
    id_ = str(number if id_ is None else id_)
    return Document(id_, text, passages, annotations, pmid, native, position)


def _annotations(doc: Doc, data: dict[str, Any]) -> Iterator[Annotation]:
    """The mentions, else entities and spans; then what a model found earlier."""
    predicted = {
        (start, end, type_): score
        for type_, start, end, score in doc.user_data.get(PREDICTIONS_KEY, ())
    }
    if "mentions" in data:
        for type_, fragments, ids in data["mentions"]:
            pairs = check_fragments([(int(s), int(e)) for s, e in fragments], doc.text)
            yield Annotation(type_, pairs, tuple(ids))
    else:
        spans = [*doc.ents, *doc.spans.get(SPANS_KEY, ())]
        found = {(s.start_char, s.end_char, s.label_): s for s in reversed(spans)}
        for key in sorted(found.keys() - predicted.keys()):
            ids = (found[key].kb_id_,) if found[key].kb_id_ else ()
            yield Annotation(key[2], (key[:2],), ids)
    for (start, end, type_), score in sorted(predicted.items()):
        pairs = check_fragments([(start, end)], doc.text)
        yield Annotation(type_, pairs, (), round(float(score), 4), data.get(MODEL_KEY))


def to_doc(document: Document, vocab: Vocab) -> Doc | None:
    """The Doc that a document was read from; None if it came in another format."""
    if document.native is None or document.native.format != FAMILY:
        return None
    assert isinstance(document.native.data, bytes)
    return Doc(vocab).from_bytes(document.native.data)


def write(documents: Sequence[Annotated], path: Path) -> None:
    """Write the Docs, with what other formats say of them in doc.user_data["vaner"]."""
    docs = []
    is_parsed = has_sentences = is_tagged = False
    for annotated in documents:
        document, doc = annotated.document, annotated.doc
        assert doc is not None
        data = dict(doc.user_data.get(KEY) or {})
        if document.native is None or document.native.format != FAMILY:
            data["id"], data["pmid"] = document.id, document.pmid
            data["mentions"] = [
                [one.type, [list(pair) for pair in one.fragments], list(one.ids)]
                for one in document.annotations
            ]
            data["passages"] = [
                [passage.start, passage.end, passage.offset, dict(passage.infons)]
                for passage in document.passages
            ]
        models = [one.model for one in annotated.found if one.model is not None]
        if models:
            data[MODEL_KEY] = models[0]
        doc.user_data[KEY] = data
        docs.append(doc)
        is_parsed |= doc.has_annotation("DEP")
        is_tagged |= doc.has_annotation("TAG") or doc.has_annotation("POS")
        has_sentences |= doc.has_annotation("SENT_START")
    attrs = [*_ATTRS]
    if is_tagged:
        attrs += _TAGS
    if is_parsed:
        attrs += ["DEP", "HEAD"]
    elif has_sentences:
        attrs.append("SENT_START")
    path.write_bytes(docs_to_bytes(docs, attrs=attrs))
