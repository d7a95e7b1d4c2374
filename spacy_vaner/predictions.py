"""Predictions on a Doc: from exact offsets to tokens, to doc.spans and doc.ents, and back.

What is written where is described in docs/formats.md, section 2.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import NamedTuple

import numpy as np
from spacy.tokens import Doc, Span, SpanGroup, Token

from spacy_vaner.decoding import choose_non_overlapping
from spacy_vaner.types import ScoredSpan

PREDICTIONS_KEY = "vaner_predictions"
LABEL_MAP_KEY = "vaner_label_map"
_START = itemgetter(1)

TokenSpan = tuple[str, int, int, float]
"""Label, start and end in tokens, probability."""


class Prediction(NamedTuple):
    """What a component says about a document.

    asked: the types that were asked; of these `spans` holds all that was found.
    """

    asked: tuple[str, ...]
    spans: list[ScoredSpan]


def write_predictions(
    doc: Doc,
    prediction: Prediction,
    *,
    spans_key: str | None,
    annotate_ents: bool,
    overwrite_ents: bool,
    label_map: Mapping[str, str],
    priority: Sequence[str],
    retokenize: bool,
) -> None:
    """Write predicted spans to a document.

    What other components found, of types that were not asked here, stays in the table.

    priority: labels in the order in which they win, all else being equal.
    The other arguments are the settings of the component.
    """
    others = [
        row for row in doc.user_data.get(PREDICTIONS_KEY, ()) if row[0] not in prediction.asked
    ]
    rows = sorted([*others, *prediction.spans], key=lambda row: (row[1], row[2], row[0]))
    doc.user_data[PREDICTIONS_KEY] = [list(row) for row in rows]
    labels = {
        name: label
        for name, label in doc.user_data.get(LABEL_MAP_KEY, {}).items()
        if name not in prediction.asked
    }
    labels.update({name: label_map[name] for name in prediction.asked if name in label_map})
    if labels:
        doc.user_data[LABEL_MAP_KEY] = labels
    else:
        doc.user_data.pop(LABEL_MAP_KEY, None)
    spans = prediction.spans
    if retokenize:
        split_tokens(doc, {offset for span in spans for offset in (span.start, span.end)})
    projected = project(doc, spans, label_map)
    if spans_key is not None:
        doc.spans[spans_key] = SpanGroup(
            doc,
            name=spans_key,
            spans=[Span(doc, start, end, label) for label, start, end, _ in projected],
            attrs={"scores": np.array([span[3] for span in projected], dtype="f8")},
        )
    if annotate_ents:
        _set_ents(doc, projected, overwrite=overwrite_ents, priority=priority)


def project(doc: Doc, spans: Iterable[ScoredSpan], label_map: Mapping[str, str]) -> list[TokenSpan]:
    """Widen exact offsets to tokens; of spans that become equal the most probable is kept.

    RETURNS: in the order (start, end, label).
    """
    token_starts = doc.to_array("IDX").astype(np.int64)
    best: dict[tuple[int, int, str], float] = {}
    for span in spans:
        start = int(np.searchsorted(token_starts, span.start, side="right")) - 1
        end = int(np.searchsorted(token_starts, span.end, side="left"))
        key = (start, end, label_map.get(span.type, span.type))
        best[key] = max(best.get(key, 0.0), span.probability)
    return [(label, start, end, best[start, end, label]) for start, end, label in sorted(best)]


def _set_ents(
    doc: Doc, projected: Sequence[TokenSpan], *, overwrite: bool, priority: Sequence[str]
) -> None:
    earlier = list(doc.ents)
    if not overwrite:
        taken = {token.i for ent in earlier for token in ent}
        projected = [span for span in projected if taken.isdisjoint(range(span[1], span[2]))]
    ours = choose_non_overlapping(projected, priority)
    covered = {position for span in ours for position in range(span[1], span[2])}
    kept = [ent for ent in earlier if covered.isdisjoint(range(ent.start, ent.end))]
    ents = kept + [Span(doc, start, end, label) for label, start, end, _ in ours]
    doc.set_ents(sorted(ents, key=lambda ent: ent.start), default="outside")


def split_tokens(doc: Doc, offsets: set[int]) -> None:
    """Split the tokens that the offsets cut.

    The parts take over the token's annotation; in a parse they hang on the first one as "subtok".
    Sentences, entities and span groups are kept.
    """
    cuts = {
        token.i: sorted(o - token.idx for o in offsets if token.idx < o < token.idx + len(token))
        for token in doc
    }
    if not any(cuts.values()):
        return
    groups = {
        key: (group.attrs, [(s.start_char, s.end_char, s.label_, s.kb_id_, s.id_) for s in group])
        for key, group in doc.spans.items()
    }
    known = {token.idx for token in doc}
    is_parsed, has_sentences = doc.has_annotation("DEP"), doc.has_annotation("SENT_START")
    with doc.retokenize() as retokenizer:
        for index, inner in cuts.items():
            if inner:
                token = doc[index]
                bounds = [0, *inner, len(token)]
                orths = [token.text[i:j] for i, j in zip(bounds, bounds[1:], strict=False)]
                retokenizer.split(
                    token,
                    orths,
                    heads=_heads_of_parts(token, len(orths), is_parsed=is_parsed),
                    attrs=_attributes_of_parts(token, len(orths), is_parsed=is_parsed),
                )
    if not is_parsed:
        for token in doc:
            if token.idx not in known:
                token.is_sent_start = False if has_sentences else None
    # spaCy adds a row too many for every split.
    doc.tensor = doc.tensor[: len(doc)]
    for key, (group_attrs, spans) in groups.items():
        restored = []
        for start, end, label, kb_id, span_id in spans:
            span = doc.char_span(start, end, label, kb_id=kb_id)
            assert span is not None
            span.id_ = span_id
            restored.append(span)
        doc.spans[key] = SpanGroup(doc, name=key, spans=restored, attrs=group_attrs)


def _heads_of_parts(
    token: Token, n_parts: int, *, is_parsed: bool
) -> list[Token | tuple[Token, int]]:
    """The first part keeps the token's place in the tree; without a parse all are their own."""
    if not is_parsed:
        return [(token, part) for part in range(n_parts)]
    head = (token, 0) if token.head.i == token.i else token.head
    return [head, *[(token, 0)] * (n_parts - 1)]


