"""`python -m spacy_vaner.training …`: the commands of training, without spaCy."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from spacy_vaner.errors import Messages, VanerError, VanerWarning

if TYPE_CHECKING:
    from spacy_vaner.training.loop import Outcome

SIGNALLED = 128
"""Exit status of a run that a signal stopped, plus the signal's number, as shells give it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; RETURNS the exit status."""
    options = _parser().parse_args(arguments)
    # Read by torch when it first takes memory: pages of 2 MB, where Linux leaves it to the program.
    # A step of pretraining on a CPU is a tenth faster.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            status: int = options.run(options)
        except VanerError as error:
            print(error, file=sys.stderr)
            return 1
    return status


def run_prepare(
    paths: Sequence[Path],
    output: Path,
    *,
    tokenizer_path: Path,
    protected_path: Path | None,
    repeat: Sequence[str],
    dev_share: float,
) -> str:
    """Prepare with a progress bar; RETURNS what to tell the user."""
    from spacy_vaner.training.prepare import prepare
    from spacy_vaner.training.protected import ProtectedRuns
    from spacy_vaner.training.sources import find_sources

    sources = find_sources(paths, dict(map(_repeat, repeat)))
    protected = ProtectedRuns.from_file(protected_path) if protected_path else None
    bar = _ProgressBar("documents")
    header = prepare(
        sources,
        output,
        tokenizer_path=tokenizer_path,
        protected=protected,
        dev_share=dev_share,
        on_progress=lambda source, n_documents: bar.show(source.path.name, n_documents),
    )
    bar.close()
    rows = [
        f"{source.name}: {source.n_documents:,} documents, {source.n_words:,} words, "
        f"{source.n_subwords:,} subwords ({source.share:.1%}); left out: {source.n_empty} empty, "
        f"{source.n_protected} protected"
        for source in header.sources
    ]
    n_subwords = header.n_subwords
    rows.append(f"{n_subwords['train']:,} subwords to train on, {n_subwords['dev']:,} for dev loss")
    return "\n".join(rows)


def run_vectors(
    paths: Sequence[Path],
    output: Path,
    *,
    width: int,
    n_words: int,
    n_threads: int,
    seed: int,
    protected_path: Path | None,
) -> str:
    """Train word vectors with a progress bar; RETURNS what to tell the user."""
    from spacy_vaner.training.protected import ProtectedRuns
    from spacy_vaner.training.sources import find_sources
    from spacy_vaner.training.vectors import train_vectors

    bar = _ProgressBar("documents")
    found = train_vectors(
        find_sources(paths),
        output,
        width=width,
        n_words=n_words,
        n_threads=n_threads,
        seed=seed,
        protected=ProtectedRuns.from_file(protected_path) if protected_path else None,
        on_progress=lambda source, n_documents: bar.show(source.path.name, n_documents),
    )
    bar.close()
    return f"{found:,} words, {width} wide: {output}"


def run_pretrain(
    config_path: Path,
    output: Path,
    *,
    overrides: Sequence[str],
    resume: bool,
    init_weights: Path | None,
    max_minutes: float | None,
) -> tuple[str, int]:
    """Pretrain with a progress bar; RETURNS what to tell the user, and the exit status."""
    from spacy_vaner.training.config import PretrainConfig, read_config
    from spacy_vaner.training.pretraining import pretrain

    config = read_config(config_path, PretrainConfig, _limited(overrides, max_minutes))
    bar = _ProgressBar("steps", config.n_steps)
    outcome = pretrain(
        config, output, resume=resume, init_weights=init_weights, on_step=bar.show_record
    )
    bar.close()
    return _told(outcome)


