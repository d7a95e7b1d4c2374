"""Phrases: what the finders give, and that every phrase lies within its sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import spacy
from spacy.tokens import Doc

from spacy_vaner.corpora.convert import Conversion, annotate, records
from spacy_vaner.corpora.report import ConversionReport
from spacy_vaner.errors import VanerError
from spacy_vaner.knowledge.phrases import (
    AutoPhrases,
    MinedPhrases,
    PipelinePhrases,
    SentencePhrases,
)

SAMPLE = Path(__file__).parent.parent.parent / "project/corpora/sample/sample.dev.jsonl"
TEXT = "Cancer of the breast was treated. BRCA1-deficient mice died (within 3 days) of AT, however."


@pytest.fixture(scope="module")
def sample() -> list[Doc]:
    nlp = spacy.blank("en")
    conversion = Conversion(files=(SAMPLE,), format="jsonl")
    docs = []
    for record in records(conversion, ConversionReport()):
        docs.append(nlp.make_doc(record.text))
        annotate(docs[-1], record, conversion)
    return docs


def texts(doc: Doc, found: list[SentencePhrases]) -> list[str]:
    return [doc.text[start:end] for sentence in found for start, end in sentence.phrases]


def test_mined_phrases_find_the_mentions_of_the_sample(sample: list[Doc]) -> None:
    mine = MinedPhrases().fit(sample)
    n_found = n_mentions = n_phrases = n_words = 0
    for doc in sample:
        sentences = mine(doc)
        phrases = {offsets for sentence in sentences for offsets in sentence.phrases}
        gold = {tuple(m[1][0]) for m in doc.user_data["vaner"]["mentions"] if len(m[1]) == 1}
        n_found += len(gold & phrases)
        n_mentions += len(gold)
        n_phrases += len(phrases)
        n_words += len(doc)
    assert n_found / n_mentions > 0.9
    assert n_phrases / n_words < 1.8


def test_phrases_lie_in_their_sentence_sorted_and_once(sample: list[Doc]) -> None:
    mine = MinedPhrases().fit(sample)
    for doc in sample:
        sentences = mine(doc)
        ends = [0, *(sentence.end for sentence in sentences)]
        assert all(end <= own.start for end, own in zip(ends, sentences, strict=False))
        for sentence in sentences:
            assert list(sentence.phrases) == sorted(set(sentence.phrases))
            assert all(sentence.start <= a < b <= sentence.end for a, b in sentence.phrases)


def test_boundaries_of_mined_phrases() -> None:
    doc = spacy.blank("en")(TEXT)
    found = texts(doc, MinedPhrases(phrases_per_word=99).fit([doc])(doc))
    assert "Cancer of the breast" in found
    assert {"BRCA1-deficient", "BRCA1-deficient mice", "mice", "AT"} <= set(found)
    edges = [phrase.split() for phrase in found]
    assert not {word for words in edges for word in (words[0], words[-1])} & {"of", "the", "was"}
    assert not any(mark in phrase for phrase in found for mark in "(),.")


def test_words_that_keep_together_make_better_phrases() -> None:
    nlp = spacy.blank("en")
    texts = ["marsh fever kills", "marsh fever spreads", "blue marsh fever", "blue sky kills"]
    mine = MinedPhrases().fit([nlp(text) for text in texts * 2])
    assert mine.quality(["marsh", "fever"]) > mine.quality(["fever", "kills"]) > 0
    assert mine.quality(["fever", "sky"]) == 0
    assert mine.quality(["sky"]) > mine.quality(["fever"])


def test_fewer_phrases_per_word_keep_the_best(sample: list[Doc]) -> None:
    few = MinedPhrases(phrases_per_word=0.3).fit(sample)
    many = MinedPhrases(phrases_per_word=3).fit(sample)
    for doc in sample[:5]:
        for less, more in zip(few(doc), many(doc), strict=True):
            assert set(less.phrases) <= set(more.phrases)
            assert len(less.phrases) <= 0.3 * (less.end - less.start)


@pytest.mark.parametrize("text", ["", " \n ", "...", "of the"])
def test_texts_without_a_phrase(text: str) -> None:
    doc = spacy.blank("en")(text)
    assert texts(doc, MinedPhrases().fit([doc])(doc)) == []


@pytest.mark.parametrize("settings", [{"phrases_per_word": 0}, {"max_words": 0}])
def test_settings_are_checked(settings: dict[str, int]) -> None:
    with pytest.raises(VanerError, match="VE612"):
        MinedPhrases(**settings)


def test_sentences_of_the_corpus_are_kept_and_missing_ones_are_made() -> None:
    nlp = spacy.blank("en")
    doc = nlp("Marsh fever. Blue fever")
    mine = MinedPhrases().fit([doc])
    assert [(row.start, row.end) for row in mine(doc)] == [(0, 12), (13, 23)]
    assert not doc.has_annotation("SENT_START")
    for token in doc:
        token.is_sent_start = token.i in (0, 1)
    assert [(row.start, row.end) for row in mine(doc)] == [(0, 5), (6, 23)]


def test_segmentation_of_autophrase_is_found_in_any_text(tmp_path: Path) -> None:
    path = tmp_path / "segmentation.txt"
    path.write_text(
        "a case of <phrase_Q=0.91>Marsh fever</phrase> in <phrase_Q=0.2>two men</phrase>\n"
        "<phrase>blue-green alga</phrase>\n",
        encoding="utf8",
    )
    doc = spacy.blank("en")("Two men with marsh fever. A blue-green alga, marsh fevers.")
    found = texts(doc, AutoPhrases(path)(doc))
    assert found == ["Two men", "marsh fever", "blue-green alga"]
    assert texts(doc, AutoPhrases(path, min_quality=0.5)(doc)) == found[1:]
    with pytest.raises(VanerError, match="VE619"):
        path.write_text("no phrase here\n", "utf8")
        AutoPhrases(path)
    with pytest.raises(VanerError, match="VE602"):
        AutoPhrases(tmp_path / "nothing.txt")


def test_entities_of_a_pipeline_are_phrases(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    rules = nlp.add_pipe("entity_ruler")
    rules.add_patterns([{"label": "ENTITY", "pattern": "marsh fever"}])  # type: ignore[attr-defined]
    nlp.to_disk(tmp_path / "rules")
    doc = spacy.blank("en")("Two marsh fever cases. Another marsh fever.")
    find = PipelinePhrases(str(tmp_path / "rules"))
    assert texts(doc, find(doc)) == ["marsh fever", "marsh fever"]
    assert len(find(doc)) == 2
    assert not doc.ents


def test_pipelines_without_phrases_are_refused(tmp_path: Path) -> None:
    spacy.blank("en").to_disk(tmp_path / "blank")
    with pytest.raises(VanerError, match="VE620.*no component"):
        PipelinePhrases(str(tmp_path / "blank"))
    with pytest.raises(VanerError, match="VE620"):
        PipelinePhrases(str(tmp_path / "nothing"))
