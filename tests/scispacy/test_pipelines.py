"""`vaner_ner` among scispaCy's components, the real ones, and spaCy's rulers and `ner`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.training import Example
from spacy.util import fix_random_seed

from tests.support.tiny_tagger import predictions

# The extra stops at Python 3.12.
pytest.importorskip("scispacy")
for _module in ("abbreviation", "custom_sentence_segmenter", "hyponym_detector", "linking"):
    import_module(f"scispacy.{_module}")
import_module("negspacy.negation")

pytestmark = [
    # scispaCy's abbreviation detector, on a document without any.
    pytest.mark.filterwarnings("ignore:.*'matcher' does not have any patterns:UserWarning"),
    # scispaCy's own pattern of infixes.
    pytest.mark.filterwarnings("ignore:Possible set:FutureWarning"),
    # Python 3.12 and later warn of every fork of a process with threads; torch has some.
    pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning"),
]

TEXT = (
    "Histone deacetylase (HDAC) was high. Patients without zinc. Levels of chemicals such as "
    "aspirin and folic acid in TNF-α-deficient mice."
)
FOUND = [
    ("HDAC", "Gene"),
    ("zinc", "Chemical"),
    ("aspirin", "Chemical"),
    ("folic acid", "Chemical"),
    ("TNF-α", "Gene"),
]
ABBREVIATIONS = ("abbreviation_detector", {"make_serializable": True})
Make = Callable[..., Language]


def found(doc: Doc) -> list[tuple[str, str]]:
    """What the tagger found, by exact offsets."""
    return [(doc.text[start:end], name) for name, start, end, _ in predictions(doc)]


def ents(doc: Doc) -> list[tuple[str, str]]:
    return [(ent.text, ent.label_) for ent in doc.ents]


def tokenize_as_scispacy(nlp: Language) -> Language:
    from scispacy.custom_tokenizer import combined_rule_tokenizer

    nlp.tokenizer = combined_rule_tokenizer(nlp)
    return nlp


def tag_chemicals(nlp: Language) -> Language:
    """Give the parts of speech and lemmas that the hyponym detector needs."""
    ruler: Any = nlp.add_pipe("attribute_ruler", first=True)
    ruler.add(patterns=[[{"LOWER": {"IN": ["chemicals", "aspirin"]}}]], attrs={"POS": "NOUN"})
    for word in ("such", "as"):
        ruler.add(patterns=[[{"LOWER": word}]], attrs={"LEMMA": word})
    return nlp


@pytest.fixture
def whole(make: Make, linker: str) -> Language:
    """All of scispaCy that can be stored with a document."""
    linking = ("scispacy_linker", {"linker_name": linker})
    return tokenize_as_scispacy(
        make("pysbd_sentencizer", "vaner_ner", ABBREVIATIONS, linking, "negex")
    )


def facts(doc: Doc) -> list[tuple[Any, ...]]:
    """What the components of `whole` say of each entity."""
    return [
        (
            ent.text,
            ent.label_,
            round(ent._.vaner_probability, 5),
            [tuple(pair) for pair in ent._.kb_ents],
            ent._.long_form,
            ent._.negex,
        )
        for ent in doc.ents
    ]


def test_with_scispacys_tokenizer_and_sentences_the_offsets_stay_exact(make: Make) -> None:
    nlp = tokenize_as_scispacy(make("pysbd_sentencizer", "vaner_ner"))
    doc = nlp(TEXT)
    assert found(doc) == FOUND
    assert [sentence.text for sentence in doc.sents] == [
        "Histone deacetylase (HDAC) was high.",
        "Patients without zinc.",
        "Levels of chemicals such as aspirin and folic acid in TNF-α-deficient mice.",
    ]
    # scispaCy keeps words with hyphens together; doc.ents holds whole tokens.
    assert ents(doc) == [*FOUND[:-1], ("TNF-α-deficient", "Gene")]
    nlp.get_pipe("vaner_ner").retokenize = True  # type: ignore[attr-defined]
    assert ents(nlp(TEXT)) == FOUND


@pytest.mark.parametrize("is_first", [True, False])
def test_abbreviations_are_those_of_the_pipeline_without_us(is_first: bool, make: Make) -> None:
    order = ["abbreviation_detector", "vaner_ner"]
    doc = make(*(order if is_first else reversed(order)))(TEXT)
    (abbreviation,) = doc._.abbreviations
    assert (abbreviation.text, abbreviation._.long_form.text) == ("HDAC", "Histone deacetylase")
    assert found(doc) == FOUND and doc.ents[0]._.long_form.text == "Histone deacetylase"
    (alone,) = make("abbreviation_detector")(TEXT)._.abbreviations
    assert (alone.start, alone.end) == (abbreviation.start, abbreviation.end)


def test_the_linker_links_what_was_predicted_and_resolves_abbreviations(
    make: Make, linker: str
) -> None:
    nlp = make("vaner_ner", "abbreviation_detector", ("scispacy_linker", {"linker_name": linker}))
    linked = {ent.text: [id_ for id_, _ in ent._.kb_ents] for ent in nlp(TEXT).ents}
    assert linked["zinc"] == ["C1"] and linked["aspirin"][0] == "C2"
    # No alias of it: found by its long form.
    assert linked["HDAC"] == ["G1"]
    names = nlp.get_pipe("scispacy_linker").kb.cui_to_entity  # type: ignore[attr-defined]
    assert names["G1"].canonical_name == "Histone deacetylase"


def test_scispacys_own_index_links_too(
    make: Make, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from scispacy import candidate_generation
    from scispacy.linking import EntityLinker
    from scispacy.linking_utils import Entity, KnowledgeBase

    # It refuses scipy from 1.11 on because of numbers that it would save; here it saves none.
    monkeypatch.setattr(candidate_generation, "scipy_supports_sparse_float16", lambda: True)
    # An n-gram has to be in ten names to count.
    salts = [Entity(f"S{n}", f"zinc salt {n}", ["zinc"], [], "A salt.") for n in range(12)]
    doc = EntityLinker.from_kb(KnowledgeBase(salts), k=99)(make("vaner_ner")("high zinc levels"))
    (zinc,) = doc.ents
    assert {id_ for id_, _ in zinc._.kb_ents} <= {salt.concept_id for salt in salts}
    assert len(zinc._.kb_ents) == 5 and zinc._.kb_ents[0][1] == pytest.approx(1.0)


def test_hyponyms_are_found_beside_entities(make: Make) -> None:
    nlp = tag_chemicals(make("vaner_ner", ("hyponym_detector", {"extended": False})))
    doc = nlp("Levels of chemicals such as aspirin")
    ((predicate, general, specific),) = doc._.hearst_patterns
    assert (predicate, general.text, specific.text) == ("such_as", "chemicals", "aspirin")
    assert ents(doc) == [("aspirin", "Chemical")]


def test_negation_is_told_of_predicted_entities(make: Make) -> None:
    doc = make("pysbd_sentencizer", "vaner_ner", "negex")(TEXT)
    assert {ent.text for ent in doc.ents if ent._.negex} == {"zinc"}
    only = make("pysbd_sentencizer", "vaner_ner", ("negex", {"ent_types": ["Gene"]}))(TEXT)
    assert not any(ent._.negex for ent in only.ents)


@pytest.fixture(scope="module")
def ner() -> Language:
    """spaCy's own `ner` that has learned two words, one of which we find too (about 2 s)."""
    fix_random_seed(0)
    nlp = spacy.blank("en")
    nlp.add_pipe("ner")
    text = "high zinc in mice"
    example = Example.from_dict(
        nlp.make_doc(text), {"entities": [(5, 9, "MINERAL"), (13, 17, "SPECIES")]}
    )
    optimizer = nlp.initialize(lambda: [example])
    for _ in range(40):
        nlp.update([example], sgd=optimizer)
    assert ents(nlp(text)) == [("zinc", "MINERAL"), ("mice", "SPECIES")]
    return nlp


