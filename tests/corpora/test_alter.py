"""Altered copies of converted corpora: the text changes, the mentions stay what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import spacy
from spacy.tokens import Doc
from typer.testing import CliRunner

from spacy_vaner.cli import vaner_app
from spacy_vaner.corpora.alter import ALTERATIONS, alter
from spacy_vaner.corpora.docbins import docs_to_bytes, read_docs
from spacy_vaner.gold import KEY, get_gold

TEXT = "Anemia and TNF-α in Hematologic tumors; IFN-gamma, leukemia. Straße"
MENTIONS = [
    ["Disease", [[0, 6]], ["D1"]],
    ["Gene", [[11, 16]], []],
    ["Disease", [[20, 38]], []],
    ["Gene", [[40, 49]], []],
    ["Disease", [[20, 31], [51, 59]], []],
    # Half of a word that is spelled otherwise.
    ["Part", [[32, 36]], []],
]


@pytest.fixture
def doc() -> Doc:
    made = spacy.blank("en")(TEXT)
    made[0].is_sent_start = True
    for token in made[1:]:
        token.is_sent_start = token.text == "Straße"
    made.user_data[KEY] = {
        "corpus": "mine",
        "types": ["Disease", "Gene", "Part"],
        "mentions": MENTIONS,
        "masked": [[51, 60]],
        "alternatives": [["Disease", [[32, 38]], []]],
    }
    made.set_ents([made.char_span(0, 6, "Disease")])
    made.spans["gold"] = [made.char_span(0, 6, "Disease"), made.char_span(40, 49, "Gene")]
    return made


def texts(doc: Doc) -> list[tuple[str, str]]:
    gold = get_gold(doc)
    assert gold is not None
    return [
        (one.type, "…".join(doc.text[start:end] for start, end in one.fragments))
        for one in gold.mentions
    ]


@pytest.mark.parametrize(
    ("how", "text", "mentions"),
    [
        (
            "lower",
            TEXT.lower(),
            ["anemia", "tnf-α", "hematologic tumors", "ifn-gamma", "hematologic…leukemia", "tumo"],
        ),
        (
            "upper",
            TEXT.upper().replace("STRASSE", "STRAßE"),
            ["ANEMIA", "TNF-Α", "HEMATOLOGIC TUMORS", "IFN-GAMMA", "HEMATOLOGIC…LEUKEMIA", "TUMO"],
        ),
        (
            "title",
            "Anemia and TNF-α in Hematologic Tumors; IFN-Gamma, Leukemia. Straße",
            ["Anemia", "TNF-α", "Hematologic Tumors", "IFN-Gamma", "Hematologic…Leukemia", "Tumo"],
        ),
        (
            "british",
            "Anaemia and TNF-α in Haematologic tumours; IFN-gamma, leukaemia. Straße",
            [
                *("Anaemia", "TNF-α", "Haematologic tumours", "IFN-gamma"),
                *("Haematologic…leukaemia", "tumour"),
            ],
        ),
        (
            "greek-names",
            TEXT.replace("α", "alpha"),
            [
                *("Anemia", "TNF-alpha", "Hematologic tumors", "IFN-gamma"),
                *("Hematologic…leukemia", "tumo"),
            ],
        ),
        (
            "greek-letters",
            TEXT.replace("gamma", "γ"),
            ["Anemia", "TNF-α", "Hematologic tumors", "IFN-γ", "Hematologic…leukemia", "tumo"],
        ),
    ],
)
def test_mentions_are_moved_along(doc: Doc, how: str, text: str, mentions: list[str]) -> None:
    (made,) = alter([doc], how)
    assert made.text == text and len(made) == len(doc)
    assert [found for _, found in texts(made)] == mentions
    assert [one for one, _ in texts(made)] == [one for one, *_ in MENTIONS]
    gold = get_gold(made)
    assert gold is not None and gold.corpus == f"mine ({how})"
    (masked,), (other,) = gold.masked, gold.alternatives
    assert made.text[slice(*masked)].lower() in ("leukemia.", "leukaemia.")
    assert made.text[slice(*other.fragments[0])].lower() in ("tumors", "tumours")
    assert [token.is_sent_start for token in made] == [token.is_sent_start for token in doc]
    assert [(one.start, one.end, one.label_) for one in made.spans["gold"]] == [
        (one.start, one.end, one.label_) for one in doc.spans["gold"]
    ]
    assert [ent.label_ for ent in made.ents] == ["Disease"] and made.ents[0].text == mentions[0]


def test_british_spelling_stays() -> None:
    made = spacy.blank("en")("Oedema of the OESOPHAGUS, EDEMA, edematous sulfate")
    made.user_data[KEY] = {"types": ["Disease"], "mentions": []}
    (altered,) = alter([made], "british")
    assert altered.text == "Oedema of the OESOPHAGUS, OEDEMA, oedematous sulphate"


def test_cells_are_mentions_alone(doc: Doc) -> None:
    cells = list(alter([doc], "cells"))
    assert [cell.text for cell in cells] == ["Anemia", "TNF-α", "Hematologic tumors", "IFN-gamma"]
    assert texts(cells[2]) == [("Disease", "Hematologic tumors"), ("Part", "tumo")]


def test_no_cell_is_made_of_masked_text(doc: Doc) -> None:
    doc.user_data[KEY]["masked"] = [[8, 12], [38, 52]]
    assert [cell.text for cell in alter([doc], "cells")] == ["Anemia", "Hematologic tumors"]


def test_documents_without_annotation_are_left_out() -> None:
    plain = spacy.blank("en")("nothing is said of this one")
    assert all(not list(alter([plain], how)) for how in ALTERATIONS)


def test_the_command_writes_a_file_per_alteration(doc: Doc, tmp_path: Path) -> None:
    path = tmp_path / "mine.text.dev.spacy"
    path.write_bytes(docs_to_bytes([doc, doc]))
    words = ["alter", str(path), str(tmp_path / "out"), "--how", "upper, british"]
    result = CliRunner().invoke(vaner_app, words)
    assert result.exit_code == 0, result.output
    names = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert names == ["mine.text.british.dev.spacy", "mine.text.upper.dev.spacy"]
    first, second = read_docs(tmp_path / "out" / names[0])
    assert texts(first) == texts(second) == texts(next(alter([doc], "british")))
    for wrong, message in (([*words[:4], "loud"], "VE240"), (["alter", "x.spacy", "out"], "VE241")):
        result = CliRunner().invoke(vaner_app, wrong)
        assert result.exit_code == 1 and message in result.output


def test_of_a_folder_the_files_of_one_split_are_altered(doc: Doc, tmp_path: Path) -> None:
    for split in ("train", "dev"):
        (tmp_path / f"A.text.{split}.spacy").write_bytes(docs_to_bytes([doc]))
    arguments = ["alter", str(tmp_path), str(tmp_path / "out"), "--how", "lower"]
    result = CliRunner().invoke(vaner_app, [*arguments, "--split", "train"])
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["A.text.lower.train.spacy"]
    result = CliRunner().invoke(vaner_app, [*arguments, "--split", "test"])
    assert result.exit_code == 1 and "VE302" in result.output
