"""The card of a pretrained backbone: facts as JSON, and the page that is written from them.

What a person has to say (intended use, limits, licences, commands) comes from a file; data,
settings and the curve come from the run and from the text that it read. The parts that all cards
share are here too (model_card.py has the tagger's).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.files import write_whole
from spacy_vaner.training.checkpoints import STATE_FILE, Checkpoints
from spacy_vaner.training.log import LOG_FILE, read_log
from spacy_vaner.training.loop import CHECKPOINTS_FOLDER
from spacy_vaner.training.token_file import Header

SAID: dict[str, type] = {
    "name": str,
    "about": str,
    "intended_use": str,
    "limits": list,
    "sources": dict,
    "commands": list,
    "licence": str,
    "licence_reason": str,
}
"""What a file of facts says: text, a list of texts, or, of each source, where it is from and its
licence."""
CARD_FACTS, CARD = "card.json", "README.md"

_FORMS: dict[type, str] = {str: "text", list: "a list of texts", dict: "a table of texts"}
# Points of the curve that the page shows.
_POINTS = 12


def read_said(
    path: Path, said: Mapping[str, type], *, optional: Mapping[str, type] | None = None
) -> dict[str, Any]:
    """What a person says: all of these keys and no others, each in its form and not empty.

    optional: keys that may be missing.

    RAISES VanerError: VE196, a key is missing, unknown or of another form.
    """
    try:
        facts = dict(json.loads(path.read_text("utf8")))
    except (OSError, ValueError, TypeError) as error:
        raise VanerError(Messages.VE196.format(path=path, reason=error)) from None
    said = {**said, **{key: form for key, form in (optional or {}).items() if key in facts}}
    wrong = [
        f"{key!r} has to be {_FORMS[form]}"
        for key, form in said.items()
        if not isinstance(facts.get(key), form) or not facts[key]
    ]
    wrong += [f"{key!r} is not known" for key in facts if key not in said]
    if wrong:
        raise VanerError(Messages.VE196.format(path=path, reason="; ".join(wrong)))
    return facts


def write_card(run: Path, output: Path, *, facts: Path) -> None:
    """Write card.json and README.md into a folder.

    run: folder of a run of pretraining, with a checkpoint and its log.
    facts: file with the keys of SAID; `sources` names every file that was read.
    RAISES VanerError: VE196, the facts; VE507, the text that was read; VE510, no checkpoint.
    """
    said = read_said(facts, SAID)
    found = {**said, **run_facts(run)}
    missing = [one["name"] for one in found["data"] if one["name"] not in said["sources"]]
    if missing:
        reason = f"'sources' says nothing of {', '.join(missing)}"
        raise VanerError(Messages.VE196.format(path=facts, reason=reason))
    output.mkdir(parents=True, exist_ok=True)
    content = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
    write_whole(output / CARD_FACTS, content.encode("utf8"))
    write_whole(output / CARD, card_text(found).encode("utf8"))


def run_facts(run: Path) -> dict[str, Any]:
    """What a run says of itself: data, settings, curve, time.

    RAISES VanerError: VE507, VE510.
    """
    last = Checkpoints(run / CHECKPOINTS_FOLDER).last()
    if last is None:
        raise VanerError(Messages.VE510.format(path=run / CHECKPOINTS_FOLDER))
    try:
        state = json.loads((last / STATE_FILE).read_text("utf8"))
        config = state["config"]
        header = Header.from_folder(Path(config["data"]))
        facts = {key: state[key] for key in ("step", "n_subwords", "elapsed_s")}
    except (OSError, ValueError, KeyError) as error:
        raise VanerError(Messages.VE514.format(path=last, reason=error)) from None
    curve = [one for one in read_log(run / LOG_FILE) if "dev_loss" in one]
    return {
        **facts,
        "settings": {**config, "data": None},
        "data": [asdict(source) for source in header.sources],
        "protected": header.protected is not None,
        "curve": [[one["n_subwords"], one["dev_loss"], one["dev_perplexity"]] for one in curve],
        "torch": torch.__version__,
    }


def card_text(facts: Mapping[str, Any]) -> str:
    """The page, in Markdown, of what `write_card` puts together."""
    settings = facts["settings"]
    shape, objective = settings["backbone"], settings["objective"]
    left_out = sum(source["n_protected"] for source in facts["data"])
    guard = (
        f"Documents that share twelve words in a row with protected splits were left out "
        f"({left_out:,})."
        if facts["protected"]
        else "Nothing was left out as protected."
    )
    curve = facts["curve"]
    shown = curve[:: max(1, -(-len(curve) // _POINTS))]
    shown += curve[-1:] if curve and shown[-1] != curve[-1] else []
    parts = [
        f"# {facts['name']}",
        facts["about"],
        f"LLaMA of {shape['n_layers']} layers, {shape['hidden_size']} wide, {shape['n_heads']} "
        f"heads, {shape['intermediate_size']} within; {shape['word_rows']:,} rows of "
        "word features. It sees both sides of each subword. Written from card.json; do not edit.",
        "## Intended use",
        facts["intended_use"],
        "## Limits",
        markdown_list(facts["limits"]),
        "## Licence",
        f"**{facts['licence']}.** {facts['licence_reason']}",
        "## Data",
        markdown_table(
            ("file", "from", "documents", "words", "times read into", "share"),
            [
                (
                    source["name"],
                    str(facts["sources"][source["name"]]),
                    f"{source['n_documents']:,}",
                    f"{source['n_words']:,}",
                    str(source["repeat"]),
                    f"{source['share']:.1%}",
                )
                for source in facts["data"]
            ],
        ),
        guard,
        "## Training",
        f"{facts['step']:,} steps, {facts['n_subwords']:,} subwords, "
        f"{facts['elapsed_s'] / 3600:.1f} hours; objective {objective['name']} at "
        f"{objective['masking_rate']:.0%}, {settings['optimizer']['name']} at "
        f"{settings['optimizer']['lr']:g}, seed {settings['seed']}, torch {facts['torch']}. All "
        "settings stand in card.json.",
        "```bash\n" + "\n".join(facts["commands"]) + "\n```",
    ]
    if shown:
        rows = [(f"{n:,}", f"{loss:.3f}", f"{ppl:,.1f}") for n, loss, ppl in shown]
        parts += ["## Curve", markdown_table(("subwords read", "dev loss", "perplexity"), rows)]
    return "\n\n".join(parts) + "\n"


def markdown_list(lines: Iterable[str]) -> str:
    """A list in Markdown."""
    return "\n".join(f"- {line}" for line in lines)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)
