"""From text to predictions: nothing is left out, and nothing but the text decides."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import spacy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from spacy.language import Language
from spacy.tokens import Doc

from spacy_vaner.component import VanerNER
from spacy_vaner.decoding import O
from spacy_vaner.errors import VanerError, VanerWarning
from spacy_vaner.model import Answers, make_rows, predict_probabilities, read_document
from spacy_vaner.reading import Question, plan_batches
from tests.support.tiny_tagger import (
    FILLERS,
    N_WORDS,
    Prediction,
    Writer,
    assert_same,
    component_of,
    found,
    predictions,
)


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Texts of very different lengths, some of them hard to read."""
    writer = Writer(spacy.blank("en"), 77)
    lengths = [1, 2, 3, 5, 8, 13, 21, 34, 55] * 2
    strange = ["", "\n", " ", "\u200b", "zinc", "😀 zinc 😀", "x" * 300 + " zinc"]
    return [*strange, *(writer.doc(n).text for n in lengths)]


@pytest.fixture(scope="session")
def expected(shared_nlp: Language, texts: list[str]) -> list[list[Prediction]]:
    """What is predicted for each text alone."""
    return [predictions(shared_nlp(text)) for text in texts]


def test_a_name_found_in_one_place_is_repeated_in_the_others(
    load: Callable[..., Language], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "high zinc , BRCA1-deficient cells and zinc with levels ."
    missed = text.index("zinc with")

    def not_there(*args: Any, **options: Any) -> list[Answers]:
        (answer,) = predict_probabilities(*args, **options)
        for probabilities in answer.probabilities:
            probabilities[answer.units[:, 0] == missed] = [1.0, 0.0, 0.0]
            assert (probabilities[:, O] == 1.0).any()
        return [answer]

    monkeypatch.setattr("spacy_vaner.model.predict_probabilities", not_there)
    nlp = load(repeat_threshold=0.5)
    doc = nlp(text)
    assert found(doc) == [("Chemical", "zinc"), ("Gene", "BRCA1"), ("Chemical", "zinc")]
    assert [ent.start_char for ent in doc.ents if ent.text == "zinc"] == [5, missed]
    places = [row for row in predictions(doc) if row[0] == "Chemical"]
    assert places[0][3] == places[1][3]
    # Neither where that is too doubtful nor where it is switched off.
    for value in (1.0, None):
        component_of(nlp).repeat_threshold = value
        assert found(nlp(text)) == [("Chemical", "zinc"), ("Gene", "BRCA1")]
    # And what is repeated is held to the threshold like everything else.
    component_of(nlp).repeat_threshold, component_of(nlp).threshold = 0.5, 1.0
    assert found(nlp(text)) == []


def test_known_names_are_found_with_their_offsets(shared_nlp: Language) -> None:
    text = "high zinc , BRCA1-deficient cells and (folic acid) at risk of TNF-α ."
    doc = shared_nlp(text)
    assert found(doc) == [
        ("Chemical", "zinc"),
        ("Gene", "BRCA1"),
        ("Chemical", "folic acid"),
        ("Gene", "TNF-α"),
    ]
    assert all(0.5 < probability <= 1.0 for *_, probability in predictions(doc))


# Nothing is left out

FILLER = "patients with the high dose were treated and"
HARD_TEXTS = {
    "nothing": "",
    "newline": "\n",
    "white space": " \t\r\n \u2003",
    "zero width": "\u200b\u200b\ufeff",
    "control characters": "\x00\x01\x1f\x7f",
    "no subword between words": "the \u200b zinc \x00 \u200b dose",
    "emoji": "👩‍👩‍👧‍👦 zinc 👍🏽 high 🇩🇪",
    "combining": unicodedata.normalize("NFD", "Sjögren zinc naïve"),
    "right to left": "שלום zinc مرحبا",
    "not characters": "\uffff zinc \U0010ffff \ue000",
    "carriage returns": "\r\n" * 1000 + " with zinc levels",
    "a long word": "contact" * 800 + " with zinc levels",
    "long words in a row": ("contact" * 50 + " ") * 40 + "with zinc levels",
    "one letter": "z",
    "a name that stands alone": "zinc",
}


@pytest.mark.parametrize("text", HARD_TEXTS.values(), ids=HARD_TEXTS.keys())
def test_hard_texts_are_read(text: str, shared_nlp: Language) -> None:
    """Among them the texts of explosion/spaCy#12622: what follows them keeps its label."""
    doc = shared_nlp(text)
    assert doc.text == text
    zinc = [(start, end) for name, start, end, _ in predictions(doc) if name == "Chemical"]
    assert [text[start:end] for start, end in zinc].count("zinc") == text.count("zinc")
    assert len(doc.spans["vaner"]) == len(predictions(doc))


def test_a_word_of_a_hundred_thousand_characters_is_read_in_seconds(shared_nlp: Language) -> None:
    word = "contact" * 14_286
    started = process_time()
    doc = shared_nlp(f"with zinc levels {word} with BRCA1 levels")
    assert process_time() - started < 30
    assert ("Chemical", "zinc") in found(doc) and ("Gene", "BRCA1") in found(doc)


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text(max_size=80))
def test_any_text_is_read_with_legal_offsets(text: str, shared_nlp: Language) -> None:
    doc = shared_nlp(text)
    for _, start, end, probability in predictions(doc):
        assert 0 <= start < end <= len(text)
        assert text[start:end].strip() == text[start:end]
        assert 0.0 <= probability <= 1.0