def run_tag(
    config_path: Path,
    output: Path,
    *,
    overrides: Sequence[str],
    resume: bool,
    max_minutes: float | None,
) -> tuple[str, int]:
    """Train a tagger with a progress bar; RETURNS what to tell the user, and the exit status."""
    from spacy_vaner.training.config import read_config
    from spacy_vaner.training.tag_config import TagConfig
    from spacy_vaner.training.tagging import train_tagger

    config = read_config(config_path, TagConfig, _limited(overrides, max_minutes))
    bar = _ProgressBar("steps", config.n_steps)
    outcome = train_tagger(config, output, resume=resume, on_step=bar.show_record)
    bar.close()
    return _told(outcome)


def _limited(overrides: Sequence[str], max_minutes: float | None) -> list[str]:
    return [*overrides] if max_minutes is None else [*overrides, f"max_minutes={max_minutes}"]


def _told(outcome: Outcome) -> tuple[str, int]:
    if outcome.result is not None:
        return f"Finished after {outcome.step} steps: {outcome.result}", 0
    status = SIGNALLED + outcome.signal if outcome.signal else 0
    return (
        f"Stopped after {outcome.step} steps ({outcome.reason}); {outcome.checkpoint}. "
        "Go on with --resume.",
        status,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m spacy_vaner.training",
        description="Pretrain a backbone on plain text; train a tagger on rows.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    prepare = command("prepare", _prepare, "Tokenise texts into a folder of token ids.")
    prepare.add_argument(
        "paths",
        type=Path,
        nargs="+",
        help=".txt, .txt.xz (a document a line), .tsv, .tsv.xz (names), or folders with them",
    )
    prepare.add_argument("output", type=Path, help="folder to write")
    prepare.add_argument(
        "--tokenizer", type=Path, required=True, help="folder with a tokenizer.json"
    )
    prepare.add_argument(
        "--protected", type=Path, help="file of `python -m spacy vaner protected-runs`"
    )
    prepare.add_argument(
        "--repeat",
        action="append",
        default=[],
        metavar="FILE=N",
        help="write the documents of this file N times; may be repeated",
    )
    prepare.add_argument(
        "--dev-share", type=float, default=0.002, help="share of the documents for the dev loss"
    )
    vectors = command("vectors", _vectors, "Train static word vectors on texts; needs gensim.")
    vectors.add_argument(
        "paths", type=Path, nargs="+", help=".txt and .txt.xz files, or folders with them"
    )
    vectors.add_argument("output", type=Path, help="file to write (.safetensors)")
    vectors.add_argument("--width", type=int, default=96, help="numbers per word")
    vectors.add_argument("--words", type=int, default=50_000, help="how many, the frequent ones")
    vectors.add_argument(
        "--threads", type=int, default=1, help="more than one: faster, no two runs are equal"
    )
    vectors.add_argument("--seed", type=int, default=0, help="of the first vectors")
    vectors.add_argument(
        "--protected", type=Path, help="file of `python -m spacy vaner protected-runs`"
    )
    lexicon = command("lexicon", _lexicon, "Make a table of names for word features.")
    lexicon.add_argument("names", type=Path, nargs="+", help=".tsv and .tsv.xz files of names")
    lexicon.add_argument("output", type=Path, help="file to write (.safetensors)")
    lexicon.add_argument(
        "--types", default="Disease,Chemical,Gene,Species", help="of names, with commas between"
    )
    lexicon.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="SOURCE",
        help="leave out names whose column `source` begins so; may be repeated",
    )
    lexicon.add_argument(
        "--bits", type=float, default=24.0, help="per name; fewer make the file smaller, and wrong"
    )
    pretrain = command("pretrain", _pretrain, "Train a backbone on a folder of token ids.")
    pretrain.add_argument("config", type=Path, help="settings as JSON (docs/pretraining.md)")
    pretrain.add_argument(
        "--init-weights", type=Path, help="folder or file of weights to start from"
    )
    speed = command("speed", _speed, "Measure how fast backbones of several shapes are.")
    speed.add_argument("config", type=Path, help="settings of a run of pretraining")
    speed.add_argument(
        "--shape",
        action="append",
        required=True,
        metavar="HIDDENxLAYERSxHEADSxINTERMEDIATE",
        dest="shapes",
        help="e.g. 384x4x6x1024; may be repeated",
    )
    speed.add_argument("--steps", type=int, default=5, help="that are measured")
    tag = command("tag", _tag, "Train a tagger on a folder of rows.")
    tag.add_argument("config", type=Path, help="settings as JSON (docs/tagger.md)")
    mean = command("mean", _mean, "Write the tagger whose weights are the mean of several.")
    mean.add_argument("folders", type=Path, nargs="+", help="taggers: best, tagger, checkpoints")
    mean.add_argument("output", type=Path, help="folder to write")
    mixture = command("mixture", _mixture, "Tell what a tagger would be trained on, as a table.")
    mixture.add_argument("config", type=Path, help="settings as JSON (docs/tagger.md)")
    for added in (pretrain, speed, tag, mixture):
        added.add_argument(
            "--set",
            action="append",
            default=[],
            metavar="KEY=VALUE",
            dest="overrides",
            help="override a setting, e.g. optimizer.lr=0.001; may be repeated",
        )
    for added in (pretrain, tag):
        added.add_argument("output", type=Path, help="folder of the run")
        added.add_argument(
            "--resume",
            action="store_true",
            help="go on from the newest checkpoint, if there is one",
        )
        added.add_argument("--max-minutes", type=float, help="stop so, with a checkpoint")
    export = command("export", _export, "Write a checkpoint's backbone for use elsewhere.")
    export.add_argument("source", type=Path, help="a checkpoint, or the finished backbone")
    export.add_argument("output", type=Path, help="folder to write")
    export.add_argument(
        "--dtype", default="bfloat16", choices=("bfloat16", "float16", "float32"), help="of weights"
    )
    export.add_argument(
        "--part-mb", type=float, default=0, help="cut the weights into parts of so many MB"
    )
    join = command("join", _join, "Put the parts of exported weights together.")
    join.add_argument("folder", type=Path, help="the folder that `export` wrote")
    card = command("card", _card, "Write the card of a backbone, from its run and a file of facts.")
    card.add_argument("run_folder", type=Path, metavar="run", help="folder of the run")
    card.add_argument("output", type=Path, help="folder of the backbone, for the card")
    card.add_argument("--facts", type=Path, required=True, help="what a person says of it, as JSON")
    plot = command("plot", _plot, "Draw the curve of a run as PNG; needs matplotlib.")
    plot.add_argument("run_folder", type=Path, metavar="output", help="folder of the run")
    plot.add_argument("png", type=Path, help="file to write")
    return parser


