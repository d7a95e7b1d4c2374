"""What of a test split occurs in training data."""

from __future__ import annotations

import pytest

from spacy_vaner.errors import VanerError
from spacy_vaner.evaluation.leakage import TrainingNames, measure_leakage
from spacy_vaner.types import Mention
from tests.support.gold_documents import gold_document, sample_documents, save

SHARED = "Aspirin eased the pain of nine patients with chronic gout."
OWN = "Nothing at all was seen in the other twelve healthy women."
SHORT = "We thank everyone."


def test_sentences_are_found_again_however_they_are_cut(tmp_path):
    train = gold_document(
        f"Introduction. {SHARED.replace(' ', '  ').upper()} More words follow here.",
        corpus="Trained",
    )
    test = gold_document(
        f"{SHARED} {OWN} {SHORT}",
        [("Chemical", "Aspirin"), ("Disease", "gout"), ("Disease", "pain")],
        corpus="Tested",
    )
    files = [save(tmp_path / f"{name}.spacy", [doc]) for name, doc in (("a", train), ("b", test))]
    leak = measure_leakage(files[:1], files[1:])["Tested"]
    # The third sentence is too short to be called the same.
    assert (leak.sentences, leak.sentences_seen) == (2, 1)
    assert leak.documents_by_source == {"Trained": 1}
    assert measure_leakage(files[1:], files[1:])["Tested"].sentences_seen == 2


def test_a_sentence_is_seen_if_all_of_it_is(tmp_path):
    train = save(tmp_path / "a.spacy", [gold_document(SHARED)])
    both = f"{SHARED} {OWN}"
    for sentences, seen in (([both], 0), ([SHARED, OWN], 1)):
        test = save(tmp_path / "b.spacy", [gold_document(both, sentences=sentences)])
        leak = measure_leakage([train], [test])["Corpus"]
        assert (leak.sentences, leak.sentences_seen) == (len(sentences), seen)


def test_names_are_compared_within_their_type(tmp_path):
    text = "aspirin and ACE and lung cancer"
    train = gold_document(text, [("Chemical", "ACE"), ("Disease", "lung cancer")])
    text = "Lung  cancer, ACE, lung cancer and gout"
    test = gold_document(
        text,
        [
            ("Disease", "Lung  cancer"),
            ("Disease", "lung cancer"),
            ("Disease", "gout"),
            ("Gene", "ACE"),
        ],
        types=["Disease", "Gene"],
    )
    files = [save(tmp_path / f"{name}.spacy", [doc]) for name, doc in (("a", train), ("b", test))]
    types = measure_leakage(files[:1], files[1:])["Corpus"].to_dict()["types"]
    assert types == {
        "Disease": {"mentions": 3, "mentions_seen": 2, "names": 2, "names_seen": 1},
        "Gene": {"mentions": 1, "mentions_seen": 0, "names": 1, "names_seen": 0},
    }
    names = TrainingNames.from_files(files[:1])
    assert ("Disease", "LUNG cancer") in names
    assert ("Gene", "ACE") not in names


def test_discontinuous_names_count_too():
    names = TrainingNames()
    names.add("head and neck pain", [Mention("Disease", ((0, 4), (14, 18)))])
    assert ("Disease", "head pain") in names


def test_the_splits_of_the_sample_corpus_share_no_sentence(tmp_path):
    train, test = (
        save(tmp_path / f"{split}.spacy", sample_documents(split)) for split in ("train", "test")
    )
    leak = measure_leakage([train], [test])["sample"]
    assert leak.documents == 16
    assert leak.sentences > 50 and leak.sentences_seen == 0
    assert 0 < leak.types["Disease"].mentions_seen < leak.types["Disease"].mentions
    whole = measure_leakage([train, test], [test])["sample"]
    assert whole.sentences_seen == whole.sentences
    assert whole.types["Gene"].mentions_seen == whole.types["Gene"].mentions


def test_files_that_are_none_are_refused(tmp_path):
    bad = tmp_path / "bad.spacy"
    bad.write_text("no")
    with pytest.raises(VanerError, match="VE202"):
        measure_leakage([bad], [])
    with pytest.raises(VanerError, match="VE402"):
        measure_leakage([], [bad])
