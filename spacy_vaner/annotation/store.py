"""The output folder: results that are whole or not there, what is done, what was rejected.

    OUTPUT/annotated/NAME.00000.jsonl   a shard's documents, in the format that was asked
    OUTPUT/receipts/NAME.00000.json     written after it: the shard is done
    OUTPUT/manifest.json                model, settings, counts
    OUTPUT/rejected.jsonl               what could not be read or annotated

Nothing in it depends on time, machine or order, so that a run which was stopped and started again
leaves the same bytes as one that was not.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spacy_vaner.annotation.document import Rejection
from spacy_vaner.annotation.inputs import Shard, Source
from spacy_vaner.errors import Messages, VanerError

RESULTS, RECEIPTS = "annotated", "receipts"
MANIFEST, REJECTED = "manifest.json", "rejected.jsonl"
_PART = ".part"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a shard.

    documents, words, characters: that were annotated. found: annotations by type.
    across_passages: spans that ran over the end of a passage and were left out.
    """

    source: str
    number: int
    digest: str
    is_last: bool
    size_bytes: int | None
    documents: int = 0
    words: int = 0
    characters: int = 0
    found: Mapping[str, int] = field(default_factory=dict)
    across_passages: int = 0
    rejected: tuple[Mapping[str, str | None], ...] = ()

    @classmethod
    def of(cls, shard: Shard, rejections: Iterable[Rejection], **counts: Any) -> Receipt:
        """The receipt of a shard; rejections: of reading and of annotating."""
        return cls(
            shard.source,
            shard.number,
            shard.digest,
            shard.is_last,
            shard.size_bytes,
            rejected=tuple(rejection.to_dict() for rejection in rejections),
            **counts,
        )

    @property
    def name(self) -> str:
        return f"{self.source}.{self.number:05d}"


@dataclass(frozen=True, slots=True)
class Totals:
    """What a folder holds: the sums of its receipts."""

    shards: int
    documents: int
    words: int
    characters: int
    found: Mapping[str, int]
    across_passages: int
    rejected: int


