"""A process of its own for a system: `python -m spacy_vaner.evaluation.worker JOB.json`.

What crashes, leaks or sets threads here concerns no other system, and its start-up time and peak
memory are its own. The job and its results are files of plain JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from spacy_vaner.errors import Messages
from spacy_vaner.evaluation.documents import GoldDocument, GoldFile
from spacy_vaner.evaluation.paired import write_counts
from spacy_vaner.evaluation.predictions import PredictedDocument, write_predictions
from spacy_vaner.evaluation.result import versions
from spacy_vaner.evaluation.scales import SCALES
from spacy_vaner.evaluation.systems import load_system
from spacy_vaner.evaluation.systems.base import Question, System, SystemMissing, SystemSpec
from spacy_vaner.files import write_whole
from spacy_vaner.metrics import ANY_TYPE, Counts

OK, MISSING, FAILED, NOT_ASKED = "ok", "missing", "failed", "not asked"
"""What became of a system on a corpus; only OK has scores. OK and NOT_ASKED, which is a corpus that
has no type that the system knows, are not tried again."""


def run_predictions(job: Mapping[str, Any]) -> None:
    """Predict the files of a job and score them, each file's outcome in a JSON file.

    job: `system` (SystemSpec.to_dict), `view`, `name_corpus`, `seed`, `resamples`, `files`, a list
        of {"file", "predictions", "result"}: paths; with "counts", strict counts per document are
        kept there, for paired tests.
    """
    spec = SystemSpec.from_dict(job["system"])
    try:
        system = load_system(spec)
    except SystemMissing as error:
        outcome: dict[str, Any] = {"status": MISSING, "reason": str(error)}
    except Exception as error:  # the code of any rival: its row says what happened
        outcome = {"status": FAILED, "reason": _one_line(error)}
    else:
        for paths in job["files"]:
            try:
                outcome = _predict_file(system, paths, job)
            except Exception as error:  # as above; the other files go on
                outcome = {"status": FAILED, "reason": _one_line(error)}
            _write(Path(paths["result"]), outcome)
        return
    for paths in job["files"]:
        _write(Path(paths["result"]), outcome)


def _predict_file(system: System, paths: Mapping[str, str], job: Mapping[str, Any]) -> Any:
    numbered = list(_documents(Path(paths["file"]), system))
    documents = [(document, types) for _, document, types in numbered]
    questions = [
        question_of(document, view=job["view"], name_corpus=job["name_corpus"], types=types)
        for document, types in documents
    ]
    if not questions:
        return {"status": NOT_ASKED, "reason": Messages.VE467.format(types=_listed(system.types))}
    before = dict(system.unmapped)
    started = time.perf_counter()
    answers = list(system.predict(questions))
    seconds = time.perf_counter() - started
    predicted = [
        PredictedDocument(document, types, tuple(spans))
        for (document, types), spans in zip(documents, answers, strict=True)
    ]
    write_predictions(Path(paths["predictions"]), predicted)
    if "counts" in paths:
        numbers = [number for number, *_ in numbered]
        write_counts(Path(paths["counts"]), zip(numbers, predicted, strict=True))
    unmapped = {
        label: n - before.get(label, 0)
        for label, n in sorted(system.unmapped.items())
        if n > before.get(label, 0)
    }
    return {
        "status": OK,
        "facts": dict(system.facts),
        "unmapped_labels": unmapped,
        "words": sum(len(document.doc) for document, _ in documents),
        "seconds": round(seconds, 3),
        "versions": versions(),
        **score(predicted, seed=job["seed"], n_resamples=job["resamples"]),
    }


def _documents(path: Path, system: System) -> Iterator[tuple[int, GoldDocument, tuple[str, ...]]]:
    """Documents that are annotated completely for a type that the system knows.

    With their numbers in the file, which are the same for every system.
    """
    from spacy_vaner.corpora.docbins import make_vocab

    for number, document in enumerate(GoldFile(path).read(make_vocab())):
        known = document.gold.types
        types = tuple(type for type in known if system.types is None or type in system.types)
        if types:
            yield number, document, types


def question_of(
    document: GoldDocument, *, view: str, name_corpus: bool, types: tuple[str, ...] = ()
) -> Question:
    """What of a gold document a system is shown."""
    doc = document.doc
    names = (document.names() or {}) if name_corpus else None
    if view == "text":
        return Question(doc.text, types, names)
    sentences = doc.has_annotation("SENT_START")
    return Question(
        doc.text,
        types,
        names,
        words=tuple(token.text for token in doc),
        spaces=tuple(bool(token.whitespace_) for token in doc),
        sent_starts=tuple(bool(token.is_sent_start) for token in doc) if sentences else None,
    )


def score(
    predicted: list[PredictedDocument], *, seed: int, n_resamples: int
) -> dict[str, dict[str, Any]]:
    """Score on every scale that says something of this corpus.

    RETURNS: `corpora`: name → `documents`, and per scale `micro` and, where types are told apart,
        `types`.
    """
    corpora: dict[str, list[PredictedDocument]] = {}
    for each in predicted:
        corpora.setdefault(each.document.corpus, []).append(each)
    return {
        "corpora": {
            name: {
                scale: _scores(own, scale, seed=seed, n_resamples=n_resamples)
                for scale, row in SCALES.items()
                if row.applies(own)
            }
            for name, own in corpora.items()
        }
    }


def _scores(
    predicted: list[PredictedDocument], scale: str, *, seed: int, n_resamples: int
) -> dict[str, Any]:
    from spacy_vaner.evaluation.result import Score
    from spacy_vaner.metrics import micro

    per_document: list[Counts] = []
    per_type: dict[str, list[Counts]] = {}
    n_discontinuous: dict[str, int] = {}
    for each in predicted:
        counts = SCALES[scale].count(each)
        per_document.append(micro(counts.values()))
        for type, own in counts.items():
            per_type.setdefault(type, []).append(own)
        for mention in each.document.gold.mentions:
            if len(mention.fragments) > 1 and mention.type in each.types:
                n_discontinuous[mention.type] = n_discontinuous.get(mention.type, 0) + 1

    def to_dict(counts: list[Counts], n: int) -> dict[str, Any]:
        score = Score.of(counts, n_discontinuous=n, seed=seed, n_resamples=n_resamples)
        return {key: _rounded(value) for key, value in score.to_dict().items()}

    scores = {"micro": to_dict(per_document, sum(n_discontinuous.values()))}
    types = {
        type: to_dict(own, n_discontinuous.get(type, 0))
        for type, own in per_type.items()
        if type != ANY_TYPE
    }
    return {**scores, **({"types": types} if types else {})}


def _rounded(value: Any) -> Any:
    """Six digits of a share are more than 95 % of 10,000 mentions can tell."""
    if isinstance(value, tuple):
        return [round(bound, 6) for bound in value]
    return round(value, 6) if isinstance(value, float) else value


def run_speed(job: Mapping[str, Any]) -> None:
    """Measure a system once: start-up, words/s in batches and alone, peak memory, size.

    job: `system`, `view`, `name_corpus`, `texts` (files), `n_batch`, `n_single`, `n_warm_up`
        (documents), `started` (seconds since the epoch when the process was started), `result`.
    """
    spec = SystemSpec.from_dict(job["system"])
    try:
        system = load_system(spec)
        outcome = _measure(system, job)
    except SystemMissing as error:
        outcome = {"status": MISSING, "reason": str(error)}
    except Exception as error:  # the code of any rival: its row says what happened
        outcome = {"status": FAILED, "reason": _one_line(error)}
    _write(Path(job["result"]), outcome)


def _measure(system: System, job: Mapping[str, Any]) -> dict[str, Any]:
    start_up_s = time.time() - job["started"]
    documents = list(_first(job["texts"], job["n_batch"]))
    questions = [
        question_of(document, view=job["view"], name_corpus=False) for document in documents
    ]
    n_words = [len(document.doc) for document in documents]
    for _ in system.predict(questions[: job["n_warm_up"]]):
        pass
    batch_s = _seconds(system, [questions])
    singles = questions[: job["n_single"]]
    single_s = _seconds(system, [[question] for question in singles])
    return {
        "status": OK,
        "facts": dict(system.facts),
        "start_up_s": round(start_up_s, 2),
        "words_per_s": round(sum(n_words) / batch_s, 1),
        "documents_per_s": round(len(questions) / batch_s, 2),
        "single_words_per_s": round(sum(n_words[: len(singles)]) / single_s, 1),
        "single_documents_per_s": round(len(singles) / single_s, 2),
        "peak_memory_bytes": peak_memory_bytes(),
        "size_bytes": system.size_bytes,
        "documents": len(questions),
        "words": sum(n_words),
        "threads": _threads(),
        "versions": versions(),
    }


def _first(paths: Iterable[str], n: int) -> Iterator[GoldDocument]:
    """The first documents, the files taking turns, so that no corpus stands for all."""
    from spacy_vaner.corpora.docbins import make_vocab

    files = [GoldFile(Path(path)).read(make_vocab()) for path in paths]
    turns = chain.from_iterable(zip_longest(*files))
    yield from islice((document for document in turns if document is not None), n)


def _seconds(system: System, calls: Iterable[list[Question]]) -> float:
    started = time.perf_counter()
    for questions in calls:
        for _ in system.predict(questions):
            pass
    return max(time.perf_counter() - started, 1e-9)


def peak_memory_bytes() -> int | None:
    """The largest resident memory that this process had; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _threads() -> int:
    import torch

    return torch.get_num_threads()


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]


def _listed(types: frozenset[str] | None) -> str:
    return ", ".join(sorted(types or ()))


def _write(path: Path, outcome: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(outcome, ensure_ascii=False) + "\n").encode("utf8"))


def main(job_path: str) -> None:
    """Run the job in a file."""
    job = json.loads(Path(job_path).read_text("utf8"))
    {"predict": run_predictions, "speed": run_speed}[job["task"]](job)


if __name__ == "__main__":
    main(sys.argv[1])
