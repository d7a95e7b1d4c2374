"""The texts that ask for a type."""

from __future__ import annotations

import pickle

import pytest

from spacy_vaner.errors import VanerError
from spacy_vaner.instructions import paper_instruction, template_instruction


@pytest.mark.parametrize(
    "type_name, corpus, text",
    [
        (
            "Disease",
            "ncbi",
            "If any Disease entity is mentioned in the ncbi input, extract it. ##input: ",
        ),
        ("Gene", None, "If any Gene entity is mentioned in the input, extract it. ##input: "),
    ],
)
def test_wordings_of_the_paper(type_name: str, corpus: str | None, text: str) -> None:
    assert paper_instruction()(type_name, corpus) == text


def test_templates_of_a_user() -> None:
    instruction = template_instruction("{corpus}/{type}: {{x}} {type}", "{type}?")
    assert instruction("Cell {line}", "a{b}") == "a{b}/Cell {line}: {x} Cell {line}"
    assert instruction("Cell", None) == "Cell?"


@pytest.mark.parametrize(
    "with_corpus, without_corpus",
    [
        ("{type}", "{type}"),  # no corpus
        ("{corpus}", "{type}"),
        ("{type} {corpus}", "any"),
        ("{type} {corpus}", "{type} {corpus}"),
        ("{type} {corpus} {text}", "{type}"),
        ("{type} {corpus} {}", "{type}"),
        ("{type} {corpus", "{type}"),
        ("{type.x} {type} {corpus}", "{type}"),
        ("{type} {corpus}", "{type[0]} {type}"),
        ("{type:d} {corpus}", "{type}"),
        ("{type:{n}} {corpus}", "{type}"),
    ],
)
def test_templates_that_do_not_fit_are_refused(with_corpus: str, without_corpus: str) -> None:
    with pytest.raises(VanerError, match="VE011"):
        template_instruction(with_corpus, without_corpus)


def test_instructions_can_be_pickled() -> None:
    instruction = pickle.loads(pickle.dumps(paper_instruction()))
    assert instruction("Gene", None) == paper_instruction()("Gene", None)
