"""The text that asks for a type, and its registered templates."""

from collections.abc import Callable
from functools import partial
from string import Formatter

from spacy_vaner.errors import Messages, VanerError

Instruction = Callable[[str, str | None], str]
"""From a type and a corpus name (None = none) to the text that stands before the window."""


def template_instruction(with_corpus: str, without_corpus: str) -> Instruction:
    """An instruction from two templates of the user's own.

    with_corpus: used where a corpus name is given; holds {type} and {corpus}.
    without_corpus: used where none is given; holds {type} only.
    RAISES VanerError: VE011, a template lacks a field or has a field that is not known.
    """
    for template, fields in ((with_corpus, ("type", "corpus")), (without_corpus, ("type",))):
        try:
            found = {field for _, field, _, _ in Formatter().parse(template) if field is not None}
            # Finds what is wrong behind a ":" too.
            template.format(**dict.fromkeys(found, "x"))
        except (LookupError, ValueError, AttributeError, TypeError):
            found = set()
        if found != set(fields):
            raise VanerError(Messages.VE011.format(template=template, fields=fields))
    return partial(_fill, with_corpus=with_corpus, without_corpus=without_corpus)


def _fill(type_name: str, corpus: str | None, *, with_corpus: str, without_corpus: str) -> str:
    if corpus is None:
        return without_corpus.format(type=type_name)
    return with_corpus.format(type=type_name, corpus=corpus)


def paper_instruction() -> Instruction:
    """The two wordings that VANER was trained with.

    SOURCE: VANER, section 3.2 and figure 1; the wording is that of the authors' code, which uses
    the form without a corpus name for the rows made of knowledge-base entities.
    """
    return template_instruction(
        with_corpus="If any {type} entity is mentioned in the {corpus} input, extract it. "
        "##input: ",
        without_corpus="If any {type} entity is mentioned in the input, extract it. ##input: ",
    )


def no_instruction() -> Instruction:
    """Nothing before the window: for a tagger of a single type, such as LS-LLaMA's."""
    return _ask_nothing


def _ask_nothing(type_name: str, corpus: str | None) -> str:
    return ""
