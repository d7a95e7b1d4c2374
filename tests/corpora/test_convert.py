"""From a corpus file to a `.spacy` file: what documents carry, what the report counts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st

from spacy_vaner.corpora.convert import Conversion, annotate, convert, words_to_doc
from spacy_vaner.corpora.docbins import docs_to_bytes, make_tokenizer, read_docs
from spacy_vaner.corpora.guard import ProtectedIndex
from spacy_vaner.corpora.report import absent_types, remarks
from spacy_vaner.errors import VanerError
from spacy_vaner.gold import get_gold
from spacy_vaner.types import Mention, Record

NLP = spacy.blank("en")
TEXT = "Breast and ovarian cancer in BRCA1deficient mice."
ROW = {
    "id": "7",
    "text": TEXT,
    "ents": [
        [0, 25, "Disease", "Breast and ovarian cancer", "D1"],
        [11, 25, "Disease"],
        [29, 34, "Gene"],
        [44, 48, "Species"],
    ],
    "disc": [[[[0, 6], [19, 25]], "Disease"]],
}


@pytest.fixture
def run(tmp_path):
    """Convert rows of JSONL (or a text) and return the documents and the report."""

    def run(rows, format_name="jsonl", *, output="out.spacy", given=None, **settings):
        text = rows if isinstance(rows, str) else "".join(json.dumps(row) + "\n" for row in rows)
        path = tmp_path / "in.txt"
        path.write_text(text, encoding="utf8")
        conversion = Conversion(files=(path,), format=format_name, **settings)
        report = convert(conversion, tmp_path / output, **(given or {}))
        return list(read_docs(tmp_path / output)), report

    return run


def plain(value):
    """Tuples as lists: DocBin gives lists back as tuples."""
    return json.loads(json.dumps(value))


def test_what_a_document_carries(run):
    (doc,), report = run(
        [ROW],
        corpus="Mice",
        types=("Disease", "Gene"),
        partial=("Species",),
        names={"Disease": "mice-disease"},
        ids_are_pmids=True,
    )
    assert doc.text == TEXT
    assert plain(doc.user_data["vaner"]) == {
        "corpus": "Mice",
        "id": "7",
        "pmid": "7",
        "types": ["Disease", "Gene"],
        "partial": ["Species"],
        "names": {"Disease": "mice-disease"},
        "mentions": [
            ["Disease", [[0, 6], [19, 25]], []],
            ["Disease", [[0, 25]], ["D1"]],
            ["Disease", [[11, 25]], []],
            ["Gene", [[29, 34]], []],
            ["Species", [[44, 48]], []],
        ],
        "masked": [],
    }
    assert [(span.text, span.label_) for span in doc.spans["gold"]] == [
        ("Breast and ovarian cancer", "Disease"),
        ("ovarian cancer", "Disease"),
        ("BRCA1deficient", "Gene"),
        ("mice", "Species"),
    ]
    assert [ent.text for ent in doc.ents] == [
        "Breast and ovarian cancer",
        "BRCA1deficient",
        "mice",
    ]
    assert not doc.has_annotation("SENT_START")
    assert report.mentions == {"Disease": 3, "Gene": 1, "Species": 1}
    assert (report.documents, report.sentences, report.tokens) == (1, None, 8)
    assert (report.nested, report.crossing) == (1, 0)
    assert (report.discontinuous, report.widened) == (1, 1)


def test_alternatives_are_carried_under_our_types_and_not_trained(tmp_path):
    (tmp_path / "in.in").write_text("A1 the p53 gene binds\n")
    (tmp_path / "GENE.eval").write_text("A1|3 5|p53\n")
    (tmp_path / "ALTGENE.eval").write_text("A1|3 9|p53 gene\nA1|3 9|p53 gene\n")
    conversion = Conversion((tmp_path / "in.in",), "bc2gm", type_map={"GENE": "Gene"})
    report = convert(conversion, tmp_path / "out.spacy")
    (doc,) = read_docs(tmp_path / "out.spacy")
    gold = get_gold(doc)
    assert gold.types == ("Gene",)
    assert gold.mentions == (Mention("Gene", ((4, 7),)),)
    assert gold.alternatives == (Mention("Gene", ((4, 12),)),)
    assert [span.text for span in doc.spans["gold"]] == ["p53"]
    assert (report.alternatives, report.notes) == (1, {"repeated mention": 1})


def test_documents_are_read_and_written_in_several_threads(tmp_path):
    """srsly's registries of converters are exchanged for the length of a call, and come back."""
    from srsly.msgpack import msgpack_decoders, msgpack_encoders

    def work(number):
        docs = [NLP(f"{number} is {i}") for i in range(20)]
        for doc in docs:
            doc.user_data["vaner"] = {"id": str(number)}
        path = tmp_path / f"{number}.spacy"
        path.write_bytes(docs_to_bytes(docs))
        return [(doc.text, doc.user_data["vaner"]["id"]) for doc in read_docs(path)]

    with ThreadPoolExecutor(4) as threads:
        for number, found in enumerate(threads.map(work, range(8))):
            assert found == [(f"{number} is {i}", str(number)) for i in range(20)]
    assert "get_all" not in vars(msgpack_encoders) | vars(msgpack_decoders)


