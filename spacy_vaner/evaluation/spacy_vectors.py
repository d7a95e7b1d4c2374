"""Static word vectors as a folder that `spacy train --paths.vectors` takes.

The keys are small letters: spaCy is told to look up the LOWER of a token, as our vectors are of
lower-case words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy
import spacy
from numpy.typing import NDArray
from spacy.vectors import Vectors

from spacy_vaner.errors import Messages, VanerError


def write_spacy_vectors(source: Path, output: Path, *, words: Sequence[Path] = ()) -> int:
    """Convert word vectors.

    source: a `.safetensors` of `python -m spacy_vaner.training vectors`, which holds hashes of
        words, or gensim's KeyedVectors, which hold the words.
    words: where the words of hashes are found: `.spacy` files, texts, or folders of texts.
    RETURNS: how many words have a vector.
    RAISES VanerError: VE475, another kind of file; VE476, no `words` for hashes; VE521, gensim is
        not installed.
    """
    if source.suffix == ".safetensors":
        keys, vectors = _of_hashes(source, words)
    else:
        keys, vectors = _of_gensim(source)
    nlp = spacy.blank("en")
    strings = nlp.vocab.strings
    nlp.vocab.vectors = Vectors(
        strings=strings,
        data=vectors,
        keys=[strings.add(key) for key in keys],
        name="spacy_vaner",
        attr="LOWER",
    )
    output.mkdir(parents=True, exist_ok=True)
    nlp.to_disk(output)
    return len(keys)


def _of_hashes(source: Path, words: Sequence[Path]) -> tuple[list[str], NDArray[numpy.float32]]:
    from spacy_vaner.backbone.hashing import word_key
    from spacy_vaner.backbone.word_features import WordVectors

    if not words:
        raise VanerError(Messages.VE476)
    try:
        stored = WordVectors.from_file(source)
    except VanerError as error:
        raise VanerError(Messages.VE475.format(path=source, reason=error)) from error
    row_of = {key: row for row, key in enumerate(stored.keys.tolist())}
    found: dict[str, int] = {}
    for word in _words(words):
        if word not in found and (row := row_of.get(word_key(word))) is not None:
            found[word] = row
    return list(found), stored.vectors[list(found.values())].numpy()


def _words(paths: Sequence[Path]) -> Iterator[str]:
    from spacy_vaner.backbone.word_features import split_words
    from spacy_vaner.corpora.docbins import read_docs
    from spacy_vaner.training.sources import find_sources, read_documents

    def texts() -> Iterable[str]:
        docbins = [path for path in paths if path.suffix == ".spacy"]
        for path in docbins:
            yield from (doc.text for doc in read_docs(path))
        others = [path for path in paths if path.suffix != ".spacy"]
        for source in find_sources(others) if others else ():
            yield from read_documents(source)

    for text in texts():
        yield from split_words(text)


def _of_gensim(source: Path) -> tuple[list[str], NDArray[numpy.float32]]:
    try:
        from gensim.models import KeyedVectors
    except ImportError:
        raise VanerError(Messages.VE521) from None
    try:
        stored = KeyedVectors.load(str(source))
        # What was not trained in small letters would never be found under LOWER.
        keys = [key for key in stored.index_to_key if key == key.lower()]
        return keys, numpy.asarray(stored[keys], dtype="float32")
    except Exception as error:  # pickle raises anything
        raise VanerError(Messages.VE475.format(path=source, reason=error)) from error
