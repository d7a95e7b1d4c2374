"""What DBR rows are worth: taggers with retrieved, random, no and leaky rows, at equal steps.

`prepare` makes rows and measures them, `plan` writes the table of runs before any is started, `run`
trains and measures them one after another, each into a JSON file of its own. A run that was stopped
goes on where it was; one whose file is there is left alone. The table and the plots are made of
these files by ablation_report.py.

The variant "leaky" draws names from a knowledge base that holds those of the dev and test splits.
It measures what such a leak adds. Nothing that is used may be trained so.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

from spacy_vaner.assembly import assemble
from spacy_vaner.corpora.docbins import read_docs
from spacy_vaner.errors import VanerError
from spacy_vaner.evaluation.result import versions
from spacy_vaner.files import write_whole
from spacy_vaner.gold import Ask, get_gold, set_ask
from spacy_vaner.knowledge.candidates import SUFFIX, candidates_of
from spacy_vaner.knowledge.rows import RowSettings, draw_row
from spacy_vaner.knowledge.store import KnowledgeBase
from spacy_vaner.metrics import count, micro
from spacy_vaner.predictions import PREDICTIONS_KEY
from spacy_vaner.rows import prepare_rows
from spacy_vaner.training.config import config_from_dict
from spacy_vaner.training.log import LOG_FILE, read_log
from spacy_vaner.training.tag_config import TagConfig
from spacy_vaner.training.tagging import Tagging, train_tagger

FORMAT = 1
HONEST, LEAKY = "honest", "leaky"
"""The knowledge bases: folders with kb.parquet and candidates."""
MODES = {"off": "off", "random": "random"}
"""Variant → mode of its rows; all others draw what was retrieved."""

# Steps whose subwords stand for all of a run.
_COUNTED_STEPS = 8


class Run(NamedTuple):
    """A run: which corpora, which rows, which seed."""

    set: str
    variant: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.set}.{self.variant}.{self.seed}"


class Ablation:
    """The runs of a settings file and where everything lies."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.settings: dict[str, Any] = json.loads(options.settings.read_text("utf8"))
        self.converted: Path = options.converted
        self.view: str = options.view
        self.knowledge: Path = options.knowledge
        self.output: Path = options.output
        self.tokenizer: Path = options.tokenizer
        tag = self.settings["tag"]
        if options.backbone is not None:
            tag["backbone"] = str(options.backbone)
        if options.vectors is not None:
            tag["start"]["vectors"] = str(options.vectors)

    def runs(self) -> list[Run]:
        """Seed by seed, so that a part of the runs is a whole comparison."""
        return [
            Run(set_, variant, seed)
            for seed in self.settings["seeds"]
            for set_ in self.settings["sets"]
            for variant in self.settings["variants"]
        ]

    def corpora(self, set_: str) -> list[str]:
        return list(self.settings["sets"][set_]["corpora"])

    def path(self, corpus: str, split: str) -> Path:
        return self.converted / f"{corpus}.{self.view}.{split}.spacy"

    def rows(self, run: Run) -> Path:
        return self.output / "rows" / f"{run.set}.{self.base(run)}"

    def result(self, run: Run) -> Path:
        return self.output / "results" / f"{run.name}.json"

    def config(self, run: Run, **changes: Any) -> TagConfig:
        """The settings of a run: those of all, of its set, and of its variant."""
        set_ = self.settings["sets"][run.set]
        own = {k: v for k, v in self._variant(run.variant).items() if k != "base"}
        tag = {**self.settings["tag"], **set_.get("tag", {}), **own}
        dbr = {**self.settings["tag"].get("dbr", {}), **tag.get("dbr", {})}
        values = {
            **tag,
            "rows": str(self.rows(run)),
            "seed": run.seed,
            "n_steps": set_["n_steps"],
            "dbr": {**dbr, "mode": MODES.get(run.variant, "retrieved")},
            **changes,
        }
        return config_from_dict(values, TagConfig)

    def base(self, run: Run) -> str:
        """The knowledge base of a run: the one that its variant names, or that is called so."""
        default = LEAKY if run.variant == LEAKY else HONEST
        return str(self._variant(run.variant).get("base", default))

    def _variant(self, variant: str) -> dict[str, Any]:
        """What a variant changes: `variants` is a list of names, or names with their settings."""
        variants = self.settings["variants"]
        return dict(variants[variant]) if isinstance(variants, dict) else {}