def test_the_tokens_of_the_corpus_and_its_sentences(run):
    text = "-DOCSTART-\tO\n\nNF\tB-Gene\n-\tI-Gene\nY\tI-Gene\nbinds\tO\n.\tO\n\nIt\tO\nends\tO\n"
    (doc,), report = run(text, "iob")
    assert doc.text == "NF-Y binds. It ends"
    assert [token.text for token in doc] == ["NF", "-", "Y", "binds", ".", "It", "ends"]
    assert [sent.text for sent in doc.sents] == ["NF-Y binds.", "It ends"]
    assert [ent.text for ent in doc.ents] == ["NF-Y"]
    assert (report.sentences, report.tokens, report.widened) == (2, 7, 0)
    # The same as raw text: other tokens, same sentences, offsets and mentions.
    (raw,), report = run(text, "iob", view="text")
    assert [token.text for token in raw] == ["NF", "-", "Y", "binds", ".", "It", "ends"]
    assert raw.user_data["vaner"] == doc.user_data["vaner"]
    assert [sent.text for sent in raw.sents] == ["NF-Y binds.", "It ends"]


def test_types_are_renamed_left_out_and_counted(run):
    rows = [
        {"text": "ab cd ef", "ents": [[0, 2, "X"], [0, 2, "Y"], [3, 5, "Y"], [6, 8, "Z"]]},
        {"text": "ab", "ents": [[0, 2, "W"]]},
    ]
    (first, second), report = run(rows, type_map={"X": "A", "Y": "A", "Z": None}, types=("A",))
    assert [span.text for span in first.spans["gold"]] == ["ab", "cd"]
    assert report.source_types == {"X": 1, "Y": 2, "Z": 1, "W": 1}
    assert report.unused == {"Z": 1, "W": 1}
    assert report.mentions == {"A": 2}
    # X and Y on the same stretch are one mention now: noted.
    assert report.notes == {"repeated mention": 1}
    assert second.user_data["vaner"]["types"] == ("A",)


def test_without_a_list_every_type_that_occurs_is_complete(run):
    rows = [{"text": "ab", "ents": [[0, 2, "X"]]}, {"text": "ab", "ents": [[0, 1, "W"]]}]
    docs, _ = run(rows, partial=("W",))
    assert [doc.user_data["vaner"]["types"] for doc in docs] == [("X",), ("X",)]


@pytest.mark.parametrize("type_", ["GO:1", "a=b", "a\nb"])
def test_a_type_that_no_config_could_hold_is_refused(run, type_):
    with pytest.raises(VanerError, match="VE216"):
        run([{"text": "ab", "ents": [[0, 2, type_]]}])