OURS = [("zinc", "Chemical"), ("mice", "SPECIES")]
THEIRS = [("zinc", "MINERAL"), ("mice", "SPECIES")]


@pytest.mark.parametrize(
    ("before", "overwrite", "expected"),
    [(True, True, OURS), (True, False, THEIRS), (False, True, OURS)],
)
def test_beside_an_existing_ner(
    before: bool, overwrite: bool, expected: list[tuple[str, str]], ner: Language, make: Make
) -> None:
    nlp = make(("vaner_ner", {"overwrite_ents": overwrite}))
    nlp.add_pipe("ner", source=ner, **({"first": True} if before else {}))
    doc = nlp("high zinc in mice")
    assert ents(doc) == expected
    assert [span.label_ for span in doc.spans["vaner"]] == ["Chemical"]


RULES = [
    {"label": "MINERAL", "pattern": "zinc", "id": "M1"},
    {"label": "SPECIES", "pattern": "mice", "id": "S1"},
]


@pytest.mark.parametrize(
    ("before", "overwrite", "ruler_overwrites", "expected"),
    [
        (True, True, False, OURS),
        (True, False, False, THEIRS),
        (False, True, False, OURS),
        (False, True, True, THEIRS),
    ],
)
def test_beside_an_entity_ruler(
    before: bool,
    overwrite: bool,
    ruler_overwrites: bool,
    expected: list[tuple[str, str]],
    make: Make,
) -> None:
    ours = ("vaner_ner", {"overwrite_ents": overwrite})
    ruler = ("entity_ruler", {"overwrite_ents": ruler_overwrites})
    nlp = make(*([ruler, ours] if before else [ours, ruler]))
    nlp.get_pipe("entity_ruler").add_patterns(RULES)  # type: ignore[attr-defined]
    doc = nlp("high zinc in mice")
    assert ents(doc) == expected and doc.ents[1].ent_id_ == "S1"
    # Overruled or not, what we found is there, with its probability.
    (span,) = doc.spans["vaner"]
    assert (span.text, span.label_) == ("zinc", "Chemical") and span._.vaner_probability > 0.9


