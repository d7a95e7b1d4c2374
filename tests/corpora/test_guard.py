"""The leakage guard: what a protected document keeps out of training, and what it does not."""

from __future__ import annotations

import pytest
import spacy
from spacy.tokens import Doc

from spacy_vaner.corpora.detokenise import join_words
from spacy_vaner.corpora.docbins import docs_to_bytes, read_docs
from spacy_vaner.corpora.guard import GuardCounts, Hit, ProtectedIndex, Source
from spacy_vaner.errors import VanerError

NLP = spacy.blank("en")

LONG = "Mutations of NF-Y were found in three of ten families."
OTHER = "Nothing of the kind was seen in any of the controls."
SHORT = "All patients gave written informed consent."


def make(text, corpus="Train", *, pmid=None, sentences=()):
    doc = NLP(text)
    starts = [text.index(sentence) for sentence in sentences]
    if starts:
        for token in doc:
            token.is_sent_start = token.idx in starts
    doc.user_data["vaner"] = {"corpus": corpus, "pmid": pmid, "types": ["Disease"]}
    return doc


def protecting(text, kind="test", corpus="Held", **settings):
    index = ProtectedIndex()
    index.protect(make(text, corpus, **settings), kind)
    return index


def test_a_shared_pmid_drops_the_document():
    verdict = protecting("A.", pmid="12").check(make("B.", pmid="12"))
    assert verdict.dropped == "PMID"
    assert verdict.hits == (Hit("PMID", Source("Held", "test"), True),)
    assert protecting("A.", pmid="12").check(make("B.", pmid="13")).dropped is None
    assert protecting("A.").check(make("B.")).dropped is None


def test_the_pmid_of_a_dev_document_protects_nothing():
    assert protecting("A.", "dev", pmid="12").check(make("B.", pmid="12")).hits == ()


@pytest.mark.parametrize(
    "text",
    [
        LONG,
        f"{OTHER} {LONG} {SHORT}",
        LONG.upper(),
        LONG.replace(" ", " \n "),
        LONG.replace("NF-Y", "NF - Y"),
        join_words(LONG.replace("-", " - ").replace(".", " .").split())[0],
        f"({LONG})",
    ],
)
def test_a_whole_sentence_of_a_test_split_drops_the_document(text):
    verdict = protecting(f"{SHORT} {LONG} And more.").check(make(text))
    assert verdict.dropped == "test sentence"
    assert verdict.masked == ()


@pytest.mark.parametrize(
    "text",
    [
        SHORT,
        LONG.removesuffix("families.") + "cases.",
        "No m" + LONG[1:].replace("NF-Y", "NF-YB"),
        LONG.removesuffix(".") + "-to-be.",
        "",
        " \n",
        "🙂",
    ],
)
def test_less_than_a_whole_sentence_of_eight_words_is_free(text):
    assert protecting(f"{SHORT} {LONG}").check(make(text)).hits == ()


def test_a_sentence_ends_where_a_word_ends():
    index = protecting(LONG.removesuffix("s."))
    assert index.check(make(LONG)).hits == ()
    assert index.check(make(LONG.replace("families", "family of ten"))).hits == ()
    assert index.check(make(LONG.replace("families", "familie"))).dropped == "test sentence"


@pytest.mark.parametrize("n_words", [7, 8])
def test_eight_words(n_words):
    sentence = " ".join("abcdefghij"[:n_words]) + "."
    verdict = protecting(sentence).check(make(f"{SHORT} {sentence}"))
    assert (verdict.dropped is not None) == (n_words == 8)


def test_marks_alone_are_no_words():
    assert protecting("a b c d - e = f .").check(make("a b c d - e = f .")).hits == ()


def test_an_abbreviation_in_a_protected_sentence_hides_nothing():
    sentence = "We compared E. coli with S. aureus in wounds of sixty patients."
    assert protecting(f"{SHORT} {sentence} {OTHER}").check(make(sentence)).dropped


def test_sentences_that_the_corpus_marks_count_beside_our_own():
    """A corpus may cut where no full stop is."""
    index = protecting("Title without a full stop but with enough words Then the abstract goes on.")
    title = "Title without a full stop but with enough words"
    assert index.check(make(title)).hits == ()
    index = protecting(
        f"{title} Then the abstract goes on.", sentences=(title, "Then the abstract")
    )
    assert index.check(make(title)).dropped == "test sentence"


def test_a_dev_split_masks_its_sentences():
    verdict = protecting(f"{LONG} {SHORT}", "dev").check(make(f"{SHORT} {LONG} {OTHER}"))
    start = len(SHORT) + 1
    assert verdict.dropped is None
    assert (start, start + len(LONG)) in verdict.masked


