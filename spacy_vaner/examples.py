"""What spaCy's Examples teach the component: a check of their annotation, and training rows."""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

from spacy.tokens import Doc
from spacy.training import Example

from spacy_vaner.errors import Messages, VanerError, VanerWarning
from spacy_vaner.gold import CorpusName, Gold, get_ask, get_gold, gold_from_ents, name_for
from spacy_vaner.model import TaggerModel, learns, make_rows, read_document, share_rows
from spacy_vaner.reading import Question, Reading, Row
from spacy_vaner.targets import Target, gold_tags, make_targets


def check_annotation(
    examples: Iterable[Example], types: Sequence[str], label_map: Mapping[str, str]
) -> None:
    """Refuse types that no example is annotated for, if examples say what they hold.

    RAISES VanerError: VE018, the examples are annotated for none of the types.
    WARNS VanerWarning: VW018, for some of them; VW019, entities have labels of no type.
    """
    labels = {label_map.get(name, name) for name in types}
    annotated: set[str] = set()
    found: set[str] = set()
    for example in examples:
        gold = get_gold(example.reference)
        if gold is None:
            found.update(ent.label_ for ent in example.reference.ents)
        else:
            annotated.update(gold.types, gold.partial)
    if not annotated and not found:
        return
    if not found.isdisjoint(labels):
        # Plain spaCy data is annotated for whatever the component asks.
        annotated.update(types)
    missing = [name for name in types if name not in annotated]
    known = sorted(annotated | found)
    if len(missing) == len(types):
        raise VanerError(Messages.VE018.format(types=missing, annotated=known))
    if missing:
        warnings.warn(
            Messages.VW018.format(types=missing, annotated=known), VanerWarning, stacklevel=3
        )
    if unknown := sorted(found.difference(labels)):
        warnings.warn(Messages.VW019.format(labels=unknown), VanerWarning, stacklevel=3)


def training_rows(
    model: TaggerModel,
    example: Example,
    types: Sequence[str],
    *,
    corpus: CorpusName,
    label_map: Mapping[str, str],
) -> Iterator[tuple[Row, list[Target]]]:
    """Rows of one example with what each answer should be; rows without any label are left out.

    types: what is asked, as far as the example is annotated for it and training changes it.
    corpus: name in the instruction where neither document nor annotation gives one.
    RAISES VanerError: VE019, the two sides of the example have different texts.
    """
    doc = example.predicted
    if doc.text != example.reference.text:
        raise VanerError(Messages.VE019.format(text=example.reference.text[:60]))
    gold = get_gold(example.reference) or gold_from_ents(example.reference, types, label_map)
    asked = learned_types(model, example, types)
    if not asked:
        return
    reading = read_document(model, doc)
    questions = [Question(name, _corpus_in_training(doc, gold, name, corpus)) for name in asked]
    for group in share_rows(model, questions):
        shared = [questions[index] for index in group]
        targets = [_targets(model, reading, gold, question.type) for question in shared]
        rows = make_rows(model, reading, *shared)
        # Per row, then per question.
        for row, of_row in zip(rows, zip(*targets, strict=True), strict=True):
            if any(len(target.tags) for target in of_row):
                yield row, list(of_row)


def learned_types(model: TaggerModel, example: Example, types: Sequence[str]) -> list[str]:
    """Those of the types that an example is annotated for and that training changes."""
    gold = get_gold(example.reference)
    annotated = types if gold is None else (*gold.types, *gold.partial)
    return [name for name in types if name in annotated and learns(model, name)]


def _targets(model: TaggerModel, reading: Reading, gold: Gold, name: str) -> list[Target]:
    """What the windows of a reading should be labelled for a type."""
    tags = gold_tags(
        reading.units,
        [mention.fragments for mention in gold.mentions if mention.type == name],
        gold.masked,
        is_complete=name in gold.types,
    )
    return make_targets(
        reading, tags, labelled_subwords=model.attrs["labelled_subwords"], weight=gold.weight
    )


def _corpus_in_training(doc: Doc, gold: Gold, name: str, corpus: CorpusName) -> str | None:
    return name_for(get_ask(doc).get("corpus", gold.names or corpus), name)
