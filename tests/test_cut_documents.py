"""Long documents in pieces, for trainers that take a document per update."""

from __future__ import annotations

import runpy
from pathlib import Path

from spacy_vaner.corpora.docbins import make_tokenizer
from spacy_vaner.gold import KEY, Gold, get_gold
from spacy_vaner.types import Mention

SCRIPT = Path(__file__).parent.parent / "project/scripts/cut_documents.py"
LINES = "Mice were fed.\nRats were not.\n\nSome yeast grew.\nE. coli of old age\ndid too."


def test_masked_stretches_and_alternatives_stay_on_their_text() -> None:
    pieces = runpy.run_path(str(SCRIPT), run_name="cut")["pieces"]
    doc = make_tokenizer()(LINES)
    # From the second line into the third, and the name of the fourth.
    masked = (LINES.index("not."), LINES.index("yeast")), (LINES.index("E. coli"), len(LINES))
    start = LINES.index("coli")
    other = Mention("Species", ((start, start + len("coli")),), ())
    gold = Gold(types=("Species",), masked=masked, alternatives=(other,))
    doc.user_data[KEY] = gold.to_user_data()

    cut = [(piece.text, get_gold(piece)) for piece in pieces(doc, 5)]

    assert [[text[start:end] for start, end in own.masked] for text, own in cut if own] == [
        [],
        ["not.\n\n"],
        ["Some "],
        ["E. coli of old age\n"],
        ["did too."],
    ]
    told = [text[slice(*one.fragments[0])] for text, own in cut if own for one in own.alternatives]
    assert told == ["coli"]


def test_pieces_hold_all_words_and_the_mentions_where_they_stand() -> None:
    pieces = runpy.run_path(str(SCRIPT), run_name="cut")["pieces"]
    doc = make_tokenizer()(LINES)
    found = [(LINES.index(name), name) for name in ("Mice", "Rats", "yeast")]
    halved = LINES.index("age\ndid")
    mentions = [Mention("Species", ((start, start + len(name)),), ()) for start, name in found]
    mentions.append(Mention("Species", ((halved, halved + len("age\ndid")),), ()))
    doc.user_data[KEY] = Gold(
        corpus="toy", types=("Species",), mentions=tuple(mentions)
    ).to_user_data()
    doc.ents = [doc.char_span(start, start + len(name), label="Species") for start, name in found]

    cut = list(pieces(doc, 5))

    assert "".join(piece.text_with_ws for piece in cut) == LINES
    assert all(len(piece) >= 5 for piece in cut[:-1])
    assert len(cut) == 5
    told = []
    for piece in cut:
        gold = get_gold(piece)
        assert gold is not None and (gold.corpus, gold.types) == ("toy", ("Species",))
        names = [piece.text[start:end] for m in gold.mentions for start, end in m.fragments]
        assert names == [ent.text for ent in piece.ents]
        told += names
    assert told == ["Mice", "Rats", "yeast"]
