"""The scorer spacy-vaner.ner_scorer.v1: strict scores by character offsets."""

from collections.abc import Callable, Iterable
from typing import Any

from spacy.scorer import get_ner_prf
from spacy.training import Example

from spacy_vaner.gold import KEY, get_gold, gold_from_ents
from spacy_vaner.metrics import Counts, count
from spacy_vaner.predictions import LABEL_MAP_KEY, PREDICTIONS_KEY


def make_ner_scorer() -> Callable[..., dict[str, Any]]:
    """Make the scorer."""
    return score_ner


def score_ner(examples: Iterable[Example], **kwargs: Any) -> dict[str, Any]:
    """Strict precision, recall and F1 over the types that the documents annotate completely.

    Exact character offsets and type decide; spaCy's own token-based scores of doc.ents stand
    beside ours.

    RETURNS: vaner_p, vaner_r, vaner_f, vaner_f_per_type, ents_p, ents_r, ents_f, ents_per_type;
        None where nothing is there to score.
    """
    examples = list(examples)
    per_type: dict[str, Counts] = {}
    for example in examples:
        predictions = example.predicted.user_data.get(PREDICTIONS_KEY, ())
        label_map = example.predicted.user_data.get(LABEL_MAP_KEY, {})
        gold = get_gold(example.reference)
        if gold is None:
            ask = (example.predicted.user_data.get(KEY) or {}).get("ask") or {}
            labels = {span[0] for span in predictions} | {e.label_ for e in example.reference.ents}
            types = ask.get("types") or sorted({*label_map, *labels} - {*label_map.values()})
            gold = gold_from_ents(example.reference, types, label_map)
        counts = count(
            [(mention.type, mention.fragments) for mention in gold.mentions],
            [(name, start, end) for name, start, end, _ in predictions],
            gold.types,
        )
        for name, counted in counts.items():
            per_type[name] = per_type.get(name, Counts()) + counted
    total = sum(per_type.values(), Counts())
    return {
        "vaner_p": total.p,
        "vaner_r": total.r,
        "vaner_f": total.f,
        "vaner_f_per_type": {
            name: {"p": counted.p, "r": counted.r, "f": counted.f}
            for name, counted in sorted(per_type.items())
        },
        **get_ner_prf(examples),
    }
