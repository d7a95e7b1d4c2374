"""The systems that a benchmark compares: one table, one small adaptor each.

An adaptor is a module with `load(spec) -> System`; it is imported when a system of its kind runs,
so that a package that is missing concerns nobody else. Another kind is another row of KINDS.
"""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.evaluation.systems.base import System, SystemSpec


class Kind(NamedTuple):
    """What `where` means for systems of this kind, and the module that loads them."""

    where: str
    module: str


KINDS: dict[str, Kind] = {
    "vaner": Kind("folder or name of a pipeline with vaner_ner", "pipelines"),
    "spacy": Kind("folder or name of any spaCy pipeline that sets entities", "pipelines"),
    "cnn": Kind("nothing: spaCy's CNN with random weights, for its speed alone", "pipelines"),
    "scispacy": Kind("name or folder of one of scispaCy's NER models", "scispacy"),
    "dictionary": Kind("knowledge base (.parquet), or training files (.spacy) or folder", "names"),
    "flair": Kind("file or hub name of a flair tagger, e.g. hunflair/hunflair2-ner", "flair"),
    "gliner": Kind("folder or hub name of a GLiNER model", "gliner"),
    "llm": Kind("config of a spaCy pipeline with a spacy-llm component", "llm"),
}


def load_system(spec: SystemSpec) -> System:
    """Load what a row of the table names.

    RAISES SystemMissing: a package or the weights are not there. VanerError: VE460, an unknown
        kind; whatever else its loading raises.
    """
    if spec.kind not in KINDS:
        raise VanerError(Messages.VE460.format(kind=spec.kind, known=", ".join(KINDS)))
    adaptor = import_module(f"{__name__}.{KINDS[spec.kind].module}")
    system: System = adaptor.load(spec)
    return system