def test_every_subword_of_every_unit_is_in_a_window(shared_nlp: Language, texts: list[str]) -> None:
    model = component_of(shared_nlp).model
    for text in texts:
        reading = read_document(model, shared_nlp.make_doc(text))
        labelled = [unit for units in reading.units_by_window() for unit in units.tolist()]
        assert sorted(labelled) == list(range(len(reading.units)))
        rows = make_rows(model, reading, Question("Gene", None))
        for row, (start, end) in zip(rows, reading.windows.ranges, strict=True):
            assert (
                row.input_ids[row.text_start :].tolist() == reading.subword_ids[start:end].tolist()
            )


def plant(name: str, before: int, after: int, seed: int) -> tuple[list[str], int]:
    """Words with a mention after `before` of them. RETURNS: the words, its character offset."""
    draw = random.Random(seed)
    words = [draw.choice(FILLERS[:20]) for _ in range(before + after)]
    offset = sum(len(word) + 1 for word in words[:before])
    return [*words[:before], *name.split(), *words[before:]], offset


@pytest.mark.parametrize("name", ["BRCA1", "folic acid", "TNF-α"])
@pytest.mark.parametrize("sentence_length", [None, 7, N_WORDS, 50])
def test_a_mention_is_found_at_every_window_boundary(
    name: str, sentence_length: int | None, shared_nlp: Language
) -> None:
    """Every place in three windows, so every offset around the boundaries between them."""
    docs, places = [], []
    for before in range(3 * N_WORDS):
        words, offset = plant(name, before, 3 * N_WORDS - before, seed=before)
        starts: list[bool | int | None] | None = None
        if sentence_length is not None:
            # A mention lies within a sentence.
            starts = [i % sentence_length == 0 and i != before + 1 for i in range(len(words))]
        docs.append(Doc(shared_nlp.vocab, words=words, sent_starts=starts))
        places.append((offset, offset + len(name)))
    missed = []
    for doc, place in zip(shared_nlp.pipe(docs), places, strict=True):
        if place not in [(start, end) for _, start, end, _ in predictions(doc)]:
            missed.append((place, found(doc)))
    assert not missed


def test_a_mention_is_found_after_twenty_thousand_words(shared_nlp: Language) -> None:
    words, offset = plant("BRCA1", 20_000, 5, seed=0)
    doc = shared_nlp(" ".join(words))
    assert ("Gene", offset, offset + 5) in [values[:3] for values in predictions(doc)]


@pytest.mark.parametrize(
    "window",
    [
        {"@span_getters": "spacy-transformers.strided_spans.v1", "window": 12, "stride": 8},
        {"@span_getters": "spacy-transformers.sent_spans.v1"},
        {"@span_getters": "spacy-transformers.doc_spans.v1"},
    ],
    ids=lambda window: window["@span_getters"],
)
def test_span_getters_of_spacy_transformers_work_in_place_of_ours(
    window: dict[str, Any], trained_path: Path, shared_nlp: Language
) -> None:
    pytest.importorskip("spacy_transformers", exc_type=ImportError)
    # The default has other arguments, which an override would be merged with.
    config = spacy.util.load_config(trained_path / "config.cfg")
    config["components"]["vaner_ner"]["model"]["window"] = window
    nlp = spacy.util.load_model_from_config(config)
    component_of(nlp).from_disk(trained_path / "vaner_ner")
    text = Writer(nlp, 5).doc(60).text
    ours = shared_nlp(text)
    doc = nlp.make_doc(text)
    for token in doc:
        token.is_sent_start = token.i % 9 == 0
    assert found(nlp(doc)) == found(ours)


