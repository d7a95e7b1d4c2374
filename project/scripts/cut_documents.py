"""Cut long documents at line breaks, for trainers that take a document per update.

python scripts/cut_documents.py IN.spacy OUT.spacy --words 200
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from spacy.tokens import Doc

from spacy_vaner.corpora.docbins import docs_to_bytes, read_docs
from spacy_vaner.files import write_whole
from spacy_vaner.gold import KEY, Gold, get_gold


def pieces(doc: Doc, n_words: int) -> Iterator[Doc]:
    """Pieces of whole lines, each of `n_words` or more where the document has as many left.

    They keep `doc.ents` and the annotation, not the span groups. A mention that a cut would halve
    is lost to both pieces; line breaks hardly ever do that.
    """
    gold = get_gold(doc) or Gold()
    start = 0
    for end in range(1, len(doc) + 1):
        is_break = end == len(doc) or "\n" in doc[end - 1].text
        if not is_break or (end < len(doc) and end - start < n_words):
            continue
        span = doc[start:end]
        piece = span.as_doc(copy_user_data=False)
        piece.user_data[KEY] = gold.within(span.start_char, span.end_char).to_user_data()
        yield piece
        start = end


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--words", type=int, default=200)
    options = parser.parse_args()
    documents = [piece for doc in read_docs(options.source) for piece in pieces(doc, options.words)]
    write_whole(options.output, docs_to_bytes(documents))
    print(f"{len(documents)} documents: {options.output}")


if __name__ == "__main__":
    main()
