"""Documents in and out: texts exact, passages and annotations kept, in every pair of formats."""

from __future__ import annotations

import gzip
import html
import io
import json
import random
import re
import tracemalloc
import zlib
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc, DocBin, Span
from spacy.vocab import Vocab

from spacy_vaner.annotation.document import (
    Annotated,
    Annotation,
    Document,
    Rejection,
    join_passages,
    surface,
)
from spacy_vaner.annotation.formats import INPUTS, OUTPUTS, docbin_stream, json_stream
from spacy_vaner.annotation.formats.json_stream import read_rows
from spacy_vaner.annotation.formats.spacy_docs import to_doc
from spacy_vaner.corpora.formats import read_records, xml_nodes
from spacy_vaner.corpora.formats.base import single_line
from spacy_vaner.errors import VanerError

NLP = spacy.blank("en")
MODEL = "en_test-1.0/0a1b2c3d4e5f"
BOTH = sorted(INPUTS.keys() & OUTPUTS.keys())
PIECES = [
    *"aB1.,;|\"'<>&",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "&lt;",
    "&#13;",
    "]]>",
    "\u00a0",
    "α",
    "e\u0301",
    "o\u0308\u0323",
    "\U0001d6c3",
    "😀👍🏽",
    "\u200b",
    "\u2028",
    "\x85",
    "שלום",
    "BRCA1-deficient",
]
CARRIES_SCORES = {"jsonl", "bioc_xml", "bioc_json", "spacy"}


@st.composite
def documents(draw):
    """A document of one to three passages, with annotations of its own and found ones."""
    part = st.lists(st.sampled_from(PIECES), min_size=1, max_size=8).map("".join)
    parts = draw(st.lists(part, min_size=1, max_size=3))
    kinds = ["title", "abstract", "paragraph"][: len(parts)]
    text, passages = join_passages(
        (part, {"type": kind}) for part, kind in zip(parts, kinds, strict=True)
    )
    rng = random.Random(draw(st.integers(0, 999)))

    def span():
        passage = rng.choice(passages)
        start = rng.randrange(passage.start, passage.end)
        return start, rng.randrange(start + 1, passage.end + 1)

    spans = list(dict.fromkeys((rng.choice(["Gene", "Disease"]), span()) for _ in range(6)))
    own = [Annotation(type_, (pair,), ("D1", "D2")) for type_, pair in spans[:2]]
    found = [
        Annotation(type_, (pair,), score=rng.randrange(10001) / 10000, model=MODEL)
        for type_, pair in spans[2:]
    ]
    own.sort(key=lambda one: (one.fragments, one.type))
    return Document("7", text, passages, tuple(own), pmid="7"), tuple(found)


def annotated(document, found=()):
    """A document as the pipeline gives it back."""
    doc = to_doc(document, NLP.vocab) or NLP.make_doc(document.text)
    rows = [[one.type, one.start, one.end, one.score] for one in found]
    doc.user_data["vaner_predictions"] = sorted(rows, key=lambda row: (*row[1:3], row[0]))
    return Annotated(document, tuple(found), doc)


def read(name, content):
    return list(INPUTS[name].read(io.BytesIO(content), "given"))


def written(name, things):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "out"
        OUTPUTS[name].write(things, path)
        if path.is_file():
            return path.read_bytes()
        return {file.name: file.read_bytes() for file in path.iterdir()}


def as_read(name, text):
    """The text that a format gives back: PubTator has no place for line ends."""
    return single_line(text) if name == "pubtator" else text


def facts(annotations, text, *, with_scores):
    """What must be the same: type, offsets, text; score and model where there is room."""
    return sorted(
        (
            one.type,
            one.fragments,
            surface(text, one.fragments),
            *((one.score, one.model) if with_scores else ()),
        )
        for one in annotations
    )