def prepare(ablation: Ablation) -> None:
    """Rows of every set with both knowledge bases, and the facts that the plots show."""
    for folder, run in {ablation.rows(run): run for run in ablation.runs()}.items():
        base = ablation.knowledge / ablation.base(run)
        corpora = ablation.corpora(run.set)
        folder.parent.mkdir(parents=True, exist_ok=True)
        prepare_rows(
            [ablation.path(corpus, split) for corpus in corpora for split in ("train", "dev")],
            folder,
            tokenizer_path=ablation.tokenizer,
            candidates=[base / f"{corpus}.{ablation.view}.train{SUFFIX}" for corpus in corpora],
            kb_path=base / "kb.parquet",
        )
        print(f"{folder}")
    write_json(ablation.output / "results" / "density.json", density(ablation))


def density(ablation: Ablation) -> dict[str, Any]:
    """Per corpus: mentions of a sentence, names for it, words of a sentence and of its row.

    Counted over the training split, rows as the settings draw them in epoch 0; `covered` is the
    share of the dev split's distinct mentions that a knowledge base has with their type.
    """
    corpora = {corpus for set_ in ablation.settings["sets"] for corpus in ablation.corpora(set_)}
    found: dict[str, Any] = {"format": FORMAT, "corpora": {}}
    for base in dict.fromkeys(map(ablation.base, ablation.runs())):
        kb = KnowledgeBase.from_file(ablation.knowledge / base / "kb.parquet")
        for corpus in sorted(corpora):
            facts = found["corpora"].setdefault(corpus, {"sentences": {}, "bases": {}})
            path = ablation.path(corpus, "train")
            candidates = ablation.knowledge / base / f"{corpus}.{ablation.view}.train{SUFFIX}"
            of_documents = candidates_of([candidates], kb, [path])[path]
            facts["bases"][base] = {
                **row_facts(of_documents, kb, types_of(path)),
                "covered": coverage(ablation.path(corpus, "dev"), kb),
            }
            if base == HONEST:
                facts["sentences"] = sentence_facts(path, of_documents)
    return found


def types_of(path: Path) -> list[str]:
    """The types that the documents of a file are annotated for."""
    golds = map(get_gold, read_docs(path))
    return list(dict.fromkeys(type for gold in golds if gold is not None for type in gold.types))


def sentence_facts(path: Path, of_documents: Mapping[Any, Sequence[Any]]) -> dict[str, Any]:
    n_sentences = sum(map(len, of_documents.values()))
    n_words = n_mentions = 0
    for doc in read_docs(path):
        gold = get_gold(doc)
        n_words += sum(not token.is_space for token in doc)
        n_mentions += len(gold.mentions) if gold is not None else 0
    return {
        "n": n_sentences,
        "words": n_words / n_sentences,
        "mentions": n_mentions / n_sentences,
    }


def row_facts(
    of_documents: Mapping[Any, Sequence[Any]], kb: KnowledgeBase, types: Sequence[str]
) -> dict[str, float]:
    """Means per sentence: positives and negatives among the candidates and in a row, words."""
    totals = dict.fromkeys(("positives", "negatives", "row_positives", "row_negatives", "words"), 0)
    n_sentences = 0
    for sentences in of_documents.values():
        for sentence in sentences:
            n_sentences += 1
            n_positive = sum(not set(types).isdisjoint(own) for own in sentence.types)
            totals["positives"] += n_positive
            totals["negatives"] += len(sentence.types) - n_positive
            row = draw_row(sentence, types, kb, RowSettings(), seed=0, epoch=0)
            if row is not None:
                marked = {mention.fragments for mention in row.mentions}
                totals["row_positives"] += len(marked)
                totals["row_negatives"] += len(row.places) - len(marked)
                totals["words"] += len(row.text.split())
    return {name: total / max(1, n_sentences) for name, total in totals.items()}


def coverage(path: Path, kb: KnowledgeBase) -> float:
    names: dict[tuple[str, str], bool] = {}
    for doc in read_docs(path):
        gold = get_gold(doc)
        for mention in gold.mentions if gold is not None else ():
            if len(mention.fragments) == 1:
                name = doc.text[slice(*mention.fragments[0])]
                position = kb.find(name)
                names[name.lower(), mention.type] = (
                    position is not None and mention.type in kb.types[position]
                )
    return sum(names.values()) / max(1, len(names))


