"""The scorer spacy-vaner.ner_scorer.v1: strict scores by character offsets."""

from collections.abc import Callable, Iterable
from typing import Any

from spacy.scorer import get_ner_prf
from spacy.tokens import Span
from spacy.training import Example

from spacy_vaner.gold import Gold, get_ask, get_gold, gold_from_ents
from spacy_vaner.metrics import Counts, count
from spacy_vaner.predictions import LABEL_MAP_KEY, PREDICTIONS_KEY

Predicted = tuple[str, int, int]
"""Type, start and end of a prediction."""


def make_ner_scorer() -> Callable[..., dict[str, Any]]:
    """Make the scorer."""
    return score_ner


def score_ner(
    examples: Iterable[Example], *, labels: Iterable[str] | None = None, **kwargs: Any
) -> dict[str, Any]:
    """Strict precision, recall and F1 over the types that the documents annotate completely.

    Exact character offsets and type decide; spaCy's own token-based scores of doc.ents stand
    beside ours. Where a document says what is asked of it, other types are not scored.

    labels: those of the component, for documents that are plain spaCy data.
    RETURNS: vaner_p, vaner_r, vaner_f, vaner_f_per_type, ents_p, ents_r, ents_f, ents_per_type;
        None where nothing is there to score.
    """
    examples = list(examples)
    labels = None if labels is None else set(labels)
    per_type: dict[str, Counts] = {}
    for example in examples:
        data = example.predicted.user_data
        predicted = [(name, start, end) for name, start, end, _ in data.get(PREDICTIONS_KEY, ())]
        gold = get_gold(example.reference)
        types = set(get_ask(example.predicted).get("types", ()))
        if gold is None:
            gold, predicted = _in_labels(example, predicted, labels)
            types = types or set(gold.types)
        elif not types:
            label_map = data.get(LABEL_MAP_KEY, {})
            types = {
                name for name in gold.types if labels is None or label_map.get(name, name) in labels
            }
        counts = count(
            [(mention.type, mention.fragments) for mention in gold.mentions],
            predicted,
            [name for name in gold.types if name in types],
        )
        for name, counted in counts.items():
            per_type[name] = per_type.get(name, Counts()) + counted
    total = sum(per_type.values(), Counts())
    return {
        **{f"vaner_{key}": value for key, value in _prf(total).items()},
        "vaner_f_per_type": {name: _prf(counts) for name, counts in sorted(per_type.items())},
        **get_ner_prf([_with_labels(example) for example in examples]),
    }


def _prf(counts: Counts) -> dict[str, float | None]:
    # spaCy forgets the weight of a score that is None once, so it may be so only without gold.
    p = counts.p if counts.p is not None or not counts.gold else 0.0
    return {"p": p, "r": counts.r, "f": counts.f}


def _with_labels(example: Example) -> Example:
    """The example with gold entities renamed by the label map of the predictions."""
    label_map = example.predicted.user_data.get(LABEL_MAP_KEY)
    if not label_map or get_gold(example.reference) is None:
        return example
    reference = example.reference.copy()
    reference.set_ents(
        [
            Span(reference, ent.start, ent.end, label_map.get(ent.label_, ent.label_))
            for ent in reference.ents
        ],
        default="unmodified",
    )
    return Example(example.predicted, reference)


def _in_labels(
    example: Example, predicted: Iterable[Predicted], labels: Iterable[str] | None
) -> tuple[Gold, list[Predicted]]:
    """Gold and predictions where the gold are plain entities, which have labels and no types.

    labels: those that count; None = all that occur.
    RETURNS: both in types; a type stands for all that share its label.
    """
    label_map = example.predicted.user_data.get(LABEL_MAP_KEY, {})
    predicted = list(predicted)
    if labels is None:
        labels = {label_map.get(name, name) for name, _, _ in predicted}
        labels |= {entity.label_ for entity in example.reference.ents}
    type_of = {label: label for label in labels if label not in label_map.values()}
    for name, label in reversed(label_map.items()):
        if label in labels:
            type_of[label] = name
    gold = gold_from_ents(example.reference, sorted(type_of.values()), label_map)
    return gold, [
        (type_of.get(label_map.get(name, name), name), start, end) for name, start, end in predicted
    ]
