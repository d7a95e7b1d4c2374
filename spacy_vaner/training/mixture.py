"""Which corpora a run trains on, how often each is read, and which it is measured on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.training.rows_folder import Document, QuestionCounts, Source
from spacy_vaner.training.tag_config import TagConfig


def training_sources(sources: Sequence[Source], config: TagConfig) -> list[Source]:
    """The files that are trained on, those of share 0 included.

    RAISES VanerError: VE524, a setting names what is not there.
    """
    _check(sources, config)
    excluded = {*config.without, *config.leave_out}
    return [
        source for source in sources if source.facts.split == "train" and not _is(source, excluded)
    ]


def dev_sources(sources: Sequence[Source], config: TagConfig) -> list[Source]:
    """The files that are measured on: dev, or what stands for it in the corpora that are left out.

    Of a corpus that is left out all files are as good as dev; its dev file is taken where there is
    one.
    """
    excluded = {*config.without}
    left = [source for source in sources if not _is(source, excluded)]
    dev = [source for source in left if source.facts.split == "dev"]
    if not config.leave_out:
        return [one for one in dev if not config.dev_files or _is(one, {*config.dev_files})]
    out = [source for source in left if _is(source, {*config.leave_out})]
    with_dev = {source.facts.name for source in out if source.facts.split == "dev"}
    return [s for s in out if s.facts.split == "dev" or s.facts.name not in with_dev]


def asked_of(document: Document, config: TagConfig) -> Document:
    """The document without the types that are not asked."""
    kept = [one for one in document.annotations if one.type not in config.without]
    return document._replace(annotations=kept)


def asked_questions(sources: Iterable[Source], config: TagConfig) -> list[QuestionCounts]:
    """What is asked of documents, file by file."""
    return [
        counts
        for source in sources
        for counts in source.facts.questions
        if counts.type not in config.without
    ]


def corpus_shares(sources: Sequence[Source], config: TagConfig) -> list[float]:
    """The share of the windows that come from each file; they sum to 1 unless all are 0.

    sources: that are trained on.
    """
    sizes = []
    for source in sources:
        facts = source.facts
        factor = config.mixture.get(facts.name, config.mixture.get(facts.corpus or "", 1.0))
        if not asked_questions([source], config):
            factor = 0.0
        sizes.append(factor * facts.n_subwords**config.size_power if facts.n_subwords else 0.0)
    total = sum(sizes)
    return [size / total if total else 0.0 for size in sizes]


def mixture_table(sources: Sequence[Source], config: TagConfig) -> str:
    """What is trained on, a row per file and type, as Markdown.

    RAISES VanerError: VE524.
    """
    lines = [
        "| file | type | corpus name | annotated | documents | mentions | discontinuous | widened "
        "| not tagged | share of windows |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    chosen = training_sources(sources, config)
    for source, share in zip(chosen, corpus_shares(chosen, config), strict=True):
        for one in asked_questions([source], config) if share else []:
            cells = [
                source.facts.name,
                one.type,
                one.corpus or "–",
                "completely" if one.is_complete else "partly",
                *(f"{n:,}" for n in (one.n_documents, one.n_mentions, one.n_discontinuous)),
                *(f"{n:,}" for n in (one.n_widened, one.n_untagged)),
                f"{share:.1%}",
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _is(source: Source, names: set[str]) -> bool:
    return source.facts.name in names or source.facts.corpus in names


def _check(sources: Sequence[Source], config: TagConfig) -> None:
    corpora = {name for source in sources for name in (source.facts.name, source.facts.corpus)}
    types = {counts.type for source in sources for counts in source.facts.questions}
    for setting, given, there in (
        ("mixture", config.mixture, corpora),
        ("leave_out", config.leave_out, corpora),
        ("without", config.without, corpora | types),
        ("dev_files", config.dev_files, corpora),
    ):
        if unknown := sorted({*given} - there):
            known = ", ".join(sorted(name for name in there if name))
            raise VanerError(
                Messages.VE524.format(setting=setting, names=", ".join(unknown), known=known)
            )