def plan(ablation: Ablation, trial_steps: int) -> str:
    """A table of the runs: what each will read, and how long it takes by a trial of one of them."""
    of_kind: dict[tuple[str, str], int] = {}
    for run in ablation.runs():
        if (run.set, run.variant) not in of_kind:
            of_kind[run.set, run.variant] = subwords_of(ablation.config(run))
    clock_s, processor_s = seconds_per_subword(ablation, trial_steps)
    lines = [
        "| run | steps | subwords | minutes | processor minutes |",
        "| --- | --- | --- | --- | --- |",
    ]
    n_all = 0
    for run in ablation.runs():
        n_subwords = of_kind[run.set, run.variant]
        n_all += n_subwords
        minutes = f"{n_subwords * clock_s / 60:.0f} | {n_subwords * processor_s / 60:.0f}"
        n_steps = ablation.settings["sets"][run.set]["n_steps"]
        lines.append(f"| {run.name} | {n_steps} | {n_subwords:,} | {minutes} |")
    minutes = f"{n_all * clock_s / 60:.0f} | {n_all * processor_s / 60:.0f}"
    lines.append(f"| all {len(ablation.runs())} | | {n_all:,} | {minutes} |")
    lines += ["", f"By a trial of {trial_steps} steps; measuring on dev comes on top.", ""]
    return "\n".join(lines)


def subwords_of(config: TagConfig) -> int:
    """What a run will read, by a few of its steps."""
    with tempfile.TemporaryDirectory() as folder:
        task = Tagging(config, Path(folder))
        passes = [one for step in range(_COUNTED_STEPS) for one in task.passes(step)]
    n_subwords = sum(one.n_subwords for one in passes)
    return round(n_subwords / _COUNTED_STEPS * (config.n_steps or 0))


def seconds_per_subword(ablation: Ablation, n_steps: int) -> tuple[float, float]:
    """By the clock, and of the processor; making the tagger is in the second one too."""
    config = ablation.config(ablation.runs()[0], n_steps=n_steps, dev_documents=0)
    with tempfile.TemporaryDirectory() as folder:
        started = time.process_time()
        train_tagger(config, Path(folder) / "run")
        processor_s = time.process_time() - started
        log = read_log(Path(folder) / "run" / LOG_FILE)
    last = [record for record in log if "loss" in record][-1]
    return last["elapsed_s"] / last["n_subwords"], processor_s / last["n_subwords"]


def train(ablation: Ablation, run: Run, *, with_test: bool) -> None:
    """Train, measure and write one run, unless its file is there."""
    path = ablation.result(run)
    result: dict[str, Any] = json.loads(path.read_text("utf8")) if path.is_file() else {}
    folder = ablation.output / "runs" / run.name
    if result and (changed := changes(result["settings"], shown(ablation.config(run)))):
        raise SystemExit(f"{path} is of other settings ({changed}). Name another output folder.")
    if not result:
        outcome = train_tagger(ablation.config(run), folder, resume=True)
        if outcome.reason != "finished":
            raise SystemExit(128 + outcome.signal)
        result = trained(ablation, run, folder)
        result["dev"] = measure(ablation, run, folder, "dev")
        write_json(path, result)
        for name in ("checkpoints", "tagger", "start"):
            shutil.rmtree(folder / name, ignore_errors=True)
        print(f"{run.name}: dev {summary(result['dev'])}", flush=True)
    if with_test and result["test"] is None:
        result["test"] = measure(ablation, run, folder, "test")
        write_json(path, result)
        with (ablation.output / "results" / "readings.md").open("a", encoding="utf8") as file:
            corpora = ", ".join(f"{corpus} test" for corpus in ablation.corpora(run.set))
            file.write(f"| {date.today()} | {run.name} | {corpora} | ablation of DBR |\n")
        print(f"{run.name}: test {summary(result['test'])}", flush=True)