def half_of_the_text() -> Callable[[Any], Any]:
    """A span getter that reads every other word."""
    return lambda docs: [[doc[i : i + 1] for i in range(0, len(doc), 2)] for doc in docs]


def test_what_a_getter_leaves_out_is_read_with_a_warning(
    make_nlp: Callable[..., Language], nlp: Language, trained_path: Path
) -> None:
    component_of(nlp).model.attrs["window"] = half_of_the_text()
    with pytest.warns(VanerWarning, match="VW010"):
        doc = nlp("the zinc and BRCA1 high zinc")
    model = component_of(nlp).model
    with pytest.warns(VanerWarning, match="VW010"):
        reading = read_document(model, doc)
    assert (reading.windows.owner[reading.first] >= 0).all()


# Nothing but the text decides


@pytest.mark.parametrize(
    "batch_subwords, batch_size", [(1, 64), (64, 1), (64, 64), (200, 3), (4096, 1), (4096, 64)]
)
def test_batches_do_not_matter(
    batch_subwords: int,
    batch_size: int,
    nlp: Language,
    ner: VanerNER,
    texts: list[str],
    expected: list[list[Prediction]],
) -> None:
    ner.batch_subwords = batch_subwords
    order = list(range(len(texts)))
    random.Random(batch_size).shuffle(order)
    docs = nlp.pipe([texts[index] for index in order], batch_size=batch_size)
    for index, doc in zip(order, docs, strict=True):
        assert doc.text == texts[index]
        assert_same(predictions(doc), expected[index])


def test_other_types_that_are_asked_do_not_matter(
    shared_nlp: Language, texts: list[str], expected: list[list[Prediction]]
) -> None:
    config = {"vaner_ner": {"types": ["Species", "Gene", "Cell line"]}}
    for doc, alone in zip(shared_nlp.pipe(texts, component_cfg=config), expected, strict=True):
        genes = [values for values in predictions(doc) if values[0] == "Gene"]
        assert_same(genes, [values for values in alone if values[0] == "Gene"])


@pytest.mark.parametrize("lengths", [[], [5], [40, 1, 33, 32, 31, 64, 200, 2, 40]])
@pytest.mark.parametrize("budget", [1, 64, 100, 4096])
def test_batches_hold_every_row_once_and_keep_to_the_budget(
    lengths: list[int], budget: int
) -> None:
    batches = list(plan_batches(lengths, budget))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        padded = -(-max(lengths[index] for index in batch) // 32) * 32
        assert len(batch) == 1 or len(batch) * padded <= budget


def test_bf16_stays_close(nlp: Language, ner: VanerNER, shared_nlp: Language) -> None:
    ner.precision = "bf16"
    writer = Writer(nlp, 3)
    docs = [writer.doc(12).text for _ in range(60)]
    n_spans = n_changed = 0
    for fp32, bf16 in zip(shared_nlp.pipe(docs), nlp.pipe(docs), strict=True):
        one = {values[:3]: values[3] for values in predictions(fp32)}
        other = {values[:3]: values[3] for values in predictions(bf16)}
        n_spans += len(one)
        n_changed += len(one.keys() ^ other.keys())
        for key in one.keys() & other.keys():
            assert one[key] == pytest.approx(other[key], abs=0.1)
    assert n_spans > 100
    assert n_changed <= n_spans / 100


def test_the_mask_of_a_long_instruction_is_counted(make_nlp: Callable[..., Language]) -> None:
    """An instruction that leaves no room for the text is an error that says what to change."""
    nlp = make_nlp()
    nlp.initialize()
    with pytest.raises(VanerError, match="VE014.*max_subwords"):
        nlp("zinc", component_cfg={"vaner_ner": {"types": ["a very long name " * 20 + "indeed"]}})