def _attributes_of_parts(
    token: Token, n_parts: int, *, is_parsed: bool
) -> dict[str | int, list[str]]:
    # What is not set, spaCy takes from the token that stood in the place of the part before.
    attributes: dict[str | int, list[str]] = {
        "POS": [token.pos_] * n_parts,
        "TAG": [token.tag_] * n_parts,
        "MORPH": [str(token.morph)] * n_parts,
        "ENT_TYPE": [token.ent_type_] * n_parts,
        "ENT_KB_ID": [token.ent_kb_id_] * n_parts,
        "ENT_ID": [token.ent_id_] * n_parts,
        "DEP": [token.dep_, *["subtok" if is_parsed else ""] * (n_parts - 1)],
    }
    return attributes


def get_probability(span: Span) -> float | None:
    """The probability of a span or entity; None if no prediction has its boundaries and label.

    Registered as `span._.vaner_probability`.
    """
    if not len(span):
        return None
    predictions = span.doc.user_data.get(PREDICTIONS_KEY, ())
    label_map = span.doc.user_data.get(LABEL_MAP_KEY, {})
    first, last = span[0], span[-1]
    best = None
    # They are sorted by start, and one that was widened to this span starts in its first token.
    for position in range(bisect_left(predictions, first.idx, key=_START), len(predictions)):
        type_name, start, end, probability = predictions[position]
        if start >= first.idx + len(first):
            break
        if (
            label_map.get(type_name, type_name) == span.label_
            and last.idx < end <= last.idx + len(last)
            and (best is None or probability > best)
        ):
            best = probability
    return best


Span.set_extension("vaner_probability", getter=get_probability, force=True)