def check_written(name, thing, content):
    """Read a written document by other means than ours, or ours where that is the way back."""
    text = as_read(name, thing.document.text)
    if name in BOTH:
        (back,) = read(name, content)
        assert back.text == text
        with_scores = name in CARRIES_SCORES
        expected = facts(thing.annotations, text, with_scores=False)
        assert facts(back.annotations, text, with_scores=False) == expected
        scored = {(o.type, o.fragments, o.score, o.model) for o in back.annotations}
        if with_scores:
            assert {(o.type, o.fragments, o.score, o.model) for o in thing.found} <= scored
        if name != "pubtator":
            assert [(p.start, p.end) for p in back.passages] == [
                (p.start, p.end) for p in thing.document.passages
            ]
        return back
    rows = facts(thing.annotations, text, with_scores=False)
    if name == "brat":
        assert content["7.txt"].decode("utf8") == text
        with TemporaryDirectory() as folder:
            for file, part in content.items():
                (Path(folder) / file).write_bytes(part)
            (record,) = read_records(Path(folder), "brat")
        mentions = {(one.type, one.fragments) for one in record.mentions}
        assert mentions == {(type_, fragments) for type_, fragments, _ in rows}
    elif name == "parquet":
        from pyarrow import parquet

        table = parquet.read_table(io.BytesIO(content)).to_pylist()
        found = [(row["type"], ((row["start"], row["end"]),), row["text"]) for row in table]
        assert sorted(found) == rows
        assert [row["score"] for row in table] == [one.score for one in thing.annotations]
    else:
        page = content.decode("utf8")
        assert "http" not in page.split("<body")[0]
        table = re.findall(r"<tr><td>(.*?)</td><td>(.*?)</td><td>(\d+)–(\d+)</td>", page, re.S)
        # A page may end its lines as it likes.
        shown = sorted(
            (html.unescape(t), ((int(s), int(e)),), html.unescape(x)) for t, x, s, e in table
        )
        assert [(t, f, x.split()) for t, f, x in shown] == [(t, f, x.split()) for t, f, x in rows]
        drawn = re.sub(
            r"<(span|a|h2|details)\b.*?</\1>|<[^>]+>", "", page.split("<body")[1], flags=re.S
        )
        drawn = html.unescape(drawn.split(">", 1)[1])
        assert "".join(drawn.split()) == "".join(text.split())
    return None


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(documents())
def test_every_pair_of_formats_keeps_text_and_annotations(case):
    document, found = case
    for first in BOTH:
        (came,) = read(first, written(first, [annotated(document)]))
        assert isinstance(came, Document), came
        here = [one for one in found if one.fragments[0][1] <= len(came.text)]
        thing = annotated(came, here)
        for second in OUTPUTS:
            check_written(second, thing, written(second, [thing]))


@pytest.mark.parametrize("name", sorted(OUTPUTS))
def test_an_empty_text_goes_through_every_format(name):
    check_written(
        name,
        annotated(Document("7", "", join_passages([("", {})])[1])),
        written(name, [annotated(Document("7", "", join_passages([("", {})])[1]))]),
    )


@pytest.mark.parametrize("first", ["jsonl", "spacy", "bioc_json"])
def test_characters_that_xml_lacks_become_blanks_there(first):
    text = "a\x00b\x0cc\ufffed"
    (came,) = read(
        first, written(first, [annotated(Document("7", text, join_passages([(text, {})])[1]))])
    )
    assert came.text == text
    (back,) = read("bioc_xml", written("bioc_xml", [annotated(came)]))
    assert back.text == "a b c d"


