"""`python -m spacy vaner leakage`: what of test splits occurs in training data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from wasabi import msg
from wasabi.tables import table

from spacy_vaner.cli.options import FILES, SPLIT

_HEADER = ("corpus", "", "in all", "seen in training", "%")


def leakage_command(
    tests: FILES,
    train: Annotated[
        list[Path],
        typer.Option(
            "--train",
            help="What a system was trained on: converted files, or folders with *.train.spacy. "
            "May be given several times",
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="JSON file for all counts")
    ] = None,
    split: SPLIT = "test",
) -> None:
    """Count what of test splits occurs in training data: sentences, names of mentions, PMIDs.

    Sentences of eight words or more are compared without regard to case and blanks. A name that
    occurs in both is no leak by itself; it says how much can be known by heart.

    Example: python -m spacy vaner leakage corpora --train corpora --output leakage.json
    """
    from spacy_vaner.corpora.docbins import find_files
    from spacy_vaner.evaluation.analysis_report import percent
    from spacy_vaner.evaluation.leakage import measure_leakage
    from spacy_vaner.files import write_whole

    found = measure_leakage(find_files(train, split="train"), find_files(tests, split=split))
    rows: list[tuple[str, str, str, str, str]] = []
    for corpus, leak in found.items():
        counts = [
            ("documents, by PMID", leak.documents, leak.documents_with_pmid_seen),
            ("sentences", leak.sentences, leak.sentences_seen),
        ]
        for type, names in leak.types.items():
            counts.append((f"{type}: mentions", names.mentions, names.mentions_seen))
            counts.append((f"{type}: names", len(names.names), len(names.names_seen)))
        rows += [
            (corpus, what, f"{n:,}", f"{seen:,}", percent(seen / n if n else None))
            for what, n, seen in counts
        ]
    print(table(rows, header=_HEADER, divider=True, aligns=("l", "l", "r", "r", "r")))
    if output is not None:
        counted = {corpus: leak.to_dict() for corpus, leak in found.items()}
        output.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(counted, indent=2, ensure_ascii=False) + "\n"
        write_whole(output, text.encode("utf8"))
        msg.good(f"Saved to {output}")
