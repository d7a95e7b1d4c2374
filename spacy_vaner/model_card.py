"""The card of a pretrained tagger: facts as JSON, and the page that is written from them.

What a person has to say (intended use, limits, licence, commands) comes from a file; what can be
looked up is: the data from the rows that were trained on, the settings of the run and the
catalogue, figures from the files that `python -m spacy vaner evaluate` wrote.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from spacy_vaner.corpora.alter import ALTERATIONS
from spacy_vaner.corpora.catalogue import catalogue
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.training.card import markdown_list, markdown_table, read_said
from spacy_vaner.training.mixture import asked_questions, corpus_shares, training_sources
from spacy_vaner.training.rows_folder import PreparedRows, QuestionCounts, SourceFacts
from spacy_vaner.training.tag_config import TagConfig

SAID = {
    "about": str,
    "intended_use": str,
    "limits": list,
    "pretraining": str,
    "selection": str,
    "commands": list,
    "seeds": list,
    "licence": str,
    "licence_reason": str,
}
"""What a file of facts says, and in which form: text, or a list of texts."""
OTHER_DATA = "other_data"
"""What it may say besides: of data that no catalogue knows, name → {"about": …, "licence": …}."""

_UNKNOWN_LICENCE = "not in the catalogue"
_TEXT_VIEW = "text"
# Of a corpus that is not in the catalogue.
_VIEWS = (_TEXT_VIEW, "tokens")


def read_facts(path: Path) -> dict[str, Any]:
    """What a person says of a tagger: the keys of SAID, all of them, and OTHER_DATA if it is there.

    RAISES VanerError: VE196, a key is missing, unknown or of another form.
    """
    facts = read_said(path, SAID, optional={OTHER_DATA: dict})
    for name, said in facts.get(OTHER_DATA, {}).items():
        if not _says_what_it_is(said):
            reason = f"{OTHER_DATA!r} has to say of {name!r} two texts, 'about' and 'licence'"
            raise VanerError(Messages.VE196.format(path=path, reason=reason))
    return facts


def training_data(
    rows: PreparedRows,
    configs: Iterable[TagConfig],
    *,
    other_data: Mapping[str, Mapping[str, str]] | None = None,
) -> list[dict[str, Any]]:
    """What was trained on: per corpus its licence, source, and mentions per type.

    The forms of a corpus (views, altered copies) hold the same documents and mentions more or less,
    so one of them is counted: raw text where it was read, since documents as words are sentences.

    configs: settings of the runs whose weights it has; all of one, mostly.
    other_data: what is said of data that are not in the catalogue; see OTHER_DATA.
    RAISES VanerError: VE524, the settings are not those of a run on these rows.
    """
    read: dict[str, tuple[SourceFacts, dict[QuestionCounts, None]]] = {}
    for config in configs:
        chosen = training_sources(rows.sources, config)
        for source, share in zip(chosen, corpus_shares(chosen, config), strict=True):
            if share:
                _, questions = read.setdefault(source.facts.name, (source.facts, {}))
                questions.update(dict.fromkeys(asked_questions([source], config)))
    found: dict[str, list[_Part]] = {}
    for facts, questions in read.values():
        corpus, form = _corpus_and_form(facts)
        mentions: Counter[str] = Counter()
        for question in questions:
            mentions[question.type] += question.n_mentions
        partial = [question.type for question in questions if not question.is_complete]
        part = _Part(form, facts.n_documents, mentions, partial)
        found.setdefault(corpus, []).append(part)
    return [_row(corpus, parts, other_data or {}) for corpus, parts in found.items()]


def shown_settings(config: TagConfig) -> dict[str, Any]:
    """Settings of a run as the card tells them: of files only the names, not where they lay."""
    values = config.to_dict()
    places = [(values, "rows"), (values, "backbone"), (values, "lexicon")]
    for section, key in [*places, (values["start"], "vectors")]:
        if section[key] is not None:
            section[key] = Path(section[key]).name
    return values


def figures(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """What evaluations found, a table each.

    RAISES VanerError: VE196, a file that is no result of an evaluation.
    """
    tables = []
    for path in paths:
        try:
            result = json.loads(path.read_text("utf8"))
            lines = [
                {"corpus": corpus, "type": type_name, **_scores(score)}
                for corpus, scores in result["corpora"].items()
                for type_name, score in [*scores["types"].items(), ("all types", scores["micro"])]
            ]
            table = {key: result[key] for key in ("command", "view", "name_corpus", "versions")}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise VanerError(Messages.VE196.format(path=path, reason=repr(error))) from None
        tables.append({**table, "scores": lines})
    return tables


def card_text(facts: Mapping[str, Any]) -> str:
    """The page, in Markdown.

    facts: what `read_facts` gives; `name`, `types`, `known_types`, `asking`, `n_parameters`,
        `data`, `settings`, and `dev` and `test`, lists of tables.
    """
    parts = [
        f"# {facts['name']}",
        facts["about"],
        "Written from card.json by `python -m spacy vaner ship`; do not edit.",
        f"It asks for {', '.join(facts['types'])} unless told otherwise, and was trained for "
        f"{', '.join(facts['known_types'])}. {facts['n_parameters']:,} numbers, weights in 8 bits; "
        f'`asking = "{facts["asking"]}"`.',
        "## Intended use",
        facts["intended_use"],
        "## Limits",
        markdown_list(facts["limits"]),
        "## Licence",
        f"**{facts['licence']}.** {facts['licence_reason']}",
        "## Data",
        facts["pretraining"],
        "Trained on what stands below: of corpora the training splits, after the leakage guard. "
        "Mentions of a type in brackets are annotated incompletely: they gave loss inside of "
        "mentions only. Counts are of raw text (`text`) where a corpus was read so, else of its "
        "words (`tokens`), where most documents are sentences; `text.lower` and the like are "
        "copies of the texts that look different.",
        markdown_table(
            ("corpus", "documents", "mentions", "read as", "licence", "source"),
            [
                (
                    row["corpus"],
                    f"{row['documents']:,}",
                    _mentions(row),
                    ", ".join(row["forms"]) or "–",
                    row["licence"],
                    row["source"] or "–",
                )
                for row in facts["data"]
            ],
        ),
        "## Training",
        facts["selection"],
        "```bash\n" + "\n".join(facts["commands"]) + "\n```",
        f"Seeds: {', '.join(facts['seeds'])}. All settings of its training stand in card.json.",
    ]
    for split, what in (("dev", "chosen by"), ("test", "read for reporting only")):
        parts.append(f"## Figures on {split} splits ({what})")
        if not facts[split]:
            parts.append("None were taken.")
        for table in facts[split]:
            parts += [_setting(table), markdown_table(_HEADER, map(_line, table["scores"]))]
    return "\n\n".join(parts) + "\n"


_HEADER = ("corpus", "type", "gold", "P", "R", "F1", "95 % interval")


class _Form(NamedTuple):
    """What a corpus was read as: its view, "" if the file names none, and how it was altered."""

    view: str
    how: str

    def __str__(self) -> str:
        return ".".join(filter(None, self))


class _Part(NamedTuple):
    """What a file adds to a corpus."""

    form: _Form
    n_documents: int
    mentions: Counter[str]
    partial: list[str]


def _corpus_and_form(facts: SourceFacts) -> tuple[str, _Form]:
    """The name of the corpus without its view and what `alter` added, and what the file holds."""
    corpus = facts.corpus or facts.name
    how = next((h for h in ALTERATIONS if corpus.endswith((f" ({h})", f".{h}"))), "")
    name, corpus = (
        n.removesuffix(f" ({how})").removesuffix(f".{how}") for n in (facts.name, corpus)
    )
    row = catalogue().get(corpus)
    view = name.rpartition(".")[2]
    if view not in (row.views if row else _VIEWS):
        view = ""
    # A file that says no corpus, or is called after one, has the view in the name.
    return corpus.removesuffix(f".{view}"), _Form(view, how)


def _row(
    corpus: str, parts: Sequence[_Part], other_data: Mapping[str, Mapping[str, str]]
) -> dict[str, Any]:
    forms = dict.fromkeys(part.form for part in parts)
    ordered = sorted(forms, key=lambda form: (bool(form.how), form.view != _TEXT_VIEW))
    mentions: dict[str, int] = {}
    for form in ordered:
        # Files of one form hold different documents. A type may be annotated in one form only.
        of_form: Counter[str] = Counter()
        for part in parts:
            if part.form == form:
                of_form.update(part.mentions)
        mentions = {**of_form, **mentions}
    row, other = catalogue().get(corpus), other_data.get(corpus)
    return {
        "corpus": corpus,
        "licence": row.licence if row else other["licence"] if other else _UNKNOWN_LICENCE,
        "source": row.source if row else other["about"] if other else None,
        "citation": row.citation if row else None,
        "forms": [str(form) for form in ordered if str(form)],
        "documents": sum(part.n_documents for part in parts if part.form == ordered[0]),
        "mentions": mentions,
        "partial": list(dict.fromkeys(name for part in parts for name in part.partial)),
    }


def _says_what_it_is(said: object) -> bool:
    return (
        isinstance(said, dict)
        and said.keys() == {"about", "licence"}
        and all(isinstance(text, str) and text for text in said.values())
    )


def _scores(score: Mapping[str, Any]) -> dict[str, Any]:
    return {key: score[key] for key in ("gold", "p", "r", "f", "f_interval")}


def _setting(table: Mapping[str, Any]) -> str:
    named = "named" if table["name_corpus"] else "not named"
    versions = ", ".join(f"{name} {version}" for name, version in table["versions"].items())
    return (
        f"Strict, micro average over complete documents; view `{table['view']}`, corpus {named}. "
        f"`{table['command']}` ({versions})"
    )


def _line(score: Mapping[str, Any]) -> Sequence[str]:
    interval = score["f_interval"]
    return (
        score["corpus"],
        score["type"],
        f"{score['gold']:,}",
        *(_percent(score[key]) for key in ("p", "r", "f")),
        "–" if interval is None else f"{100 * interval[0]:.1f}–{100 * interval[1]:.1f}",
    )


def _percent(figure: float | None) -> str:
    return "–" if figure is None else f"{100 * figure:.2f}"


def _mentions(row: Mapping[str, Any]) -> str:
    return ", ".join(
        f"({name} {n:,})" if name in row["partial"] else f"{name} {n:,}"
        for name, n in row["mentions"].items()
    )