BIOC = b"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE collection SYSTEM "BioC.dtd">
<collection><source>PMC</source><date>2024</date><key>k.key</key><infon key="x">y</infon>
<document><id>PMC1</id><infon key="doi">10.1/2</infon>
<passage><infon key="type">title</infon><offset>0</offset><text>BRCA1 &lt;b&gt; in mice</text>
<annotation id="T1"><infon key="type">Gene</infon><infon key="identifier">672</infon>
<location offset="0" length="5"/><text>BRCA1</text></annotation></passage>
<passage><infon key="type">abstract</infon><offset>40</offset>
<sentence><infon key="n">1</infon><offset>40</offset><text>First one.</text></sentence>
<sentence><offset>51</offset><text>Second p53.</text>
<annotation id="T9"><infon key="type">Gene</infon><location offset="58" length="3"/>
<text>p53</text></annotation>
<relation id="R1"><infon key="type">binds</infon><node refid="T1" role="a"/>
<node refid="T9" role="b"/></relation></sentence></passage>
<passage><offset>10</offset><text>moved zinc</text></passage>
</document></collection>"""


@pytest.mark.parametrize("names", [["bioc_xml"], ["bioc_json"], ["bioc_json", "bioc_xml"]])
def test_bioc_keeps_all_that_it_had(names):
    (came,) = read("bioc_xml", BIOC)
    assert came.text[40:61] == "First one. Second p53" and came.text.endswith(" moved zinc")
    zinc = came.text.index("zinc")
    found = [
        Annotation("Gene", ((58, 61),), score=0.5, model=MODEL),
        Annotation("Chemical", ((zinc, zinc + 4),), score=0.9876, model=MODEL),
    ]
    back, things = came, [annotated(came, found)]
    for name in names:
        (back,) = read(name, written(name, things))
        things = [annotated(back)]
    before, after = came.native.data, back.native.data
    assert after["header"] == before["header"]
    assert back.passages == came.passages and back.text == came.text
    passages = after["row"]["passages"]
    added = passages[2]["annotations"][0]
    # The source counts from 10 where the text before ends later.
    assert [int(added["locations"][0]["offset"]), added["text"]] == [16, "zinc"]
    assert added["infons"] == {"type": "Chemical", "score": "0.9876", "model": MODEL}
    second = passages[1]["sentences"][1]
    assert [one["id"] for one in second["annotations"]] == ["T9", "3"]
    for row in (before["row"], after["row"]):
        for passage in row["passages"]:
            for part in (passage, *passage.get("sentences", ())):
                part["annotations"] = [
                    one for one in part["annotations"] if "score" not in one["infons"]
                ]
    assert json.dumps(after, sort_keys=True) == json.dumps(before, sort_keys=True)


def test_pubtator_keeps_relations_and_title():
    content = (
        "12|t|BRCA1 | in mice\n12|a|It binds p53.\n12\t0\t5\tBRCA1\tGene\t672\n"
        "12\tCID\tD1\tD2\n\n13|t|Next\n"
    )
    came = read("pubtator", content.encode("utf8"))
    assert [one.text for one in came] == ["BRCA1 | in mice It binds p53.", "Next"]
    found = [Annotation("Gene", ((25, 28),), score=0.5, model=MODEL)]
    back = written("pubtator", [annotated(came[0], found), annotated(came[1])]).decode("utf8")
    expected = content.replace("672\n", "672\n12\t25\t28\tp53\tGene\t-\n") + "\n"
    assert back == expected


def test_jsonl_keeps_other_keys_and_discontinuous_mentions():
    row = {
        "id": "x",
        "text": "breast and ovarian cancer",
        "ents": [[0, 6, "Disease", "breast", "D1|D2"]],
        "disc": [[[[0, 6], [19, 25]], "Disease"]],
        "year": 1999,
    }
    (came,) = read("jsonl", json.dumps(row).encode("utf8"))
    assert came.annotations[1].fragments == ((0, 6), (19, 25))
    assert json.loads(written("jsonl", [annotated(came)])) == row
    for name in ("bioc_xml", "bioc_json", "spacy"):
        (back,) = read(name, written(name, [annotated(came)]))
        assert came.annotations[1] in back.annotations


def test_documents_of_docbin_keep_their_tokens_and_entities():
    doc = Doc(
        NLP.vocab,
        words=["BRCA1-", "deficient", "mice"],
        spaces=[False, True, False],
        ents=["O", "O", "B-Species"],
        lemmas=["", "", "mouse"],
    )
    doc.user_data["mine"] = 1
    (came,) = read(
        "spacy",
        DocBin(
            docs=[doc], attrs=["ORTH", "LEMMA", "ENT_TYPE", "ENT_IOB"], store_user_data=True
        ).to_bytes(),
    )
    assert came.annotations == (Annotation("Species", ((16, 20),)),)
    kept = to_doc(came, NLP.vocab)
    content = written("spacy", [Annotated(came, (), kept)])
    (back,) = DocBin().from_bytes(content).get_docs(NLP.vocab)
    assert [token.text for token in back] == ["BRCA1-", "deficient", "mice"]
    assert back.ents[0].label_ == "Species" and back[2].lemma_ == "mouse"
    assert back.user_data["mine"] == 1


def docbin(n_docs, n_bytes=300):
    """A DocBin of documents with all that such a file can hold."""
    docs = []
    for number in range(n_docs):
        doc = NLP.make_doc(f"zinc {number} ü " * (number % 5))
        values = [number, -70_000, 0.5, None, True, "ü" * number, b"b" * n_bytes]
        doc.user_data["mine"] = {"all": values}
        doc.user_data["vaner"] = {"id": f"d{number}"}
        doc.cats = {"A": number / 7}
        if len(doc) > 3:
            doc.spans["s"] = [doc[:2], Span(doc, 1, 3, label=f"L{number}")]
            doc.ents = [Span(doc, 0, 1, label=f"E{number}")]
        docs.append(doc)
    return DocBin(docs=docs, store_user_data=True).to_bytes()


@pytest.mark.parametrize("size", [1, 7, 64])
def test_a_docbin_in_parts_holds_what_it_holds_as_a_whole(size, monkeypatch):
    monkeypatch.setattr(docbin_stream, "_PART", size)
    monkeypatch.setattr(docbin_stream, "_CHUNK", 999)
    content = docbin(20)
    parts = list(docbin_stream.read_parts(io.BytesIO(content)))
    assert len(parts) == -(-20 // size)
    vocab = Vocab()
    found = [doc for part in parts for doc in part.get_docs(vocab)]
    for one, other in zip(found, DocBin().from_bytes(content).get_docs(Vocab()), strict=True):
        assert one.to_json() == other.to_json() and one.user_data == other.user_data
        assert [str(span) for span in one.spans.get("s", ())] == [
            str(span) for span in other.spans.get("s", ())
        ]
    assert [one.id for one in read("spacy", content)] == [f"d{number}" for number in range(20)]
    assert read("spacy", DocBin().to_bytes()) == []


def test_a_damaged_docbin_is_told_wherever_it_is_damaged():
    table = zlib.decompress(docbin(5))
    for at in range(0, len(table), 97):
        for damaged in (table[:at], table[:at] + b"\xc1" + table[at + 1 :]):
            try:
                for one in read("spacy", zlib.compress(damaged, 0)):
                    assert isinstance(one, (Document, Rejection))
            except VanerError as error:
                assert "VE202" in str(error)


PUBMED = """<?xml version="1.0"?>
<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM//DTD PubMedArticle" "https://example.invalid/x.dtd">
<PubmedArticleSet>
<PubmedArticle><MedlineCitation><PMID Version="1">11</PMID><Article>
<ArticleTitle>TNF-α in <i>Mus</i> &lt;adult&gt; mice.</ArticleTitle>
<Abstract><AbstractText Label="AIM">To see H<sub>2</sub>O.</AbstractText>
<AbstractText>None.</AbstractText></Abstract></Article>
<OtherAbstract><AbstractText>Autre.</AbstractText></OtherAbstract></MedlineCitation>
<PubmedData><ReferenceList><Reference><ArticleIdList/></Reference></ReferenceList></PubmedData>
</PubmedArticle>
<PubmedArticle><MedlineCitation><PMID>12</PMID><Article><ArticleTitle/></Article>
</MedlineCitation></PubmedArticle>
<PubmedArticle><MedlineCitation><Article/></MedlineCitation></PubmedArticle>
<PubmedArticle><MedlineCitation><PMID Version="2">11</PMID></MedlineCitation></PubmedArticle>
<PubmedBookArticle><BookDocument><PMID>13</PMID><ArticleTitle>Book.</ArticleTitle>
<Abstract><AbstractText>Part.</AbstractText></Abstract></BookDocument></PubmedBookArticle>
<DeleteCitation><PMID>14</PMID></DeleteCitation>
</PubmedArticleSet>"""


def test_pubmed_xml_gives_titles_and_abstracts():
    first, second, third, later, book = read("pubmed_xml", PUBMED.encode("utf8"))
    assert first.text == "TNF-α in Mus <adult> mice. To see H2O. None."
    assert [dict(p.infons) for p in first.passages] == [
        {"type": "title"},
        {"type": "abstract", "section": "AIM"},
        {"type": "abstract"},
    ]
    assert (second.id, second.text) == ("12", "")
    assert isinstance(third, Rejection) and "PMID" in third.reason
    assert (later.id, later.pmid) == ("11.2", "11")
    assert (book.id, book.text) == ("13", "Book. Part.")


JATS = """<article xmlns:xlink="x"><front>
<journal-meta><journal-title>J</journal-title></journal-meta>
<article-meta><article-id pub-id-type="pmid">5</article-id>
<article-id pub-id-type="pmc">PMC6</article-id>
<title-group><article-title>Role of <italic>p53</italic></article-title></title-group>
<contrib-group><contrib><name><surname>Doe</surname></name></contrib></contrib-group>
<abstract><title>Aim</title><p>To see
   it.</p></abstract></article-meta></front>
