"""What a document says about its annotation: `doc.user_data["vaner"]`, read and written.

The form is described in docs/formats.md, section 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.types import Mention, Offsets

if TYPE_CHECKING:
    from spacy.tokens import Doc

KEY = "vaner"

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

    def to_user_data(self) -> dict[str, Any]:
        """Plain values for `doc.user_data["vaner"]`."""
        return {
            "corpus": self.corpus,
            "id": self.id,
            "pmid": self.pmid,
            "types": list(self.types),
            "partial": list(self.partial),
            "names": dict(self.names),
            "mentions": [
                [mention.type, [list(pair) for pair in mention.fragments], list(mention.ids)]
                for mention in self.mentions
            ],
            "masked": [list(pair) for pair in self.masked],
        }


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
            mentions=tuple(
                Mention(name, tuple((int(start), int(end)) for start, end in fragments), tuple(ids))
                for name, fragments, ids in data.get("mentions", ())
            ),
            masked=tuple((int(start), int(end)) for start, end in data.get("masked", ())),
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise VanerError(Messages.VE015.format(error=error, text=doc.text[:60])) from error


def _names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise TypeError(f"{names!r} must be a list of types")
    return tuple(names)


def set_ask(doc: Doc, types: Iterable[str], corpus: CorpusName) -> None:
    """Write what prediction is to ask of this document; for readers and evaluation only."""
    name = corpus if corpus is None or isinstance(corpus, str) else dict(corpus)
    ask = {"types": list(types), "corpus": name}
    doc.user_data[KEY] = {**(doc.user_data.get(KEY) or {}), "ask": ask}


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