class Store:
    """The output folder of a run.

    settings: plain values; a folder that was begun with others is refused.
    suffix: of results; "" where each is a folder.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, suffix: str) -> None:
        self.folder = folder
        self.settings = settings
        self.suffix = suffix
        self.done: dict[str, dict[int, Receipt]] = {}

    def open(self, *, is_dry: bool = False) -> None:
        """Read what is done; make the folder.

        is_dry: write nothing.
        RAISES VanerError: VE705, other settings; VE706, a folder of something else; VE707, a
            folder that cannot be written; VE708, a damaged receipt.
        """
        manifest = self.folder / MANIFEST
        if manifest.is_file():
            self._check_settings(manifest)
        elif self.folder.exists() and not self._is_new():
            raise VanerError(Messages.VE706.format(path=self.folder))
        for receipt in self.receipts():
            self.done.setdefault(receipt.source, {})[receipt.number] = receipt
        if is_dry:
            return
        try:
            # First of all, so that a folder that was begun is known as one.
            if not manifest.is_file():
                self._write_manifest(None)
            (self.folder / RESULTS).mkdir(exist_ok=True)
            (self.folder / RECEIPTS).mkdir(exist_ok=True)
            self._remove_parts()
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def _remove_parts(self) -> None:
        """Remove what workers that were killed left beside their results."""
        for left in [*self.folder.rglob(f".*{_PART}")]:
            _remove(left)

    def _is_new(self) -> bool:
        """Whether the folder holds nothing, or what a run left that was stopped at its start."""
        return self.folder.is_dir() and all(
            path.name.startswith(f".{MANIFEST}.") for path in self.folder.iterdir()
        )

    def _check_settings(self, manifest: Path) -> None:
        try:
            before = json.loads(manifest.read_text("utf8"))["settings"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise VanerError(Messages.VE708.format(path=manifest, error=error)) from error
        keys = [
            key
            for key in {**before, **self.settings}
            if before.get(key) != _plain(self.settings.get(key))
        ]
        if keys:
            differences = "; ".join(
                f"{key} was {before.get(key)!r}, is {self.settings.get(key)!r}"
                for key in sorted(keys)
            )
            raise VanerError(Messages.VE705.format(path=self.folder, differences=differences))

    def receipts(self) -> Iterator[Receipt]:
        """The receipts, by source and number.

        RAISES VanerError: VE708, a damaged one.
        """
        folder = self.folder / RECEIPTS
        for path in sorted(folder.rglob("*.json")) if folder.is_dir() else ():
            try:
                values = json.loads(path.read_text("utf8"))
                yield Receipt(**{**values, "rejected": tuple(values["rejected"])})
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise VanerError(Messages.VE708.format(path=path, error=error)) from error

    def is_complete(self, source: Source) -> bool:
        """Whether all of a source is done, so that it need not be read again."""
        receipts = self.done.get(source.name, {})
        last = next((one for one in receipts.values() if one.is_last), None)
        return (
            last is not None
            and source.size_bytes is not None
            and last.size_bytes == source.size_bytes
            and all(
                number in receipts and self._has_result(receipts[number])
                for number in range(last.number + 1)
            )
        )

    def is_done(self, shard: Shard) -> bool:
        """Whether a shard that was read is done, with the same content."""
        receipt = self.done.get(shard.source, {}).get(shard.number)
        return (
            receipt is not None
            and receipt.digest == shard.digest
            and receipt.is_last == shard.is_last
            and receipt.size_bytes == shard.size_bytes
            and self._has_result(receipt)
        )

    def _has_result(self, receipt: Receipt) -> bool:
        return not receipt.documents or self.result_path(receipt.name).exists()

    def result_path(self, name: str) -> Path:
        return self.folder / RESULTS / f"{name}{self.suffix}"

    def _receipt_path(self, name: str) -> Path:
        return self.folder / RECEIPTS / f"{name}.json"

    def put(self, receipt: Receipt, write: Callable[[Path], None] | None) -> None:
        """Write a shard's result, then its receipt; each appears whole.

        write: makes the file or folder; None for a shard without documents.
        RAISES VanerError: VE707, it cannot be written: no room, no permission.
        """
        result, note = self.result_path(receipt.name), self._receipt_path(receipt.name)
        try:
            note.unlink(missing_ok=True)
            if write is not None:
                _put(result, write)
            else:
                _remove(result)
            content = json.dumps(asdict(receipt), ensure_ascii=False, sort_keys=True) + "\n"
            _put(note, lambda path: _write_text(path, content))
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def finish(self, *, is_complete: bool) -> Totals:
        """Write manifest.json and rejected.jsonl from the receipts."""
        receipts = list(self.receipts())
        # The first one that is a last one: a source may have been longer in an earlier run.
        last = {one.source: one.number for one in reversed(receipts) if one.is_last}
        found: Counter[str] = Counter()
        kept: list[Receipt] = []
        try:
            for one in receipts:
                if one.number > last.get(one.source, one.number):
                    _remove(self.result_path(one.name))
                    _remove(self._receipt_path(one.name))
                else:
                    kept.append(one)
                    found.update(one.found)
            totals = Totals(
                shards=len(kept),
                documents=sum(one.documents for one in kept),
                words=sum(one.words for one in kept),
                characters=sum(one.characters for one in kept),
                found=dict(sorted(found.items())),
                across_passages=sum(one.across_passages for one in kept),
                rejected=sum(len(one.rejected) for one in kept),
            )
            lines = [
                json.dumps(row, ensure_ascii=False) + "\n" for one in kept for row in one.rejected
            ]
            _put(self.folder / REJECTED, lambda path: _write_text(path, "".join(lines)))
            if is_complete:
                self._remove_parts()
            self._write_manifest(totals if is_complete else None)
        except OSError as error:
            raise _unwritable(self.folder, error) from error
        return totals

    def _write_manifest(self, totals: Totals | None) -> None:
        content: dict[str, Any] = {"settings": self.settings, "complete": totals is not None}
        if totals is not None:
            content["totals"] = asdict(totals)
        text = json.dumps(content, ensure_ascii=False, indent=2) + "\n"
        _put(self.folder / MANIFEST, lambda path: _write_text(path, text))


def _plain(value: object) -> object:
    return json.loads(json.dumps(value))


def _unwritable(folder: Path, error: OSError) -> VanerError:
    return VanerError(Messages.VE707.format(path=folder, error=error.strerror or error))


def _write_text(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf8"))


def _put(path: Path, write: Callable[[Path], None]) -> None:
    """Write beside and rename. The name beside is of this call alone: a worker that was given up
    for lost may still write the same shard."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_PART}")
    try:
        write(beside)
        _to_disk(beside)
        if beside.is_dir() and path.exists():
            shutil.rmtree(path)
        beside.replace(path)
    finally:
        _remove(beside)


def _to_disk(path: Path) -> None:
    """A machine that is lost must not leave a name without its content."""
    for file in path.iterdir() if path.is_dir() else [path]:
        with file.open("rb") as stream:
            os.fsync(stream.fileno())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
