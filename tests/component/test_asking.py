"""Which types are asked, under which corpus name: the call, the document, the component."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import Doc
from thinc.api import Config

from spacy_vaner.component import VanerNER
from spacy_vaner.errors import VanerError
from spacy_vaner.gold import KEY, Ask, Gold, set_ask
from tests.support.tiny_tagger import Writer, component_of, found, predictions

TEXT = "with zinc and BRCA1 levels"
BOTH = [("Chemical", "zinc"), ("Gene", "BRCA1")]


def types_of(doc: Doc) -> set[str]:
    return {name for name, *_ in predictions(doc)}


def probabilities(doc: Doc) -> dict[tuple[str, int, int], float]:
    return {(name, start, end): value for name, start, end, value in predictions(doc)}


def test_types_per_call(shared_nlp: Language) -> None:
    assert found(shared_nlp(TEXT)) == BOTH
    only_genes = {"vaner_ner": {"types": ["Gene"]}}
    assert found(shared_nlp(TEXT, component_cfg=only_genes)) == BOTH[1:]
    (doc,) = shared_nlp.pipe([TEXT], component_cfg=only_genes)
    assert found(doc) == BOTH[1:]
    # spaCy writes into the caller's dictionary; it may be used again all the same.
    assert found(shared_nlp(TEXT, component_cfg=only_genes)) == BOTH[1:]
    # One call changes nothing for the next.
    assert found(shared_nlp(TEXT)) == BOTH


def test_types_may_be_one_string_wherever_they_are_given(nlp: Language, ner: VanerNER) -> None:
    for types in ("Gene", " Gene , Gene"):
        assert found(nlp(TEXT, component_cfg={"vaner_ner": {"types": types}})) == BOTH[1:]
    (doc,) = nlp.pipe([TEXT], component_cfg={"vaner_ner": {"types": "Gene,Chemical"}})
    assert found(doc) == BOTH
    ner.types = "Gene"  # type: ignore[assignment]  # mypy takes the getter's type
    assert ner.types == ("Gene",)


@pytest.mark.parametrize("key, value", [("type", ["Gene"]), ("threshold", 0.5)])
def test_other_settings_per_call_are_refused(key: str, value: Any, shared_nlp: Language) -> None:
    config = {"vaner_ner": {key: value}}
    message = f"VE030.*vaner_ner knows no setting {key} per call.*types, corpus, batch_size"
    with pytest.raises(VanerError, match=message):
        shared_nlp(TEXT, component_cfg=config)
    with pytest.raises(VanerError, match=message):
        list(shared_nlp.pipe([TEXT], component_cfg=config))


def test_any_name_may_be_asked(shared_nlp: Language) -> None:
    names = ["Cell line", "gene/protein", "COVID-19", "β-Blocker", "a 'quoted' {name}"]
    doc = shared_nlp(TEXT, component_cfg={"vaner_ner": {"types": names}})
    assert types_of(doc) <= set(names)


@pytest.mark.parametrize("name", ["a:b", "a=b", "a\nb", "a\rb", "", "  ", " a", "a ", 3, None])
def test_names_that_a_config_cannot_hold_are_refused(
    name: Any, nlp: Language, ner: VanerNER
) -> None:
    with pytest.raises(VanerError, match="VE022"):
        ner.types = ["Gene", name]
    assert ner.types == ("Chemical", "Gene")
    with pytest.raises(VanerError, match="VE022"):
        nlp(TEXT, component_cfg={"vaner_ner": {"types": [name]}})


def test_no_type_at_all_is_refused(ner: VanerNER) -> None:
    with pytest.raises(VanerError, match="VE021"):
        ner.types = []


@pytest.mark.parametrize(
    "name",
    [
        "Cell line",
        "gene/protein",
        "COVID-19",
        "α-Synuclein",
        "a.b",
        "a#b",
        "50%",
        "a;b",
        "'x'",
        "$x",
    ],
)
def test_names_survive_a_config_file_also_as_keys(
    name: str, make_nlp: Callable[..., Language]
) -> None:
    settings = {
        "types": [name],
        "corpus": {name: "some corpus"},
        "threshold": {name: 0.5},
        "label_map": {name: name.upper()},
    }
    text = make_nlp(**settings).config.to_str()
    read = spacy.util.load_model_from_config(Config().from_str(text))
    ner = component_of(read)
    assert ner.types == (name,)
    assert ner.corpus == {name: "some corpus"}
    assert ner.threshold == {name: 0.5}
    assert ner.label_map == {name: name.upper()}


def test_types_of_the_component_can_change_at_any_time(nlp: Language, ner: VanerNER) -> None:
    ner.types = ["Gene"]
    assert found(nlp(TEXT)) == BOTH[1:]
    assert ner.labels == ner.label_data == ("Gene",)
    assert nlp.pipe_labels["vaner_ner"] == ["Gene"]
    assert ner.add_label("Chemical") == 1
    assert ner.add_label("Chemical") == 0
    assert found(nlp(TEXT)) == BOTH
    # The order is the priority; a type that is named twice is asked once.
    ner.types = ["Gene", "Chemical", "Gene"]
    assert ner.types == ("Gene", "Chemical")


def test_the_corpus_name_reaches_the_instruction(nlp: Language, ner: VanerNER) -> None:
    plain = probabilities(nlp(TEXT))
    named = probabilities(nlp(TEXT, component_cfg={"vaner_ner": {"corpus": "Gene"}}))
    assert plain.keys() & named.keys() and plain != named
    ner.corpus = "Gene"
    assert probabilities(nlp(TEXT)) == pytest.approx(named)
    # A table names it for some types; None in a call takes the component's name away.
    table = {"vaner_ner": {"corpus": {"Chemical": "Gene"}}}
    mixed = probabilities(nlp(TEXT, component_cfg=table))
    for key, value in mixed.items():
        assert value == pytest.approx((named if key[0] == "Chemical" else plain)[key])
    none = probabilities(nlp(TEXT, component_cfg={"vaner_ner": {"corpus": None}}))
    assert none == pytest.approx(plain)


def asking(nlp: Language, types: list[str], corpus: Any = None, text: str = TEXT) -> Doc:
    doc = nlp.make_doc(text)
    set_ask(doc, Ask(types=types, corpus=corpus))
    return doc


def test_a_document_may_ask(nlp: Language) -> None:
    assert found(nlp(asking(nlp, ["Gene"]))) == BOTH[1:]
    assert found(nlp(asking(nlp, []))) == []
    # The call wins.
    config = {"vaner_ner": {"types": ["Chemical"]}}
    assert found(nlp(asking(nlp, ["Gene"]), component_cfg=config)) == BOTH[:1]
    # A type that is asked twice is answered once.
    assert found(nlp(asking(nlp, ["Gene", "Gene"]))) == BOTH[1:]


def test_call_document_and_component_are_asked_in_this_order(nlp: Language, ner: VanerNER) -> None:
    plain = probabilities(nlp(TEXT))
    named = probabilities(nlp(TEXT, component_cfg={"vaner_ner": {"corpus": "Gene"}}))
    ner.corpus = "Gene"
    assert probabilities(nlp(TEXT)) == pytest.approx(named)
    without = asking(nlp, ["Chemical", "Gene"], None)
    assert probabilities(nlp(without)) == pytest.approx(plain)
    without = asking(nlp, ["Chemical", "Gene"], None)
    config = {"vaner_ner": {"corpus": "Gene"}}
    assert probabilities(nlp(without, component_cfg=config)) == pytest.approx(named)


def test_a_document_may_ask_one_thing_and_leave_the_other(nlp: Language, ner: VanerNER) -> None:
    named = probabilities(nlp(TEXT, component_cfg={"vaner_ner": {"corpus": "Gene"}}))
    doc = nlp.make_doc(TEXT)
    set_ask(doc, Ask(corpus="Gene"))
    assert probabilities(nlp(doc)) == pytest.approx(named)
    ner.corpus = "Gene"
    doc = nlp.make_doc(TEXT)
    set_ask(doc, Ask(types=["Gene"]))
    assert probabilities(nlp(doc)) == pytest.approx(
        {key: value for key, value in named.items() if key[0] == "Gene"}
    )


def test_prediction_does_not_read_what_a_document_was_annotated_for(nlp: Language) -> None:
    doc = nlp.make_doc(TEXT)
    doc.user_data[KEY] = Gold(types=("Gene",), partial=("Chemical",)).to_user_data()
    assert found(nlp(doc)) == BOTH
    doc = nlp.make_doc(TEXT)
    doc.user_data[KEY] = None
    assert found(nlp(doc)) == BOTH


def test_questions_of_different_documents_do_not_mix(nlp: Language, ner: VanerNER) -> None:
    writer = Writer(nlp, 8)
    texts = [writer.doc(n).text for n in range(2, 32)]
    asked: list[list[str]] = [["Gene"], ["Chemical"], ["Gene", "Chemical"], [], ["Species"]]
    corpora = [None, "in", {"Gene": "Chemical"}]
    plans = [(asked[i % 5], corpora[i % 3]) for i in range(len(texts))]
    alone = [nlp(asking(nlp, *plan, text)) for plan, text in zip(plans, texts, strict=True)]
    docs = [asking(nlp, *plan, text) for plan, text in zip(plans, texts, strict=True)]
    for batch_subwords in (64, 4096):
        ner.batch_subwords = batch_subwords
        for doc, expected in zip(nlp.pipe(d.copy() for d in docs), alone, strict=True):
            assert types_of(doc) <= set(doc.user_data[KEY]["ask"]["types"])
            assert probabilities(doc) == pytest.approx(probabilities(expected), abs=1e-5)


def test_calls_are_addressed_by_the_name_of_the_component(
    nlp: Language, shared_nlp: Language
) -> None:
    nlp.remove_pipe("vaner_ner")
    nlp.add_pipe("vaner_ner", name="genes", source=shared_nlp)
    config = {"genes": {"types": ["Gene"]}}
    assert found(nlp(TEXT, component_cfg=config)) == BOTH[1:]


def test_the_component_before_it_is_trained_says_what_to_do(
    make_nlp: Callable[..., Language],
) -> None:
    nlp = make_nlp()
    with pytest.raises(VanerError, match="E109.*vaner_ner has no weights yet.*spacy.load"):
        nlp(TEXT)
    with pytest.raises(VanerError, match="E109"):
        list(nlp.pipe([TEXT]))
    with pytest.raises(VanerError, match="E109"):
        nlp.update([spacy.training.Example(nlp.make_doc(TEXT), Writer(nlp).annotated(TEXT))])
    # Settings can be looked at and changed before.
    ner = component_of(nlp)
    ner.types, ner.precision, ner.device = ["Gene"], "bf16", "cpu"
    assert (ner.labels, ner.precision, ner.device) == (("Gene",), "bf16", "cpu")