def shown(config: TagConfig) -> dict[str, Any]:
    """The settings of a run, files by their names: where they lie is nobody else's business."""
    settings = config.to_dict()
    for values, key in ((settings, "rows"), (settings, "backbone"), (settings["start"], "vectors")):
        values[key] = values[key] and Path(values[key]).name
    return settings


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings that differ, of those that both know; where a run computes is none of them."""
    names = before.keys() & now.keys() - {"n_threads", "device", "pass_subwords", "max_minutes"}
    return ", ".join(sorted(name for name in names if before[name] != now[name]))


def trained(ablation: Ablation, run: Run, folder: Path) -> dict[str, Any]:
    """What a finished run says of itself."""
    log = read_log(folder / LOG_FILE)
    steps = [record for record in log if "loss" in record]
    config = ablation.config(run)
    return {
        "format": FORMAT,
        **run._asdict(),
        "n_steps": config.n_steps,
        "n_subwords": steps[-1]["n_subwords"],
        "minutes": round(steps[-1]["elapsed_s"] / 60, 1),
        "n_names_left_out": sum(record.get("n_names_left_out", 0) for record in steps),
        "best_step": json.loads((folder / "best/best.json").read_text("utf8"))["step"],
        "dev_curve": [
            {
                "step": record["step"] + 1,
                "n_subwords": record["n_subwords"],
                "f": round(record["dev_f"], 5),
                "f_per_type": {k: round(f, 5) for k, f in record["dev_f_per_type"].items()},
            }
            for record in log
            if "dev_f" in record
        ],
        "settings": shown(config),
        "versions": versions(),
        "dev": None,
        "test": None,
    }


def measure(ablation: Ablation, run: Run, folder: Path, split: str) -> dict[str, Any]:
    """Strict counts on complete documents, raw text, no corpus named: per corpus and document."""
    nlp = assemble(folder)
    scores: dict[str, Any] = {}
    for corpus in ablation.corpora(run.set):
        golds, texts = [], []
        for doc in read_docs(ablation.path(corpus, split), nlp.vocab):
            gold = get_gold(doc)
            if gold is not None and gold.types:
                golds.append(gold)
                texts.append(nlp.make_doc(doc.text))
                set_ask(texts[-1], Ask(types=list(gold.types), corpus=None))
        per_document = [
            micro(
                count(
                    [(mention.type, mention.fragments) for mention in gold.mentions],
                    [found[:3] for found in doc.user_data[PREDICTIONS_KEY]],
                    gold.types,
                ).values()
            )
            for doc, gold in zip(nlp.pipe(texts), golds, strict=True)
        ]
        total = micro(per_document)
        scores[corpus] = {
            **{"p": total.p, "r": total.r, "f": total.f},
            "per_document": [[one.tp, one.fp, one.fn] for one in per_document],
        }
    return scores


def summary(scores: Mapping[str, Any]) -> str:
    return ", ".join(f"{corpus} {100 * (of['f'] or 0):.2f}" for corpus, of in scores.items())


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Keys on lines of their own, lists on one: counts of 2,500 documents are no reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in values.items()]
    write_whole(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode("utf8"))


def chosen(runs: Sequence[Run], names: str | None, part: str) -> Iterator[Run]:
    """The runs of a part "1/2", or those that are named."""
    number, _, n_parts = part.partition("/")
    wanted = None if names is None else names.split(",")
    for index, run in enumerate(runs):
        if wanted is not None:
            if run.name in wanted:
                yield run
        elif index % int(n_parts or 1) == int(number) - 1:
            yield run


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("prepare", "plan", "run"))
    parser.add_argument("settings", type=Path, help="configs/ablation.json")
    parser.add_argument("output", type=Path, help="folder for rows, runs and results/")
    parser.add_argument("--converted", type=Path, required=True, help="NAME.VIEW.SPLIT.spacy")
    parser.add_argument("--view", default="text")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument(
        "--knowledge",
        type=Path,
        required=True,
        help="folder with a folder for each base (honest, leaky): kb.parquet and candidates",
    )
    parser.add_argument("--backbone", type=Path, help="folder; default: random weights")
    parser.add_argument("--vectors", type=Path, help="static vectors for random weights")
    parser.add_argument("--trial-steps", type=int, default=20, help="of `plan`")
    parser.add_argument("--runs", help="names with commas between, e.g. single.off.0; default: all")
    parser.add_argument(
        "--part", default="1/1", help="2/3: the second third, for work side by side"
    )
    parser.add_argument("--test", action="store_true", help="measure the test splits too, logged")
    options = parser.parse_args(arguments)
    try:
        ablation = Ablation(options)
        if options.what == "prepare":
            prepare(ablation)
        elif options.what == "plan":
            table = plan(ablation, options.trial_steps)
            (ablation.output / "results").mkdir(parents=True, exist_ok=True)
            write_whole(ablation.output / "results" / "plan.md", table.encode("utf8"))
            print(table)
        else:
            for run in chosen(ablation.runs(), options.runs, options.part):
                train(ablation, run, with_test=options.test)
    except VanerError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
