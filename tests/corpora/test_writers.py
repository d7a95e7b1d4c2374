"""Every format: what is written is read again, as far as the format can carry it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from spacy_vaner.corpora.formats import FORMATS, read_records, write_records
from spacy_vaner.errors import VanerError
from spacy_vaner.types import Mention, Record

WRITTEN = sorted(name for name, row in FORMATS.items() if row.write)
NAMES = {"bc2gm": "train.in"}
TEXT = "Breast and ovarian cancer, α-synuclein & <BRCA1> in \U0001d6c3 mice."
RECORD = Record(
    id="123",
    text=TEXT,
    mentions=(
        Mention("Disease", ((0, 6), (19, 25)), ("D1",)),
        Mention("Disease", ((0, 25),), ("D1", "D2")),
        Mention("Disease", ((11, 25),)),
        Mention("Gene", ((27, 38),)),
        Mention("Gene", ((42, 47),), ("672",)),
        Mention("Species", ((54, 58),)),
    ),
)


def reading(name):
    return {"type_name": "Disease"} if name == "vaner_jsonl" else {}


def test_every_format_can_be_written():
    assert set(WRITTEN) == set(FORMATS)


def carried(record, name):
    """The mentions that a format can carry, by its own word."""
    row = FORMATS[name]
    mentions = list(record.mentions)
    if name == "vaner_jsonl":
        mentions = [m for m in mentions if m.type == "Disease"]
    if "discontinuous" not in row.carries:
        mentions = [m for m in mentions if len(m.fragments) == 1]
    if "nested" not in row.carries:
        outer = []
        for m in sorted(mentions, key=lambda m: (m.fragments[0][0], -m.fragments[0][1])):
            if not outer or m.fragments[0][0] >= outer[-1].fragments[0][1]:
                outer.append(m)
        mentions = sorted(outer, key=lambda m: (m.fragments, m.type))
    return [m if "ids" in row.carries else replace(m, ids=()) for m in mentions]


def black(record):
    """Text without white space, and mentions by offsets into that: for formats of words."""
    place = [0]
    for character in record.text:
        place.append(place[-1] + (not character.isspace()))
    return "".join(record.text.split()), [
        (m.type, tuple((place[s], place[e]) for s, e in m.fragments)) for m in record.mentions
    ]


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_is_read_again(name, tmp_path):
    path = tmp_path / NAMES.get(name, "out.spacy")
    left_out = Counter()
    write_records([RECORD], path, name, note=lambda c, w: left_out.update([c]), **reading(name))
    assert not list(tmp_path.rglob("*.part"))
    notes = Counter()
    found = list(read_records(path, name, note=lambda c, w: notes.update([c]), **reading(name)))
    expected = carried(RECORD, name)
    n_left_out = len(RECORD.mentions) - len(expected)
    assert sum(left_out[c] for c in left_out if c.endswith("left out") and "ident" not in c) == (
        n_left_out
    )
    assert not notes
    if name == "vaner_jsonl":
        (record,) = found
    else:
        (record,) = found
        assert record.id == "123"
    if "text" in FORMATS[name].carries:
        assert record.text == TEXT
        given = [
            m if "ids" in FORMATS[name].carries else replace(m, ids=()) for m in record.mentions
        ]
        assert given == expected
    else:
        assert black(record) == black(replace(RECORD, mentions=tuple(expected)))


# No white space that a line-based format must change, and words in between, so that offsets lie at
# letters.
WORDS = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp", "Cn", "Co", "Cf")),
    min_size=1,
    max_size=8,
).filter(lambda word: word.strip() and not word.startswith("-DOCSTART-"))


@st.composite
def records(draw):
    made = []
    for number in range(draw(st.integers(1, 3))):
        words = draw(st.lists(WORDS, min_size=2, max_size=8))
        text = " ".join(words)
        starts = [m.start() for m in re.finditer(r"\S+", text)]
        ends = [m.end() for m in re.finditer(r"\S+", text)]
        mentions = {}
        for _ in range(draw(st.integers(0, 4))):
            i = draw(st.integers(0, len(starts) - 1))
            j = draw(st.integers(i, len(starts) - 1))
            fragments = ((starts[i], ends[j]),)
            if j + 2 < len(starts) and draw(st.booleans()):
                fragments += ((starts[j + 2], ends[j + 2]),)
            type_ = draw(st.sampled_from(["Disease", "Gene"]))
            mentions[fragments, type_] = Mention(type_, fragments)
        ordered = tuple(sorted(mentions.values(), key=lambda m: (m.fragments, m.type)))
        made.append(Record(f"doc{number}", text, ordered))
    return made


@pytest.mark.parametrize("name", [name for name in WRITTEN if "text" in FORMATS[name].carries])
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(made=records())
def test_round_trip_of_any_records(tmp_path_factory, name, made):
    path = tmp_path_factory.mktemp("out") / NAMES.get(name, "out.spacy")
    if name == "bc2gm" and not any(len(m.fragments) == 1 for r in made for m in r.mentions):
        return  # No answers, no file of answers.
    write_records(made, path, name)
    found = list(read_records(path, name))
    assert [(r.id, r.text) for r in found] == [(r.id, r.text) for r in made]
    for got, expected in zip(found, made, strict=True):
        assert [(m.type, m.fragments) for m in got.mentions] == [
            (m.type, m.fragments) for m in carried(expected, name)
        ]


@settings(max_examples=25, deadline=None)
@given(made=records())
def test_round_trip_of_tagged_words(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("out") / "out.iob"
    write_records(made, path, "iob")
    for got, expected in zip(read_records(path, "iob"), made, strict=True):
        simple = tuple(carried(expected, "iob"))
        assert black(got) == black(replace(expected, mentions=simple))


def test_what_cannot_be_written_is_said(tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("keep")
    with pytest.raises(VanerError, match="VE217: .*full"):
        write_records([RECORD], tmp_path / "full", "brat")
    assert (tmp_path / "full" / "mine.txt").read_text() == "keep"
    with pytest.raises(VanerError, match="VE219: .*different names.*123"):
        write_records([RECORD, RECORD], tmp_path / "twice", "brat")
    assert not (tmp_path / "twice").exists() and not list(tmp_path.glob("*.part"))
    with pytest.raises(VanerError, match="VE219: .*one type.*Disease, Gene"):
        write_records([RECORD], tmp_path / "out.jsonl", "vaner_jsonl")
    assert not list(tmp_path.glob("out*"))
    monkeypatch.setitem(FORMATS, "iob", replace(FORMATS["iob"], write=None))
    with pytest.raises(VanerError, match="VE218: .*'iob'.*brat"):
        write_records([RECORD], tmp_path / "out.iob", "iob")


@pytest.mark.parametrize("version", [1, 2])
def test_both_versions_of_knowtator(tmp_path, version):
    class_ = replace(RECORD, mentions=(Mention("CHEBI", ((0, 6), (19, 25)), ("CHEBI:17234",)),))
    write_records([class_], tmp_path / "out", "knowtator", version=version)
    (record,) = read_records(tmp_path / "out", "knowtator")
    assert record.mentions == class_.mentions