<body><sec><title>Results</title><p>See <xref>1</xref>.<fig><label>F1</label>
<caption><p>A figure.</p></caption></fig> More.</p>
<table-wrap><caption><title>Rates</title></caption><table><tr><td>9</td></tr></table></table-wrap>
<sec><title>Sub</title><list><list-item><p>one</p></list-item></list></sec></sec></body>
<back><ref-list><ref><mixed-citation>Old</mixed-citation></ref></ref-list></back></article>"""


def test_jats_gives_titles_paragraphs_and_captions():
    (found,) = read("jats", JATS.encode("utf8"))
    assert (found.id, found.pmid) == ("PMC6", "5")
    passages = [(found.text[p.start : p.end], p.infons.get("section")) for p in found.passages]
    assert passages == [
        ("Role of p53", None),
        ("Aim", "abstract"),
        ("To see it.", "abstract"),
        ("Results", "Results"),
        ("See 1. More.", "Results"),
        ("A figure.", "caption"),
        ("Rates", "caption"),
        ("Sub", "Sub"),
        ("one", "Sub"),
    ]


ROWS = [{"id": "1", "passages": [{"offset": 0, "text": "é😀"}]}, {"id": "2", "passages": []}]
LAYOUTS = {
    "collection": json.dumps({"source": "s", "documents": ROWS, "date": "d"}),
    "pretty": json.dumps({"documents": ROWS}, indent=2, ensure_ascii=False),
    "PubTator 3": json.dumps({"PubTator3": ROWS}),
    "list": json.dumps(ROWS),
    "lines": "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n",
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chunk", [1, 3, 7, 1 << 16])
def test_json_is_read_in_chunks_of_any_size(layout, chunk, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    stream = io.BytesIO(LAYOUTS[layout].encode("utf8"))
    rows = list(read_rows(stream, Path("given"), ("documents", "PubTator3"), mark="passages"))
    assert [row.value for row in rows] == ROWS
    if layout == "lines":
        assert [row.line for row in rows] == [1, 2]


@pytest.mark.parametrize("content", ['{"documents": [{"id": 1}, {"id"', "[1, 2", "{]", '{"a" 1}'])
def test_broken_json_is_told_after_what_is_whole(content):
    found = []
    with pytest.raises(VanerError, match="VE201"):
        stream = io.BytesIO(content.encode("utf8"))
        for row in read_rows(stream, Path("given"), ("documents",), mark="passages"):
            found.append(row.value)
    assert found == ([{"id": 1}] if "documents" in content else [1, 2] if "2" in content else [])


def json_document(id_, text):
    return f'{{"id": "{id_}", "passages": [{{"offset": 0, "text": "{text}", "annotations": []}}]}}'


FAULTS_IN_JSON = {
    "a comma left out": json_document("1", "zinc").replace(", ", " ", 1),
    "a quote left out": json_document("1", "zinc").replace('zinc"', "zinc"),
    "a line end in a text": json_document("1", "zi\nnc"),
    "a bracket too few": json_document("1", "zinc")[:-2],
    "a bracket too many": json_document("1", "zinc") + "]}",
    "not UTF-8": json_document("1", "caf\udce9"),
    "half of a surrogate pair": json_document("1", "zi\\ud800nc"),
    "a huge number": json_document("1", "zinc").replace("0", "9" * 5_000),
    "too deep": json_document("1", "zinc").replace("[]", "[" * 9_000 + "]" * 9_000),
    "another value": "7",
}
COLLECTIONS = {
    "collection": ('{{"source": "s", "documents": [{}], "date": "d"}}', ",\n"),
    "list": ("[{}]", ", "),
    "lines": ("{}\n", "\n"),
}


@pytest.mark.parametrize("layout", COLLECTIONS)
@pytest.mark.parametrize("fault", FAULTS_IN_JSON)
@pytest.mark.parametrize("chunk", [5, 64, 1 << 16])
def test_a_fault_in_json_costs_the_document_that_it_is_in(layout, fault, chunk, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK", chunk)
    around, between = COLLECTIONS[layout]
    rows = [json_document("0", "a"), FAULTS_IN_JSON[fault], *(json_document(n, "b") for n in "23")]
    content = around.format(between.join(rows)).encode("utf8", "surrogateescape")
    found = read_until_lost("bioc_json", content)
    line = "line 1" if layout == "list" else "line 2"
    kept = [one.id for one in found if isinstance(one, Document)]
    lost = [(one.id, one.position) for one in found if isinstance(one, Rejection)]
    if fault == "a bracket too many":
        assert kept == ["0", "1", "2", "3"] and lost[0] == (None, line)
    elif fault == "a bracket too few" and layout == "collection":
        # What comes behind is read as a part of it.
        assert kept == ["0"] and lost == [("1", line), ("rest", "")]
    else:
        assert kept == ["0", "2", "3"]
        assert lost[0] == (None if fault == "another value" else "1", line)
        if layout == "collection":
            assert all(one.native.data["header"]["source"] == "s" for one in found[2:])


def read_until_lost(name, content):
    """What is read, and a rejection with the identifier "rest" if an error ends it."""
    found = []
    try:
        for one in INPUTS[name].read(io.BytesIO(content), "given"):
            found.append(one)
    except VanerError as error:
        found.append(Rejection("given", "", str(error), "rest"))
    return found


@pytest.mark.parametrize("layout", COLLECTIONS)
def test_no_document_of_broken_json_is_lost_without_a_word(layout):
    """A fault anywhere in the second document: something put in, or a character left out."""
    around, between = COLLECTIONS[layout]
    broken = json_document("1", "zinc")
    for at in range(len(broken)):
        for fault in (*'"{}[],:x\\', "\n", None):
            put = broken[:at] + (broken[at + 1 :] if fault is None else fault + broken[at:])
            rows = [json_document("0", "a"), put, *(json_document(n, "b") for n in "23")]
            found = read_until_lost("bioc_json", around.format(between.join(rows)).encode())
            kept = {one.id for one in found if isinstance(one, Document)}
            n_lost = sum(isinstance(one, Rejection) for one in found)
            assert "0" in kept and ("3" in kept or n_lost), (at, fault)
            assert n_lost or len(kept) == 4, (at, fault)
            # Only where a bracket is missing the next document can be taken for a part of it.
            is_bracket = fault in tuple("{[") or (fault is None and broken[at] in '}]"')
            assert kept >= {"0", "2", "3"} or is_bracket, (at, fault, found)


def test_memory_stays_flat_behind_a_fault_in_json():
    def peak(n_bytes):
        head, document, tail = DOCUMENTS["bioc_json"]
        stream = io.BufferedReader(Endless(head + b', {"id": 7 "x"}', document, tail, n_bytes))
        tracemalloc.start()
        n = sum(1 for _ in INPUTS["bioc_json"].read(stream, "given"))
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return n, peak_bytes

    few, many = peak(2_000_000), peak(12_000_000)
    assert many[0] > 5 * few[0]
    assert many[1] < few[1] + 200_000


ATTACKS = {
    "expansion": '<!DOCTYPE collection [<!ENTITY a "x"><!ENTITY b "&a;&a;">]><collection>&b;'
    "</collection>",
    "a file": '<!DOCTYPE collection [<!ENTITY a SYSTEM "file:///etc/passwd">]><collection>'
    "<document><id>&a;</id></document></collection>",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_entities_of_a_file_are_refused(attack):
    with pytest.raises(VanerError, match="entities"):
        read("bioc_xml", ATTACKS[attack].encode("utf8"))


def lines_of(n, tag, content):
    """n elements in lines of their own."""
    return [f"<{tag}>{content.format(number)}</{tag}>\n".encode() for number in range(n)]


BROKEN_XML = {
    "bioc_xml": (
        b'<?xml version="1.0"?>\n<collection><infon key="a">b</infon>\n',
        lines_of(
            4,
            "document",
            '<id>{0}</id><infon key="k">v</infon><passage><offset>0</offset>'
            "<text>zinc &amp;\n{0}</text></passage>",
        ),
        b"</collection>\n",
    ),
    "pubmed_xml": (
        b'<!DOCTYPE PubmedArticleSet PUBLIC "-//NLM" "x.dtd">\n<PubmedArticleSet>\n',
        lines_of(
            4,
            "PubmedArticle",
            "<MedlineCitation><PMID>{0}</PMID><Article><ArticleTitle>zinc\n{0}</ArticleTitle>"
            "</Article></MedlineCitation>",
        ),
        b"</PubmedArticleSet>",
    ),
    "jats": (
        b"<OAI-PMH><ListRecords>\n",
        [
            b"<record><metadata>" + line[:-1] + b"</metadata></record>\n"
            for line in lines_of(
                4,
                "article",
                '<front><article-id pub-id-type="pmc">{0}</article-id></front>'
                "<body><p>zinc\n{0}</p>"
                "</body>",
            )
        ],
        b"</ListRecords></OAI-PMH>",
    ),
}
FAULTS_IN_XML = [
    b"<",
    b"&",
    b"&nbsp;",
    b"</x>",
    b"\x00",
    b"\xff",
    b"<document>",
    b"<article>",
    None,
]


@pytest.mark.parametrize("name", BROKEN_XML)
@pytest.mark.parametrize("chunk", [150, 1 << 16])
def test_behind_xml_that_is_not_well_formed_the_next_document_is_read(name, chunk, monkeypatch):
    """A fault anywhere in the second document: something put in, or a byte left out."""
    monkeypatch.setattr(xml_nodes, "_CHUNK", chunk)
    head, parts, tail = BROKEN_XML[name]
    whole = read(name, head + b"".join(parts) + tail)
    assert [one.id for one in whole] == list("0123")
    broken = parts[1]
    for at in range(len(broken)):
        # Two of three places, one of three faults: all of them take long.
        for fault in FAULTS_IN_XML[at % 3 :: 3] if at % 3 else ():
            put = broken[:at] + (broken[at + 1 :] if fault is None else fault + broken[at:])
            found = read(name, head + parts[0] + put + b"".join(parts[2:]) + tail)
            good = [one for one in found if isinstance(one, Document) and one.id in {"0", "2", "3"}]
            lines = put.count(b"\n") - broken.count(b"\n")
            expected = [whole[0]]
            for one in whole[2:]:
                line = int(one.position.removeprefix("line ")) + lines
                expected.append(replace(one, position=f"line {line}"))
            assert [(o.id, o.text, o.position) for o in good] == [
                (o.id, o.text, o.position) for o in expected
            ], (at, fault, put)
            # Nothing is lost without a word.
            rejected = [one for one in found if isinstance(one, Rejection)]
            assert len(rejected) + len(found) - len(good) >= 1 and len(rejected) <= 3


def test_a_document_that_is_lost_is_told_with_its_line_and_what_is_known_of_it():
    head, parts, tail = BROKEN_XML["pubmed_xml"]
    (lost,) = [
        one
        for one in read(
            "pubmed_xml", head + b"".join(parts).replace(b"1</Art", b"&al;</Art") + tail
        )
        if isinstance(one, Rejection)
    ]
    assert (lost.position, lost.id) == ("line 5", "1")
    assert "line 6" in lost.reason and "unknown entities; found: al" in lost.reason
    # Two files in one, as `cat` makes them.
    found = read("pubmed_xml", (head + b"".join(parts) + tail) * 2)
    assert [type(one).__name__ for one in found] == [
        *["Document"] * 4,
        "Rejection",
        *["Document"] * 4,
    ]
    # Where no tag can be found in the bytes, the rest is lost.
    content = (head + b"".join(parts) + tail).decode().replace("1</Art", "</Oops").encode("utf-16")
    assert [type(one).__name__ for one in read("pubmed_xml", content)] == ["Document", "Rejection"]


class Endless(io.RawIOBase):
    """A collection of n_bytes that is never in memory."""

    def __init__(self, head, document, tail, n_bytes):
        self.parts = iter([head, *[document] * (n_bytes // len(document)), tail])
        self.rest = b""

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self.rest:
            self.rest = next(self.parts, None)
            if self.rest is None:
                self.rest = b""
                return 0
        n = min(len(buffer), len(self.rest))
        buffer[:n], self.rest = self.rest[:n], self.rest[n:]
        return n


WORDS = b"zinc and p53 " * 400
DOCUMENTS = {
    "bioc_xml": (
        b"<collection>",
        b"<document><id>1</id><passage><offset>0</offset><text>"
        + WORDS
        + b"</text></passage></document>",
        b"</collection>",
    ),
    "bioc_json": (
        b'{"documents": [{"id": 0, "passages": []}',
        b', {"id": 1, "passages": [{"offset": 0, "text": "' + WORDS + b'"}]}',
        b"]}",
    ),
    "pubmed_xml": (
        b"<PubmedArticleSet>",
        b"<PubmedArticle><MedlineCitation><PMID>1</PMID><Article><ArticleTitle>"
        + WORDS
        + b"</ArticleTitle></Article></MedlineCitation></PubmedArticle>",
        b"</PubmedArticleSet>",
    ),
    "jsonl": (b"", b'{"text": "' + WORDS + b'"}\n', b""),
    "pubtator": (b"", b"1|t|" + WORDS + b"\n\n", b""),
}


def test_memory_stays_flat_however_long_a_docbin_is(monkeypatch):
    monkeypatch.setattr(docbin_stream, "_PART", 2)

    def peak(n_docs):
        stream = io.BytesIO(docbin(n_docs, 50_000))
        tracemalloc.start()
        n_found = sum(1 for _ in INPUTS["spacy"].read(stream, "given"))
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert n_found == n_docs
        return peak_bytes

    # The 20 documents more have 1,000,000 bytes.
    assert peak(26) < peak(6) + 200_000


@pytest.mark.parametrize("name", DOCUMENTS)
def test_memory_stays_flat_however_long_a_file_is(name):
    def peak(n_bytes):
        stream = io.BufferedReader(Endless(*DOCUMENTS[name], n_bytes))
        tracemalloc.start()
        n = sum(1 for _ in INPUTS[name].read(stream, "given"))
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return n, peak_bytes

    few, many = peak(2_000_000), peak(12_000_000)
    assert many[0] > 5 * few[0]
    assert many[1] < few[1] + 200_000


FAULTS = {
    "not UTF-8": ("jsonl", b'{"text": "a\xff"}\n{"text": "b"}\n', ["UTF-8"], ["b"]),
    "not JSON": ("jsonl", b'{"text": "a"\n{"text": "b"}\n', ["JSON"], ["b"]),
    "half a pair": ("jsonl", b'{"text": "a\\ud800"}\n{"text": "b"}\n', ["surrogate"], ["b"]),
    "half a pair elsewhere": ("jsonl", b'{"text": "a", "x": "\\ud800"}\n', ["surrogate"], []),
    "a huge number": (
        "jsonl",
        b'{"text": "a", "x": ' + b"9" * 5_000 + b'}\n{"text": "b"}\n',
        ["digits"],
        ["b"],
    ),
    "offsets": ("jsonl", b'{"text": "a", "ents": [[0, 9, "T"]]}\n', ["inside"], []),
    "another text": ("jsonl", b'{"text": "ab", "ents": [[0, 2, "T", "xy"]]}\n', ["fit"], []),
    "no title": ("pubtator", b"1|a|x\n\n2|t|b\n", ["title"], ["b"]),
    "PubTator offsets": ("pubtator", b"1|t|x\n1\t5\t9\tx\tT\n\n2|t|b\n", ["inside"], ["b"]),
    "BioC offsets": (
        "bioc_xml",
        BIOC.replace(b'offset="58"', b'offset="57"'),
        ["offsets do not fit the text"],
        [],
    ),
    "BioC far offset": (
        "bioc_json",
        b'[{"id": "1", "passages": [{"offset": 999999999, "text": "x"}]}, '
        b'{"id": "2", "passages": [{"offset": 0, "text": "b"}]}]',
        ["offset 999999999"],
        ["b"],
    ),
    "BioC no text": ("bioc_json", b'[{"id": "1", "passages": [{"offset": 0}]}]', ["text"], []),
    "BioC no lists": ("bioc_json", b'[{"id": "1", "passages": [7]}]', ["not BioC"], []),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_document_that_cannot_be_read_is_rejected_and_the_next_one_read(fault):
    name, content, reasons, texts = FAULTS[fault]
    found = read(name, content)
    rejected = [one for one in found if isinstance(one, Rejection)]
    assert [one.text for one in found if isinstance(one, Document)] == texts
    assert len(rejected) == len(reasons)
    for one, reason in zip(rejected, reasons, strict=True):
        assert reason in one.reason and one.position


def test_packed_files_are_known_by_their_content(tmp_path):
    from spacy_vaner.annotation.inputs import Limits, cut, find_sources

    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b'{"text": "zinc"}\n'))
    (source,) = find_sources(str(tmp_path), None, Limits())
    (shard,) = cut(source, Limits())
    assert [one.text for one in shard.documents] == ["zinc"]
