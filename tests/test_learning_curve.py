"""Sentences that a new type is learned from."""

from __future__ import annotations

import runpy
from pathlib import Path

import spacy

from spacy_vaner.gold import KEY, Gold, get_gold
from spacy_vaner.types import Mention

SCRIPT = Path(__file__).parent.parent / "project/scripts/learning_curve.py"
TEXT = "Some yeast grew. Mice ate yeast. Rats did too."


def test_masked_text_is_no_lesson() -> None:
    sentences_of = runpy.run_path(str(SCRIPT), run_name="curve")["sentences_of"]
    nlp = spacy.blank("en")
    first, second = TEXT.index("yeast"), TEXT.rindex("yeast")
    mice = TEXT.index("Mice"), TEXT.index("Mice") + 4
    mentions = [Mention("Species", (place,)) for place in ((first, first + 5), mice)]
    mentions.append(Mention("Gene", ((second, second + 5),), ()))
    doc = nlp(TEXT)
    doc.user_data[KEY] = Gold(
        types=("Species", "Gene"), mentions=tuple(mentions), masked=(mice,)
    ).to_user_data()

    cut = list(sentences_of(nlp, [doc], "Species"))
    assert [one.text for one in cut] == ["Some yeast grew.", "Rats did too."]
    assert not doc.has_annotation("SENT_START")

    for token in doc:
        token.is_sent_start = token.text in ("Some", "Mice", "did")
    sentences = list(sentences_of(nlp, [doc], "Species"))
    assert [one.text for one in sentences] == ["Some yeast grew.", "did too."]
    golds = [get_gold(one) for one in sentences]
    assert all(gold is not None and gold.types == ("Species",) for gold in golds)
    assert [gold.mentions for gold in golds if gold] == [(mentions[0],), ()]