def test_the_report_tells_what_a_note_means(run):
    rows = [{"text": "ab cd", "ents": [[0, 2, "X", "cd"], [0, 2, "X"]]}]
    _, report = run(rows, types=("X", "Y"))
    assert report.mentions == {"X": 1}
    said = {what.partition(", first in ")[0]: count for count, what in remarks(report.to_dict())}
    assert said == {
        "mentions whose text is not what stands at their offsets (the offsets are taken)": 1,
        "mentions that the source gives twice (taken once)": 1,
    }
    assert absent_types(report.to_dict(), ("X", "Y")) == [
        "no mention of Y, which is taken as annotated completely; found: X"
    ]


def test_repeated_documents_are_kept_and_counted(run):
    docs, report = run([{"id": "1", "text": "a"}, {"id": "1", "text": "a"}])
    assert (len(docs), report.documents, report.repeated_documents) == (2, 2, 1)


def test_the_guard_leaves_out_masks_and_counts(run):
    sentence = "Eight words or more make a sentence that counts."
    held = [{"id": "1", "text": sentence}]
    seen = "Of this one the dev split keeps only one sentence."
    (doc,), _ = run(held, output="test.spacy", corpus="Held")
    (dev,), _ = run([{"text": seen}], output="dev.spacy", corpus="Held")
    index = ProtectedIndex()
    index.protect(doc, "test")
    index.protect(dev, "dev")
    rows = [{"text": f"Free. {seen}"}, {"text": f"{sentence} {seen}"}, {"text": "Free."}]
    docs, report = run(rows, corpus="Train", given={"guard": index})
    assert [doc.text for doc in docs] == [f"Free. {seen}", "Free."]
    assert plain(docs[0].user_data["vaner"]["masked"]) == [[6, 6 + len(seen)]]
    assert report.documents == 2
    assert report.guard["dropped"] == {"test sentence": 1}
    assert report.guard["masked_by"] == {"Held dev": 1}
    # The same corpus: counted; `against`: only counted.
    docs, report = run(rows, corpus="Held", given={"guard": index, "against": index})
    assert len(docs) == 3
    assert report.guard["official_split_stands"] == {
        "Held dev: sentence": 2,
        "Held test: sentence": 1,
    }
    assert report.against["dropped"] == {"test sentence": 1}


def test_the_report_stands_beside_the_file(run, tmp_path):
    _, report = run([ROW], given={"made_from": {"x": 1}})
    row = json.loads((tmp_path / "out.report.json").read_text())
    assert row == {**plain(report.to_dict()), "made_from": {"x": 1}}
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "in.txt",
        "out.report.json",
        "out.spacy",
    ]


def test_a_malformed_line_leaves_what_was_there(run, tmp_path):
    run([ROW])
    before = (tmp_path / "out.spacy").read_bytes()
    with pytest.raises(VanerError, match="VE201: .*line 2"):
        run(json.dumps(ROW) + "\n{\n", types=("Disease",))
    assert (tmp_path / "out.spacy").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"view": "words"}, "VE208: view = 'words'.*tokens, text"),
        ({"tokenizer": "moses"}, "VE208: tokenizer = 'moses'.*spacy, scispacy"),
        ({"view": "tokens"}, "VE209: .*'jsonl'"),
    ],
)
def test_settings_that_cannot_be(run, settings, message):
    with pytest.raises(VanerError, match=message):
        run([ROW], **settings)


def test_scispacy_is_named_where_it_is_missing(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "scispacy.custom_tokenizer", None)
    with pytest.raises(VanerError, match=r"VE210: .*spacy_vaner\[scispacy\]"):
        run([ROW], tokenizer="scispacy")


