"""The readers: offsets are exact, nothing is lost, a malformed line is named."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spacy_vaner.corpora.formats import FORMATS, read_records, write_records
from spacy_vaner.errors import VanerError
from spacy_vaner.types import Mention, Record


@pytest.fixture
def read(tmp_path):
    """Write a text (or bytes) and read it; notes are counted in `read.notes`."""

    def read(content, format_name, **options):
        path = tmp_path / "corpus.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf8"))
        return list(read_records(path, format_name, note=read.note, **options))

    read.notes = Counter()
    read.note = lambda cause, where: read.notes.update([cause])
    return read


def surfaces(record: Record) -> list[tuple[str, str]]:
    return [
        (m.type, " ".join(record.text[start:end] for start, end in m.fragments))
        for m in record.mentions
    ]


PUBTATOR = """\
123|t|Naloxone reverses clonidine.
123|a|It did - in β-cells.
123\t0\t8\tNaloxone\tChemical\tD009270|D1
123\t18\t27\tclonidine\tChemical\t-1
123\t41\t48\tβ cells\tCell
123\tCID\tD009270\tD003000

x9|t|
x9|a|
7|t|No abstract.
"""


def test_pubtator_text_is_title_blank_abstract(read):
    first, empty, last = read(PUBTATOR, "pubtator")
    assert first.text == "Naloxone reverses clonidine. It did - in β-cells."
    assert surfaces(first) == [
        ("Chemical", "Naloxone"),
        ("Chemical", "clonidine"),
        ("Cell", "β-cells"),
    ]
    assert [m.ids for m in first.mentions] == [("D009270", "D1"), (), ()]
    assert (empty.id, empty.text, empty.mentions) == ("x9", " ", ())
    assert (last.id, last.text) == ("7", "No abstract.")
    assert first.source.endswith("corpus.txt:1") and last.source.endswith(":10")
    assert read.notes == {"misaligned": 1, "relation line": 1}


def test_jsonl_keys(read):
    row = {
        "id": 5,
        "pmid": 99,
        "text": "pain 😀 of back and neck",
        "ents": [[0, 4, "Disease", "pain", "D010146"], [5, 6, "Emoji"], [0, 4, "Disease"]],
        "disc": [[[[19, 23], [0, 4]], "Disease"]],
        "overlap": ["BC5CDR:test"],
    }
    (record,) = read("\n" + json.dumps(row) + "\n", "jsonl")
    assert (record.id, record.pmid, record.words) == ("5", "99", None)
    assert surfaces(record) == [("Disease", "pain"), ("Disease", "pain neck"), ("Emoji", "😀")]
    assert record.mentions[0].ids == ("D010146",)
    assert read.notes == {"repeated mention": 1}


def test_jsonl_mention_whose_text_differs_is_kept_and_noted(read):
    (record,) = read('{"text": "a pain", "ents": [[0, 4, "Disease", "pain"]]}', "jsonl")
    assert surfaces(record) == [("Disease", "a pa")]
    assert read.notes == {"misaligned": 1}


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-A I-A O B-A", ["a b", "d"]),
        ("B-A B-A I-A O", ["a", "b c"]),
        ("B-A I-B O O", ["a", "b"]),
        ("O I-A I-A O", ["b c"]),
        ("S-A B-A I-A E-A", ["a", "b c d"]),
        ("B-A E-A I-A O", ["a b", "c"]),
        ("U-A B-A L-A O", ["a", "b c"]),
        ("O O O B-A", ["d"]),
        ("O O O O", []),
    ],
)
def test_tags(read, tags, expected):
    lines = "\n".join(f"{word}\t{tag}" for word, tag in zip("abcd", tags.split(), strict=True))
    (record,) = read(lines, "iob")
    assert [text for _, text in surfaces(record)] == expected


def test_a_tag_is_split_at_its_first_hyphen(read):
    (record,) = read("T\tB-cell-type\ncells\tI-cell-type\n", "iob")
    assert surfaces(record) == [("cell-type", "T cells")]


def test_bare_tags_take_the_given_type(read):
    (record,) = read("T\tB\ncells\tI\n", "iob", type_name="Cell")
    assert surfaces(record) == [("Cell", "T cells")]
    with pytest.raises(VanerError, match=r"VE206: .*corpus\.txt, line 1: .*'B'.*--type"):
        read("T\tB\ncells\tI\n", "iob")


def test_tag_column_and_blanks_between_columns(read):
    content = "T NN B-Cell x\ncells NNS I-Cell x\n"
    (record,) = read(content, "iob", tag_column=3)
    assert surfaces(record) == [("Cell", "T cells")]
    with pytest.raises(VanerError, match="a tag in column 9"):
        read(content, "iob", tag_column=9)


DOCUMENTS = "-DOCSTART- 12\tO\n\na\tO\n.\tO\n\nb\tB-X\n\n\n-DOCSTART-\tO\n\nc\tO\n"


@pytest.mark.parametrize(
    ("document", "texts"),
    [
        ("auto", ["a. b", "c"]),
        ("docstart", ["a. b", "c"]),
        ("sentence", ["a.", "b", "c"]),
        ("2", ["a. b", "c"]),
        ("1", ["a.", "b", "c"]),
    ],
)
def test_what_makes_a_document(read, document, texts):
    records = read(DOCUMENTS, "iob", document=document)
    assert [record.text for record in records] == texts
    assert records[0].id == "12"
    assert [len(record.sentences) for record in records] == [text.count(" ") + 1 for text in texts]


def test_without_document_marks_a_sentence_is_a_document(read):
    assert [record.text for record in read("a\tO\n\nb\tO\n", "iob")] == ["a", "b"]


def test_a_document_without_words_is_noted(read):
    assert len(read("-DOCSTART-\tO\n\n-DOCSTART-\tO\n\na\tO\n", "iob")) == 1
    assert read.notes == {"document without words": 1}


# The formats of one text file; the others are in test_malformed.py.
SINGLE_FILES = sorted(set(FORMATS) - {"bc2gm", "brat", "knowtator", "spacy"})


@pytest.mark.parametrize("format_name", SINGLE_FILES)
@pytest.mark.parametrize("content", ["", "\n\n", "\r\n"])
def test_an_empty_file_has_no_documents(read, format_name, content):
    assert read(content, format_name) == []


def test_line_ends_byte_order_mark_and_odd_words(read):
    content = "\ufeffa\tB-X\r\nb\u2028\u0085c\tI-X\r\n".encode()
    (record,) = read(content, "iob")
    assert [record.text[s:e] for s, e in record.words] == ["a", "b\u2028\u0085c"]


@pytest.mark.parametrize(
    ("format_name", "content", "message"),
    [
        ("iob", "a\tO\nb\n", r"line 2: expected a word, a tab and a tag .* found: b"),
        ("iob", "a\tO\n\tO\n", "line 2: expected a word"),
        ("iob", "a\tX-Y\n", "line 1: expected in column 2 a tag"),
        ("iob", "a\tB-\n", "line 1: expected in column 2 a tag"),
        ("iob", "a\tO-X\n", "line 1: expected in column 2 a tag"),
        ("pubtator", "1|a|abstract\n", r"line 1: expected a title line '1\|t\|…' before it"),
        ("pubtator", "1|t|title\n2|a|abstract\n", "line 2: expected a title line"),
        ("pubtator", "1|t|t\n1|a|a\n1|a|b\n", "line 3: expected a title line"),
        ("pubtator", "free text\n", r"line 1: expected a title line 'ID\|t\|title'"),
        ("pubtator", "1|t|t\n2\t0\t1\tt\tX\n", "line 2: expected a line of document 1"),
        ("pubtator", "1|t|t\n1\t0\tone\tt\tX\n", "line 2: expected 'ID<tab>start"),
        ("pubtator", "1|t|t\n1\t0\t1\tt\n", "line 2: expected 'ID<tab>start"),
        ("pubtator", "1|t|t\n1\t1\t1\tt\tX\n", "with start < end"),
        ("pubtator", "1|t|t\n1\t0\t2\tt\tX\n", "line 2: expected offsets inside the 1 char"),
        ("jsonl", '{"text": "a"}\n{"text": \n', r"line 2: expected JSON \("),
        ("jsonl", "[]\n", 'line 1: expected an object with a string "text"'),
        ("jsonl", '{"id": 1}\n', 'an object with a string "text"'),
        ("jsonl", '{"text": "a", "ents": {}}\n', r'expected "ents" of \[start, end, type\]'),
        ("jsonl", '{"text": "a", "ents": [[0, 2, "X"]]}\n', r'expected "ents" of'),
        ("jsonl", '{"text": "a", "ents": [[0, 1, ""]]}\n', r'expected "ents" of'),
        ("jsonl", '{"text": "a", "ents": [[0, 1.5, "X"]]}\n', r'expected "ents" of'),
        ("jsonl", '{"text": "ab", "disc": [[[[0, 1], [1, 3]], "X"]]}\n', r'expected "disc" of'),
        ("jsonl", '{"text": "ab", "disc": [[[], "X"]]}\n', r'expected "disc" of'),
    ],
)
def test_a_malformed_line_is_named(read, format_name, content, message):
    with pytest.raises(VanerError, match=r"VE201: .*corpus\.txt, .*" + message):
        read(content, format_name)


@pytest.mark.parametrize("format_name", SINGLE_FILES)
def test_a_file_that_is_not_utf8(read, format_name):
    with pytest.raises(VanerError, match=r"VE203: .*corpus\.txt, line 2: .*0xe9"):
        read("\ncafé\tO\n".encode("latin1"), format_name)


def test_a_missing_file_an_unknown_format_and_an_unknown_option(tmp_path):
    with pytest.raises(VanerError, match="VE202: .*none.txt"):
        list(read_records(tmp_path / "none.txt", "iob"))
    with pytest.raises(VanerError, match="VE204: .*'bioc'.*iob, jsonl, knowtator, pubtator"):
        read_records(tmp_path, "bioc")
    with pytest.raises(VanerError, match="VE205: .*'pubtator'.*'document'.*none"):
        read_records(tmp_path, "pubtator", document="sentence", type_name=None)
    with pytest.raises(VanerError, match="VE207: 'page'"):
        list(read_records(tmp_path, "iob", document="page"))


# Words as corpora have them: any characters but those that end a column or a line.
WORDS = st.text(
    st.characters(exclude_characters="\t\n\r", exclude_categories=("Cs",)), min_size=1, max_size=6
).filter(lambda word: word.strip() and not word.startswith("-DOCSTART-"))
MARKS = st.sampled_from(list("()[]{}.,;:'\"-/+=<>%") + ["''", "``", "1", "s"])
SENTENCES = st.lists(
    st.tuples(WORDS | MARKS, st.sampled_from(["O", "B-X", "I-X", "B-Y", "E-X", "S-Y"])),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(sentences=st.lists(SENTENCES, min_size=1, max_size=4))
@example(sentences=[[(".", "O"), ("0", "O")]])
def test_no_word_is_lost_and_offsets_are_exact(tmp_path_factory, sentences):
    path = tmp_path_factory.mktemp("iob") / "corpus.iob"
    blocks = ["".join(f"{word}\t{tag}\n" for word, tag in sentence) for sentence in sentences]
    path.write_text("-DOCSTART-\tO\n\n" + "\n".join(blocks), encoding="utf8", newline="\n")
    (record,) = read_records(path, "iob")
    words = [word for sentence in sentences for word, _ in sentence]
    assert [record.text[start:end] for start, end in record.words] == words
    # Between the words there is at most one blank, and nothing before or after them.
    ends, starts = [end for _, end in record.words], [start for start, _ in record.words]
    gaps = [record.text[end:start] for end, start in zip(ends, starts[1:], strict=False)]
    assert set(gaps) <= {"", " "}
    assert (starts[0], ends[-1]) == (0, len(record.text))
    assert len(record.sentences) == len(sentences)
    # Mentions begin and end at words, and every word with a tag is inside of exactly one.
    assert all(m.fragments[0][0] in starts and m.fragments[0][1] in ends for m in record.mentions)
    tags = [tag for sentence in sentences for _, tag in sentence]
    for (start, end), tag in zip(record.words, tags, strict=True):
        covering = [
            m.type for m in record.mentions if m.fragments[0][0] <= start < end <= m.fragments[0][1]
        ]
        assert covering == ([] if tag == "O" else [tag[2:]])


@settings(max_examples=100, deadline=None)
@given(data=st.data(), text=st.text(st.characters(exclude_categories=("Cs",)), max_size=40))
def test_jsonl_round_trip(tmp_path_factory, data, text):
    offsets = st.integers(0, len(text))
    pairs = st.tuples(offsets, offsets).filter(lambda pair: pair[0] < pair[1])
    drawn = data.draw(st.lists(pairs, max_size=5, unique=True) if text else st.just([]))
    row = {"text": text, "ents": [[s, e, "X", text[s:e]] for s, e in drawn]}
    path = tmp_path_factory.mktemp("jsonl") / "corpus.jsonl"
    path.write_text(json.dumps(row), encoding="utf8")
    notes: list[str] = []
    (record,) = read_records(path, "jsonl", note=lambda cause, where: notes.append(cause))
    assert record.text == text
    assert record.mentions == tuple(Mention("X", (pair,)) for pair in sorted(drawn))
    assert notes == []


@pytest.mark.parametrize("key", ["entities", "spans", "label"])
def test_mentions_under_another_name_are_no_corpus_of_negatives(tmp_path: Path, key: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"text": "Aspirin", key: [[0, 7, "Chemical"]]}), encoding="utf8")
    with pytest.raises(VanerError, match=f'line 1.*"ents".*{key}'):
        list(read_records(path, "jsonl"))


def test_alternatives_of_bc2gm_are_kept_apart(tmp_path):
    (tmp_path / "test.in").write_text("A1 the p53 gene binds\n")
    (tmp_path / "GENE.eval").write_text("A1|3 5|p53\n")
    (tmp_path / "ALTGENE.eval").write_text("A1|3 9|p53 gene\n")
    (tmp_path / "ALTERATION.eval").write_text("A1|10 14|binds\n")
    (record,) = read_records(tmp_path / "test.in", "bc2gm")
    # ALTERATION is a type of its own: there is no ERATION.eval.
    assert record.mentions == (Mention("GENE", ((4, 7),)), Mention("ALTERATION", ((13, 18),)))
    assert record.alternatives == (Mention("GENE", ((4, 12),)),)
    for name, path in (("bc2gm", "out/test.in"), ("spacy", "out.spacy")):
        write_records([record], tmp_path / path, name)
        (again,) = read_records(tmp_path / path, name)
        assert (again.mentions, again.alternatives) == (record.mentions, record.alternatives)
    assert (tmp_path / "out/ALTGENE.eval").read_text() == "A1|3 9|p53 gene\n"
    notes = []
    write_records([record], tmp_path / "out.jsonl", "jsonl", note=lambda *note: notes.append(note))
    assert notes == [("alternative boundaries left out", "A1")]
