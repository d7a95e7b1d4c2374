"""What a document says about its annotation: `doc.user_data["vaner"]`, read and written.

The form is described in docs/formats.md, section 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypedDict

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Mention, Offsets

if TYPE_CHECKING:
    from spacy.language import Language
    from spacy.tokens import Doc

KEY = "vaner"

FACTORY = "vaner_ner"
"""The name that a pipeline makes the component by."""

CorpusName = str | Mapping[str, str] | None
"""A corpus name for all types, a table type -> name, or none."""


@dataclass(frozen=True)
class Gold:
    """The annotation of a document; the fields are those of docs/formats.md, section 1."""

    corpus: str | None = None
    id: str | None = None
    pmid: str | None = None
    types: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    mentions: tuple[Mention, ...] = ()
    masked: tuple[Offsets, ...] = ()
    alternatives: tuple[Mention, ...] = ()
    weight: float = 1.0

    def to_user_data(self) -> dict[str, Any]:
        """Plain values for `doc.user_data["vaner"]`; what is as usual is left out at the end."""
        data: dict[str, Any] = {
            "corpus": self.corpus,
            "id": self.id,
            "pmid": self.pmid,
            "types": list(self.types),
            "partial": list(self.partial),
            "names": dict(self.names),
            "mentions": _rows(self.mentions),
            "masked": [list(pair) for pair in self.masked],
        }
        if self.alternatives:
            data["alternatives"] = _rows(self.alternatives)
        if self.weight != 1:
            data["weight"] = self.weight
        return data

    def is_masked(self, start: int, end: int) -> bool:
        """Whether a part of these characters gives no loss; such text may not be written out."""
        return any(first < end and start < last for first, last in self.masked)

    def within(self, start: int, end: int) -> Gold:
        """What is said of these characters, with offsets into them.

        A mention that crosses an end is left out, a masked stretch is cut there.
        """

        def inside(mentions: Iterable[Mention]) -> tuple[Mention, ...]:
            return tuple(
                replace(
                    mention,
                    fragments=tuple((a - start, b - start) for a, b in mention.fragments),
                )
                for mention in mentions
                if all(start <= a and b <= end for a, b in mention.fragments)
            )

        return replace(
            self,
            mentions=inside(self.mentions),
            alternatives=inside(self.alternatives),
            masked=tuple(
                (max(first, start) - start, min(last, end) - start)
                for first, last in self.masked
                if first < end and start < last
            ),
        )


def get_gold(doc: Doc) -> Gold | None:
    """What the document was annotated for; None if it does not say.

    RAISES VanerError: VE015, the dictionary has another form.
    """
    data = doc.user_data.get(KEY)
    if data is None:
        return None
    try:
        if not data.keys() & {"types", "partial"}:
            return None
        return Gold(
            corpus=data.get("corpus"),
            id=data.get("id"),
            pmid=data.get("pmid"),
            types=_names(data.get("types", ())),
            partial=_names(data.get("partial", ())),
            names=dict(data.get("names") or {}),
            mentions=_mentions(data.get("mentions", ())),
            masked=tuple((int(start), int(end)) for start, end in data.get("masked", ())),
            alternatives=_mentions(data.get("alternatives", ())),
            weight=float(data.get("weight", 1.0)),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise VanerError(Messages.VE015.format(error=error, text=doc.text[:60])) from error


def _rows(mentions: Iterable[Mention]) -> list[list[Any]]:
    return [
        [mention.type, [list(pair) for pair in mention.fragments], list(mention.ids)]
        for mention in mentions
    ]


def _mentions(rows: Iterable[Sequence[Any]]) -> tuple[Mention, ...]:
    return tuple(
        Mention(name, tuple((int(start), int(end)) for start, end in fragments), tuple(ids))
        for name, fragments, ids in rows
    )


def _names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"{names!r} must be a list of types")
    return tuple(names)


class Ask(TypedDict, total=False):
    """What prediction is to ask of a document; a key that is missing leaves it to the component."""

    types: list[str]
    corpus: CorpusName


def set_ask(doc: Doc, ask: Ask) -> None:
    """Write what prediction is to ask of this document; for readers, evaluation, the server."""
    doc.user_data[KEY] = {**(doc.user_data.get(KEY) or {}), "ask": dict(ask)}


def get_ask(doc: Doc) -> Ask:
    """What prediction is to ask of this document; empty if it does not say."""
    ask: Ask | None = (doc.user_data.get(KEY) or {}).get("ask")
    return {} if ask is None else ask


def vaner_components(nlp: Language) -> dict[str, Any]:
    """The vaner_ner components of a pipeline that are not disabled, by name, in its order."""
    return {name: pipe for name, pipe in nlp.pipeline if nlp.get_pipe_meta(name).factory == FACTORY}


def types_of_pipeline(nlp: Language) -> set[str] | None:
    """The types that the vaner_ner components of a pipeline ask; None if it has none."""
    components = vaner_components(nlp).values()
    return {name for pipe in components for name in pipe.types} if components else None


def asks_jointly(nlp: Language) -> bool:
    """Whether a vaner_ner component of a pipeline asks all types in one pass."""
    return any(pipe.asking == "joint" for pipe in vaner_components(nlp).values())


def unannotated_copy(doc: Doc) -> Doc:
    """The words and sentence starts of a document and nothing else."""
    from spacy.tokens import Doc

    return Doc(
        doc.vocab,
        words=[token.text for token in doc],
        spaces=[bool(token.whitespace_) for token in doc],
        sent_starts=(
            [token.is_sent_start for token in doc] if doc.has_annotation("SENT_START") else None
        ),
    )


def name_for(corpus: CorpusName, type_name: str) -> str | None:
    """The corpus name that an instruction gives for a type."""
    if corpus is None or isinstance(corpus, str):
        return corpus
    return corpus.get(type_name)


def gold_from_ents(doc: Doc, types: Sequence[str], label_map: Mapping[str, str]) -> Gold:
    """The annotation of plain spaCy data: its entities are all there is of the types.

    label_map: type to the label of its entities, where that differs.
    RETURNS: without types if entities were never set, not even to none.
    """
    if not doc.has_annotation("ENT_IOB"):
        return Gold()
    # Types that share a label can't be told apart: the first stands for them.
    type_of = {label_map.get(name, name): name for name in reversed(types)}
    return Gold(
        types=tuple(name for name in types if name in type_of.values()),
        mentions=tuple(
            Mention(type_of[ent.label_], ((ent.start_char, ent.end_char),))
            for ent in doc.ents
            if ent.label_ in type_of
        ),
    )