@pytest.mark.parametrize("before", [True, False])
def test_beside_a_span_ruler(before: bool, make: Make) -> None:
    order = ["span_ruler", "vaner_ner"]
    nlp = make(*(order if before else reversed(order)))
    nlp.get_pipe("span_ruler").add_patterns(RULES)  # type: ignore[attr-defined]
    doc = nlp("high zinc in mice")
    assert [span.label_ for span in doc.spans["ruler"]] == ["MINERAL", "SPECIES"]
    assert [span.label_ for span in doc.spans["vaner"]] == ["Chemical"]
    assert ents(doc) == [("zinc", "Chemical")]
    nlp.get_pipe("span_ruler").annotate_ents = True  # type: ignore[attr-defined]
    nlp.get_pipe("vaner_ner").overwrite_ents = False  # type: ignore[attr-defined]
    if before:
        assert ents(nlp("high zinc in mice")) == THEIRS


def test_the_whole_pipeline_says_the_same_in_two_processes_and_after_saving(
    whole: Language, tmp_path: Any
) -> None:
    alone = facts(whole(TEXT))
    assert [fact[:2] for fact in alone] == [*FOUND[:-1], ("TNF-α-deficient", "Gene")]
    assert [fact[5] for fact in alone] == [False, True, False, False, False]
    assert alone[0][3:5] == ([("G1", pytest.approx(1.0))], "Histone deacetylase")
    docs = [*whole.pipe([TEXT, "", TEXT], n_process=2, batch_size=1)]
    assert [facts(doc) for doc in docs] == [alone, [], alone]
    whole.to_disk(tmp_path / "whole")
    back = spacy.load(tmp_path / "whole")
    assert back.pipe_names == whole.pipe_names and facts(back(TEXT)) == alone
    assert [token.text for token in back(TEXT)] == [token.text for token in whole(TEXT)]


def test_a_docbin_keeps_what_all_components_said(whole: Language) -> None:
    doc = whole(TEXT)
    stored = DocBin(docs=[doc], store_user_data=True).to_bytes()
    (back,) = DocBin().from_bytes(stored).get_docs(whole.vocab)
    assert facts(back) == facts(doc)
    assert [s.text for s in back.spans["vaner"]] == [s.text for s in doc.spans["vaner"]]
    assert [*back.spans["vaner"].attrs["scores"]] == [*doc.spans["vaner"].attrs["scores"]]
    assert [one["long_text"] for one in back._.abbreviations] == ["Histone deacetylase"]
