"""`python -m spacy vaner …`: one thin file per command, hung on spaCy's own command line.

spaCy imports this module through the entry-point group `spacy_cli`. What a command needs is
imported when it runs, so that `--help` stays fast.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from spacy.cli._util import app as spacy_app
from typer.core import TyperGroup
from wasabi import msg

from spacy_vaner.cli.alter import alter_command
from spacy_vaner.cli.analyse import analyse_command
from spacy_vaner.cli.annotate import annotate_command
from spacy_vaner.cli.benchmark import benchmark_command
from spacy_vaner.cli.convert import convert_command
from spacy_vaner.cli.corpora import corpora_command
from spacy_vaner.cli.dbr import dbr_command, phrases_command
from spacy_vaner.cli.evaluate import evaluate_command
from spacy_vaner.cli.import_adapter import import_adapter_command
from spacy_vaner.cli.instructions import instructions_command
from spacy_vaner.cli.kb import (
    kb_build_command,
    kb_index_command,
    kb_search_command,
    kb_stats_command,
)
from spacy_vaner.cli.leakage import leakage_command
from spacy_vaner.cli.memory import memory_command
from spacy_vaner.cli.pretrain import (
    prepare_command,
    pretrain_command,
    protected_runs_command,
)
from spacy_vaner.cli.rows import assemble_command, rows_command, ship_command
from spacy_vaner.cli.serve import serve_command
from spacy_vaner.cli.spacy_vectors import spacy_vectors_command
from spacy_vaner.cli.thresholds import thresholds_command
from spacy_vaner.cli.tokenizer import tokenizer_command
from spacy_vaner.errors import VanerError, VanerWarning

HELP = """Biomedical entities with spacy_vaner: convert corpora, train a tokenizer, evaluate.

Training itself is `python -m spacy train CONFIG`.
"""

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells give it."""


class VanerGroup(TyperGroup):
    """Shows our errors and warnings as messages, without a traceback or a line of code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with _warnings_as_messages():
                return super().invoke(ctx)
        except VanerError as error:
            msg.fail(str(error))
            raise typer.Exit(1) from error
        except KeyboardInterrupt as interrupt:
            msg.fail("Interrupted.")
            raise typer.Exit(INTERRUPTED) from interrupt


@contextmanager
def _warnings_as_messages() -> Iterator[None]:
    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *args: Any, **rest: Any) -> None:
            if issubclass(category, VanerWarning):
                msg.warn(str(message))
            else:
                show_others(message, category, *args, **rest)

        warnings.showwarning = show
        warnings.simplefilter("once", VanerWarning)
        yield


vaner_app = typer.Typer(
    name="vaner", cls=VanerGroup, help=HELP, no_args_is_help=True, rich_markup_mode=None
)
vaner_app.command("convert", no_args_is_help=True)(convert_command)
vaner_app.command("corpora")(corpora_command)
vaner_app.command("alter", no_args_is_help=True)(alter_command)
vaner_app.command("tokenizer", no_args_is_help=True)(tokenizer_command)
vaner_app.command("protected-runs", no_args_is_help=True)(protected_runs_command)
vaner_app.command("prepare", no_args_is_help=True)(prepare_command)
vaner_app.command("pretrain", no_args_is_help=True)(pretrain_command)
vaner_app.command("rows", no_args_is_help=True)(rows_command)
vaner_app.command("assemble", no_args_is_help=True)(assemble_command)
vaner_app.command("ship", no_args_is_help=True)(ship_command)
vaner_app.command("evaluate", no_args_is_help=True)(evaluate_command)
vaner_app.command("benchmark", no_args_is_help=True)(benchmark_command)
vaner_app.command("spacy-vectors", no_args_is_help=True)(spacy_vectors_command)
vaner_app.command("analyse", no_args_is_help=True)(analyse_command)
vaner_app.command("thresholds", no_args_is_help=True)(thresholds_command)
vaner_app.command("leakage", no_args_is_help=True)(leakage_command)
vaner_app.command("instructions", no_args_is_help=True)(instructions_command)
vaner_app.command("memory", no_args_is_help=True)(memory_command)
vaner_app.command("import-adapter", no_args_is_help=True)(import_adapter_command)
kb_app = typer.Typer(
    name="kb", help="Knowledge bases of names.", no_args_is_help=True, rich_markup_mode=None
)
kb_app.command("build", no_args_is_help=True)(kb_build_command)
kb_app.command("stats", no_args_is_help=True)(kb_stats_command)
kb_app.command("index", no_args_is_help=True)(kb_index_command)
kb_app.command("search", no_args_is_help=True)(kb_search_command)
vaner_app.add_typer(kb_app)
vaner_app.command("annotate", no_args_is_help=True)(annotate_command)
vaner_app.command("serve", no_args_is_help=True)(serve_command)
vaner_app.command("dbr", no_args_is_help=True)(dbr_command)
vaner_app.command("phrases", no_args_is_help=True)(phrases_command)
spacy_app.add_typer(vaner_app)

__all__ = ["vaner_app"]
