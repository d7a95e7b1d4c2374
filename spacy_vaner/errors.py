"""Every message that the package gives to its users, numbered.

A message says what happened, with which value, and what to do about it. Each part of the package
has a range of numbers: 0xx settings and component, 1xx backbone, 2xx corpora, 3xx training and
reader, 4xx evaluation.
"""

from __future__ import annotations


class VanerError(ValueError):
    """An error that a user can mend: a setting, a file, a missing package."""


class VanerWarning(UserWarning):
    """Something was skipped, widened or replaced; said once per cause."""


class Messages:
    """Templates for str.format; `python -m spacy vaner` and the library use the same ones."""