def _prepare(options: argparse.Namespace) -> int:
    told = run_prepare(
        options.paths,
        options.output,
        tokenizer_path=options.tokenizer,
        protected_path=options.protected,
        repeat=options.repeat,
        dev_share=options.dev_share,
    )
    print(told)
    return 0


def _vectors(options: argparse.Namespace) -> int:
    told = run_vectors(
        options.paths,
        options.output,
        width=options.width,
        n_words=options.words,
        n_threads=options.threads,
        seed=options.seed,
        protected_path=options.protected,
    )
    print(told)
    return 0


def _lexicon(options: argparse.Namespace) -> int:
    from spacy_vaner.backbone.lexicon import LexiconTable
    from spacy_vaner.training.sources import read_names

    names = (pair for path in options.names for pair in read_names(path, without=options.without))
    types = [name.strip() for name in options.types.split(",")]
    table = LexiconTable.from_names(names, types, bits_per_name=options.bits)
    table.to_file(options.output)
    print(f"{table.n_names:,} names, {len(table.bits):,} bytes: {options.output}")
    return 0


def _pretrain(options: argparse.Namespace) -> int:
    told, status = run_pretrain(
        options.config,
        options.output,
        overrides=options.overrides,
        resume=options.resume,
        init_weights=options.init_weights,
        max_minutes=options.max_minutes,
    )
    print(told)
    return status