def test_masks_are_sorted_and_disjoint():
    verdict = protecting(f"{LONG} {OTHER}", "dev").check(make(f"{OTHER} {SHORT} {LONG} {OTHER}"))
    text = f"{OTHER} {SHORT} {LONG} {OTHER}"
    second = text.index(LONG)
    assert verdict.masked == ((0, len(OTHER)), (second, len(text)))


def test_a_document_that_is_masked_as_a_whole_is_dropped():
    verdict = protecting(LONG, "dev").check(make(f" {LONG}\n"))
    assert verdict.dropped == "all masked"


def test_test_goes_before_dev():
    index = protecting(LONG, "dev")
    index.protect(make(OTHER, "Other"), "test")
    verdict = index.check(make(f"{LONG} {OTHER}"))
    assert verdict.dropped == "test sentence"
    assert {str(hit.source) for hit in verdict.hits} == {"Held dev", "Other test"}


def test_between_the_splits_of_one_corpus_the_official_split_stands():
    index = protecting(LONG, corpus="Train", pmid="1")
    doc = make(LONG, "Train", pmid="1")
    verdict = index.check(doc)
    assert verdict.dropped is None
    assert [(hit.cause, hit.applied) for hit in verdict.hits] == [
        ("PMID", False),
        ("sentence", False),
    ]
    assert index.check(doc, within_corpus=True).dropped == "PMID"
    # Another corpus holds it as well.
    index.protect(make(LONG, "Held"), "test")
    assert index.check(doc).dropped == "test sentence"


def test_a_document_of_no_known_corpus_is_guarded():
    index = ProtectedIndex()
    index.protect(NLP(LONG), "test")
    assert index.sources == (Source(None, "test"),)
    assert index.check(NLP(LONG)).dropped == "test sentence"


def test_counts():
    index = protecting(f"{LONG} {SHORT}", pmid="1")
    index.protect(make(OTHER, "Dev"), "dev")
    counts = GuardCounts()
    for doc in [
        make("a.", pmid="1"),
        make(LONG),
        make(f"{OTHER} {SHORT} {OTHER}"),
        make(LONG, "Held"),
        make(SHORT),
    ]:
        counts.add(index.check(doc))
    assert counts.to_dict() == {
        "checked": 5,
        "dropped": {"PMID": 1, "test sentence": 1},
        "dropped_by": {"Held test": 2},
        "masked_documents": 1,
        "masked_stretches": 2,
        "masked_by": {"Dev dev": 1},
        "official_split_stands": {"Held test: sentence": 1},
    }


def test_an_index_is_saved_as_one_file(tmp_path):
    index = protecting(f"{LONG} {SHORT}", pmid="1")
    index.protect(make(OTHER, "Dev"), "dev")
    index.to_file(tmp_path / "index")
    loaded = ProtectedIndex.from_file(tmp_path / "index")
    assert loaded.sources == index.sources
    for doc in [make("a.", pmid="1"), make(LONG), make(f"{OTHER} {SHORT}"), make(SHORT)]:
        assert loaded.check(doc) == index.check(doc)
    loaded.to_file(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "index").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again", "index"]
    (tmp_path / "broken").write_bytes(b"{}")
    for name in ("broken", "missing"):
        with pytest.raises(VanerError, match=f"VE202: .*{name}"):
            ProtectedIndex.from_file(tmp_path / name)


def test_an_index_of_converted_files(tmp_path):
    for name, text in [("a.test", LONG), ("b.dev", OTHER)]:
        (tmp_path / f"{name}.spacy").write_bytes(docs_to_bytes([make(text, name[0])]))
    index = ProtectedIndex.from_files(
        test=[tmp_path / "a.test.spacy"], dev=[tmp_path / "b.dev.spacy"]
    )
    assert index.sources == (Source("a", "test"), Source("b", "dev"))
    assert index.check(make(LONG)).dropped and index.check(make(OTHER)).dropped
    (tmp_path / "a.test.spacy").write_bytes(b"nothing")
    with pytest.raises(VanerError, match="VE202: .*a.test.spacy"):
        ProtectedIndex.from_files(test=[tmp_path / "a.test.spacy"])


def test_docs_come_back_as_they_were(tmp_path):
    docs = [make(LONG, sentences=(LONG,)), Doc(NLP.vocab)]
    docs[0].spans["gold"] = [docs[0][2:5]]
    path = tmp_path / "docs.spacy"
    path.write_bytes(docs_to_bytes(docs))
    first, empty = read_docs(path)
    assert [span.text for span in first.spans["gold"]] == [docs[0][2:5].text]
    assert first.user_data["vaner"]["corpus"] == "Train"
    assert (first.text, empty.text) == (LONG, "")
