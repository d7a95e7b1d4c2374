"""The card of a pretrained tagger: facts as JSON, and the page that is written from them.

What a person has to say (intended use, limits, licence, commands) comes from a file; what can be
looked up is: the data from the rows that were trained on and the catalogue, figures from the files
that `python -m spacy vaner evaluate` wrote.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from spacy_vaner.corpora.catalogue import catalogue
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.training.card import markdown_list, markdown_table, read_said
from spacy_vaner.training.mixture import asked_questions, corpus_shares, training_sources
from spacy_vaner.training.rows_folder import PreparedRows
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

_UNKNOWN_LICENCE = "not in the catalogue"


def read_facts(path: Path) -> dict[str, Any]:
    """What a person says of a tagger: the keys of SAID, all of them.

    RAISES VanerError: VE196, a key is missing, unknown or of another form.
    """
    return read_said(path, SAID)


def training_data(rows: PreparedRows, config: TagConfig) -> list[dict[str, Any]]:
    """What was trained on: per corpus its licence, source, and mentions per type.

    Views of a corpus hold the same mentions, so the larger one counts.
    RAISES VanerError: VE524, the settings are not those of a run on these rows.
    """
    found: dict[str, dict[str, Any]] = {}
    chosen = training_sources(rows.sources, config)
    for source, share in zip(chosen, corpus_shares(chosen, config), strict=True):
        if not share:
            continue
        name = source.facts.corpus or source.facts.name
        row = catalogue().get(name)
        facts = found.setdefault(
            name,
            {
                "corpus": name,
                "licence": row.licence if row else _UNKNOWN_LICENCE,
                "source": row.source if row else None,
                "citation": row.citation if row else None,
                "documents": 0,
                "mentions": {},
                "partial": [],
            },
        )
        facts["documents"] = max(facts["documents"], source.facts.n_documents)
        mentions: dict[str, int] = {}
        for question in asked_questions([source], config):
            mentions[question.type] = mentions.get(question.type, 0) + question.n_mentions
            if not question.is_complete and question.type not in facts["partial"]:
                facts["partial"].append(question.type)
        for type_name, n in mentions.items():
            facts["mentions"][type_name] = max(facts["mentions"].get(type_name, 0), n)
    return list(found.values())


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
        `data`, and `dev` and `test`, lists of tables.
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
        "Trained on the training splits below, after the leakage guard. Mentions of a type in "
        "brackets are annotated incompletely: they gave loss inside of mentions only.",
        markdown_table(
            ("corpus", "documents", "mentions", "licence", "source"),
            [
                (
                    row["corpus"],
                    f"{row['documents']:,}",
                    _mentions(row),
                    row["licence"],
                    row["source"] or "–",
                )
                for row in facts["data"]
            ],
        ),
        "## Training",
        facts["selection"],
        "```bash\n" + "\n".join(facts["commands"]) + "\n```",
        f"Seeds: {', '.join(facts['seeds'])}.",
    ]
    for split, what in (("dev", "chosen by"), ("test", "read for reporting only")):
        parts.append(f"## Figures on {split} splits ({what})")
        if not facts[split]:
            parts.append("None were taken.")
        for table in facts[split]:
            parts += [_setting(table), markdown_table(_HEADER, map(_line, table["scores"]))]
    return "\n\n".join(parts) + "\n"


_HEADER = ("corpus", "type", "gold", "P", "R", "F1", "95 % interval")


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