# scispaCy's own pattern of infixes.
@pytest.mark.filterwarnings("ignore:Possible set:FutureWarning")
def test_scispacy_tokenizes_where_it_is_there(run):
    # The extra stops at Python 3.12; the environment of `make test` has it below that.
    pytest.importorskip("scispacy.custom_tokenizer")
    (doc,), _ = run([{"text": "BRCA1=deficient"}], tokenizer="scispacy")
    assert [token.text for token in doc] == ["BRCA1=deficient"]
    (doc,), _ = run([{"text": "BRCA1=deficient"}])
    assert len(doc) == 3


ODD = [
    "",
    " ",
    "\n",
    " \n a\t\tb  ",
    "a\x00b\u200b \u0301x",
    "😀 👩‍🔬 B\u00adc",
    "\ufeffa b",
    "x" * 5000,
]


def test_odd_texts(run):
    rows = [{"text": text, "ents": [[0, len(text), "X"]] if text else []} for text in ODD]
    docs, report = run(rows)
    assert [doc.text for doc in docs] == ODD
    assert report.mentions == {"X": len(ODD) - 1}


CHARACTERS = st.text(st.sampled_from("aB1-., \n\u00a0β"), max_size=20)


@settings(max_examples=100, deadline=None)
@given(text=CHARACTERS, data=st.data())
def test_words_to_doc_keeps_the_text(text, data):
    """Whatever lies between the words, white space or not, becomes tokens of its own."""
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=8)))
    words = tuple((start, end) for start, end in zip(cuts[::2], cuts[1::2], strict=False))
    doc = words_to_doc(Record("1", text, (), words=words), NLP.vocab)
    assert doc.text == text
    tokens = {(token.idx, token.idx + len(token)) for token in doc}
    assert set(words) <= tokens


@settings(max_examples=100, deadline=None)
@given(text=CHARACTERS.filter(bool), data=st.data())
def test_a_span_covers_its_mention(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    doc = NLP.tokenizer(text)
    record = Record("1", text, (Mention("X", ((start, end),)),))
    widened = annotate(doc, record, Conversion(files=(), format="jsonl", types=("X",)))
    spans = list(doc.spans["gold"])
    if not spans:
        # Only a mention of blanks between tokens has none.
        assert not text[start:end].strip(" ")
        return
    (span,) = spans
    covered = text[min(start, span.start_char) : max(end, span.end_char)]
    outside = text[start : span.start_char] + text[span.end_char : end]
    assert not outside.strip() and covered
    assert widened == ((span.start_char, span.end_char) != (start, end))
    assert list(doc.ents) == spans


def test_the_tokenizer_without_a_pipeline_is_that_of_a_pipeline():
    tokenizer = make_tokenizer()
    assert tokenizer.to_bytes(exclude=["vocab"]) == NLP.tokenizer.to_bytes(exclude=["vocab"])
    text = "BRCA1-deficient mice weren't fed e.g. 5mg/kg (p<0.05); see http://a.org/b."
    mine, theirs = tokenizer(text), NLP(text)
    assert [token.text for token in mine] == [token.text for token in theirs]
    assert [token.norm_ for token in mine] == [token.norm_ for token in theirs]
    # A vocab keeps the words that it meets: that of one file must not be that of the next.
    assert "deficient" not in make_tokenizer().vocab.strings


@pytest.mark.slow
def test_the_same_bytes_in_every_process(tmp_path):
    rows = [{**ROW, "id": str(i), "text": ROW["text"] + f" x{i} y{i}."} for i in range(30)]
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    code = (
        "import sys; from pathlib import Path\n"
        "from spacy_vaner.corpora.convert import Conversion, convert\n"
        "convert(Conversion(files=(Path(sys.argv[1]),), format='jsonl'), Path(sys.argv[2]))"
    )
    written = []
    for seed in ("1", "2"):
        output = tmp_path / seed / "out.spacy"
        subprocess.run(
            [sys.executable, "-c", code, str(source), str(output)],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
        )
        written.append((output.read_bytes(), output.with_suffix(".report.json").read_bytes()))
    assert written[0] == written[1]
