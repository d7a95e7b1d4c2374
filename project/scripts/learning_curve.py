"""How many annotated sentences a new type needs: an adapter per number, F1 on dev, old types held.

Usage: python learning_curve.py PIPELINE CONVERTED OUTPUT.json --type Anatomy --sizes 50,200,all
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import fix_random_seed

from spacy_vaner.backbone import Lora
from spacy_vaner.corpora.docbins import docs_to_bytes, find_files, read_docs
from spacy_vaner.evaluation.run import evaluate_pipeline
from spacy_vaner.files import write_whole
from spacy_vaner.gold import KEY, Gold, get_gold
from spacy_vaner.knowledge.phrases import sentences as sentences_in
from spacy_vaner.optimizer import adamw
from spacy_vaner.types import Mention


def sentences_of(nlp: Language, docs: Iterable[Doc], type_name: str) -> Iterator[Doc]:
    """Every sentence of the documents by itself, annotated for the one type.

    Documents without sentences are cut at full stops and their like. A mention that crosses a
    boundary is left out, and so is a sentence that is masked.
    """
    for doc in docs:
        gold = get_gold(doc)
        if gold is None or type_name not in gold.types:
            continue
        for sentence in sentences_in(doc):
            own = gold.within(sentence.start_char, sentence.end_char)
            if own.masked:
                continue  # nothing is learned of it, so it is none of the number
            mentions = tuple(
                Mention(type_name, mention.fragments)
                for mention in own.mentions
                if mention.type == type_name and len(mention.fragments) == 1
            )
            one = nlp.make_doc(sentence.text)
            taught = Gold(types=(type_name,), mentions=mentions)
            one.user_data[KEY] = taught.to_user_data()
            yield one


def choose(sentences: Sequence[Doc], size: str, seed: int) -> list[Doc]:
    """So many sentences at random, the smaller choices inside of the larger; "all" = all."""
    order = random.Random(seed).sample(range(len(sentences)), len(sentences))
    n = len(order) if size == "all" else min(int(size), len(order))
    return [sentences[index] for index in order[:n]]


def train_adapter(
    nlp: Language, sentences: Sequence[Doc], type_name: str, options: argparse.Namespace
) -> int:
    """Put an adapter for the type on the pipeline and train it. RETURNS: the number of updates."""
    ner: Any = nlp.get_pipe("vaner_ner")
    ner.add_adapter(type_name, lora=Lora(rank=options.rank, dropout=0.1))
    examples = [Example(nlp.make_doc(one.text), one) for one in sentences]
    n_updates = max(1, options.updates, options.epochs * len(examples) // options.batch)
    optimizer = adamw()
    draw = random.Random(options.seed)
    n_done = 0
    while n_done < n_updates:
        draw.shuffle(examples)
        for start in range(0, len(examples), options.batch):
            if n_done == n_updates:
                break
            # The rate falls to a tenth over the run.
            optimizer.learn_rate = options.learn_rate * (1 - 0.9 * n_done / n_updates)
            nlp.update(examples[start : start + options.batch], sgd=optimizer)
            n_done += 1
    return n_done


def predictions(nlp: Language, texts: Sequence[str], types: Sequence[str]) -> list[Any]:
    """What a pipeline finds of these types."""
    asked = {"vaner_ner": {"types": list(types)}}
    return [doc.user_data["vaner_predictions"] for doc in nlp.pipe(texts, component_cfg=asked)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", type=Path, help="trained for other types")
    parser.add_argument("converted", type=Path, help="folder with *.train.spacy and *.dev.spacy")
    parser.add_argument("output", type=Path, help="JSON")
    parser.add_argument("--type", required=True, help="the new type")
    parser.add_argument("--sizes", default="50,100,200,500,all", help="numbers of sentences")
    parser.add_argument("--rank", type=int, default=12, help="of the adapter")
    parser.add_argument("--learn-rate", type=float, default=0.002)
    parser.add_argument("--batch", type=int, default=8, help="sentences per update")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--updates", type=int, default=0, help="at least so many")
    parser.add_argument("--documents", type=int, default=0, help="of dev; 0 = all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    nlp = spacy.load(options.pipeline)
    old_types = [n for n in nlp.get_pipe("vaner_ner").types if n != options.type]
    docs = [d for path in find_files([options.converted], split="train") for d in read_docs(path)]
    sentences = list(sentences_of(nlp, docs, options.type))
    dev = [d for path in find_files([options.converted], split="dev") for d in read_docs(path)]
    dev = dev[: options.documents or None]
    texts = [doc.text for doc in dev]
    before = predictions(nlp, texts, old_types)
    for doc in dev:
        doc.user_data[KEY] = {**doc.user_data[KEY], "types": [options.type]}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    settings = {k: str(v) if isinstance(v, Path) else v for k, v in vars(options).items()}
    curve: list[dict[str, Any]] = []
    beside = tempfile.TemporaryDirectory()
    dev_path = Path(beside.name) / "new.dev.spacy"
    dev_path.write_bytes(docs_to_bytes(dev))
    for size in options.sizes.split(","):
        fix_random_seed(options.seed)
        nlp = spacy.load(options.pipeline)
        chosen = choose(sentences, size, options.seed)
        started = time.process_time()
        n_updates = train_adapter(nlp, chosen, options.type, options)
        seconds = time.process_time() - started
        result = evaluate_pipeline(nlp, [dev_path], view="text", name_corpus=False)
        curve.append(
            {
                "sentences": len(chosen),
                "mentions": sum(len(one.user_data[KEY]["mentions"]) for one in chosen),
                "updates": n_updates,
                "processor_seconds": round(seconds, 1),
                **{key: result.overall.to_dict()[key] for key in ("gold", "p", "r", "f")},
                "f_interval": result.overall.intervals.f,
                "old_types_unchanged": predictions(nlp, texts, old_types) == before,
            }
        )
        f = result.overall.counts.f
        print(f"{len(chosen):>6} sentences: F1 {100 * (f or 0):.2f}, {seconds:.0f} s of processor")
        # After every size, so that a stop loses none of them.
        report = {**settings, "old_types": old_types, "curve": curve}
        write_whole(options.output, (json.dumps(report, indent=2) + "\n").encode("utf8"))
    dev_path.unlink()


if __name__ == "__main__":
    main()