def _speed(options: argparse.Namespace) -> int:
    from spacy_vaner.training.config import PretrainConfig, read_config
    from spacy_vaner.training.speed import measure_speed, parse_shape, speed_table

    shapes = [parse_shape(shape) for shape in options.shapes]
    config = read_config(options.config, PretrainConfig, options.overrides)
    rate, found = measure_speed(config, shapes, n_steps=options.steps)
    print(speed_table(config, rate, found), end="")
    return 0


def _tag(options: argparse.Namespace) -> int:
    told, status = run_tag(
        options.config,
        options.output,
        overrides=options.overrides,
        resume=options.resume,
        max_minutes=options.max_minutes,
    )
    print(told)
    return status


def _mean(options: argparse.Namespace) -> int:
    from spacy_vaner.training.tagging import mean_tagger

    mean_tagger(options.folders, options.output)
    print(f"Mean of {len(options.folders)} taggers: {options.output}")
    return 0


def _mixture(options: argparse.Namespace) -> int:
    from spacy_vaner.training.config import read_config
    from spacy_vaner.training.mixture import mixture_table
    from spacy_vaner.training.rows_folder import PreparedRows
    from spacy_vaner.training.tag_config import TagConfig

    config = read_config(options.config, TagConfig, options.overrides)
    print(mixture_table(PreparedRows.open(Path(config.rows)).sources, config), end="")
    return 0


def _export(options: argparse.Namespace) -> int:
    from spacy_vaner.training.export import export

    part_bytes = round(options.part_mb * 1e6)
    export(options.source, options.output, dtype=options.dtype, part_bytes=part_bytes)
    return 0


def _join(options: argparse.Namespace) -> int:
    from spacy_vaner.training.export import join

    join(options.folder)
    return 0


def _card(options: argparse.Namespace) -> int:
    from spacy_vaner.training.card import write_card

    write_card(options.run_folder, options.output, facts=options.facts)
    return 0


def _plot(options: argparse.Namespace) -> int:
    from spacy_vaner.training.log import LOG_FILE, plot

    plot(options.run_folder / LOG_FILE, options.png)
    return 0


def _repeat(option: str) -> tuple[str, int]:
    name, _, number = option.rpartition("=")
    if not name or not number.isdigit() or int(number) < 1:
        problem = f"--repeat {option}: expected FILE=N."
        raise VanerError(Messages.VE520.format(problem=problem))
    return name, int(number)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if issubclass(category, VanerWarning):
        print(message, file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


class _ProgressBar:
    """tqdm's bar where tqdm is installed and somebody watches; else a line now and then."""

    _LINES_EVERY = 100

    def __init__(self, unit: str, total: int | None = None) -> None:
        self._bar: Any = None
        if sys.stderr.isatty():
            try:
                from tqdm import tqdm
            except ImportError:
                return
            self._bar = tqdm(total=total, unit=f" {unit}", dynamic_ncols=True)

    def show(self, text: str, n: int) -> None:
        if self._bar is not None:
            self._bar.set_description(text)
            self._bar.update(n)

    def show_record(self, record: dict[str, Any]) -> None:
        """Show a line of the log."""
        if "loss" not in record:
            figures = ", ".join(
                f"{name.replace('_', ' ')} {value:.4f}"
                for name, value in record.items()
                if isinstance(value, float) and name != "best_by"
            )
            self._say(f"step {record['step'] + 1}: {figures}")
        elif self._bar is not None:
            self._bar.n = record["step"] + 1
            self._bar.set_postfix_str(
                f"loss {record['loss']:.3f}, {record['subwords_per_s']:,.0f} subwords/s"
            )
        elif (record["step"] + 1) % self._LINES_EVERY == 0:
            self._say(
                f"step {record['step'] + 1}: loss {record['loss']:.4f}, "
                f"{record['subwords_per_s']:,.0f} subwords/s"
            )

    def _say(self, line: str) -> None:
        if self._bar is not None:
            self._bar.write(line, file=sys.stderr)
        else:
            print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


if __name__ == "__main__":
    sys.exit(main())
