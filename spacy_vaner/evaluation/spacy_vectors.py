"""Static word vectors as a folder that `spacy train --paths.vectors` takes.

Our vectors are of lower-case words, spaCy looks up what stands in the text: a word is found in
small letters, with a capital and in capitals. (spaCy can look up the LOWER of a token, but 3.8.18
forgets so when it saves vectors that are not floret's.)
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
        words_of_rows, vectors = _of_hashes(source, words)
    else:
        words_of_rows, vectors = _of_gensim(source)
    nlp = spacy.blank("en")
    strings = nlp.vocab.strings
    table = Vectors(strings=strings, data=vectors, name="spacy_vaner")
    for row, word in enumerate(words_of_rows):
        for form in (word, word.capitalize(), word.upper()):
            table.add(strings.add(form), row=row)
    nlp.vocab.vectors = table
    output.mkdir(parents=True, exist_ok=True)
    nlp.to_disk(output)
    return len(words_of_rows)


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
        # Other forms of a word would be in the way of its small letters.
        keys = [key for key in stored.index_to_key if key == key.lower()]
        return keys, numpy.asarray(stored[keys], dtype="float32")
    except Exception as error:  # pickle raises anything
        raise VanerError(Messages.VE475.format(path=source, reason=error)) from error
