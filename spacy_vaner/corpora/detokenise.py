"""Text from words: spaces restored as well as can be.

Corpora of tagged words have lost their spaces. Against the raw abstracts the rules below are right
in 99.2 (JNLPBA, cut finely) to 99.6 (JNLPBA as released) of 100 gaps between words. They are never
changed themselves, so their offsets are exact whatever is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from spacy_vaner.types import Offsets

_NO_SPACE_BEFORE = frozenset(". , ; : ! ? % ) ] } ’ ” » … '' ° ® ™".split())
_NO_SPACE_AFTER = frozenset("( [ { “ « ‘ `` ~ $".split())
_DASHES = frozenset("- ‐ ‑ – /".split())
_COMPARISONS = ("<", ">", "=", "≤", "≥")
_JOINS = frozenset("_ ^ @".split())
_CLITICS = frozenset("'s ’s n't 're 've 'll 'd 'm 't".split())
_CLITIC_TAILS = frozenset("s t re ve ll d m".split())
_CONJUNCTIONS = frozenset("and or to & , ; . ) ]".split())
_CHROMOSOME_CHANGES = frozenset("t inv del der ins dup".split())
_GROUPS = frozenset("OH P e H".split())
"""What stands in brackets inside of a word: 25(OH)D, NAD(P)H, cyst(e)ine."""
_ISOTOPE = re.compile(r"\d{1,3}[A-Z][a-z]?")
_INNER_DASH = re.compile(r"\w[-/]\w")
_SINGLE_LETTER = re.compile(r"[A-Za-z]")


def join_words(words: Sequence[str]) -> tuple[str, list[Offsets]]:
    """The text of one sentence and the offsets of its words.

    words: none is empty.
    """
    text = ""
    offsets: list[Offsets] = []
    for word, spaced in zip(words, spaces_before(words), strict=True):
        text += " " * spaced + word
        offsets.append((len(text) - len(word), len(text)))
    return text, offsets


def spaces_before(words: Sequence[str]) -> list[bool]:
    """Whether a space stands before each word of a sentence; never before the first."""
    # Corpora that cut at every hyphen ("NF - Y") want it closed up; where hyphens were left inside
    # of words, one that stands alone had spaces around it.
    dashes_are_cut = not any(_INNER_DASH.search(word) for word in words)
    spaced = []
    open_quotes: set[str] = set()
    glue_next = True
    for i, word in enumerate(words):
        before = words[i - 1] if i else ""
        after = words[i + 1] if i + 1 < len(words) else ""
        glue = glue_next
        glue_next = word in _NO_SPACE_AFTER or word in _JOINS
        if word in ("(", "["):
            glue = glue or _opens_inside_word(words, i)
        elif word in (")", "]"):
            glue, glue_next = True, _closes_inside_word(words, i)
        elif word in ('"', "'") and not _is_prime_or_apostrophe(word, before, after, open_quotes):
            if word in open_quotes:
                glue = True
            else:
                glue_next = True
            open_quotes ^= {word}
        elif word == "'":
            glue = True
            glue_next = after in _CLITIC_TAILS and before[-1:].isalpha()
        elif word in _DASHES:
            glue = glue or dashes_are_cut or word == "/"
            glue_next = glue and not _ends_prefix(words, i)
        elif word.startswith("-") and word[1:2].isalpha():
            glue = True
        elif word in (".", ",", ":"):
            glue = not (word == "." and before in _COMPARISONS and after.isdecimal())
            glue_next = _joins_next(words, i)
        elif word == ">" and before.endswith("-"):
            glue = True
        elif word == ";":
            glue, glue_next = True, _are_short_numbers(before, after)
        elif word == "+":
            glue = glue or _glues_plus(words, i)
        elif word == "not" and before in ("can", "Can"):
            glue = True
        elif word == "*":
            glue, glue_next = True, after[:1].isdecimal()
        elif word in _NO_SPACE_BEFORE or word in _CLITICS or word in _JOINS:
            glue = True
        spaced.append(not glue)
    return spaced


def _is_prime_or_apostrophe(word: str, before: str, after: str, open_quotes: set[str]) -> bool:
    if word != "'" or not before:
        return False
    if before[-1].isdecimal() or before == "'":
        return True
    if after in _CLITIC_TAILS and before[-1].isalpha():
        return True
    return before[-1] == "s" and word not in open_quotes


def _opens_inside_word(words: Sequence[str], i: int) -> bool:
    """Whether the bracket at i follows without a space: factor(s), m(2), K(+), t(8;21), 25(OH)D."""
    before = words[i - 1] if i else ""
    after = words[i + 1] if i + 1 < len(words) else ""
    if before in _CHROMOSOME_CHANGES and after[:1].isdecimal():
        return True
    if i + 2 >= len(words) or words[i + 2] not in (")", "]"):
        return False
    if after in ("s", "es"):
        return before[-1:].isalpha()
    is_sub_or_superscript = len(after) <= 2 and not after.isalpha() and not before.isdecimal()
    return is_sub_or_superscript and 0 < len(before) <= 2 or after in _GROUPS


def _closes_inside_word(words: Sequence[str], i: int) -> bool:
    """Whether the bracket at i is followed without a space: 25(OH)D, [3H]dexamethasone."""
    if i < 2 or words[i - 2] not in ("(", "["):
        return False
    if words[i] == "]" and _ISOTOPE.fullmatch(words[i - 1]):
        return True
    return words[i - 1] in _GROUPS and i + 1 < len(words) and words[i + 1][0].isalnum()


def _ends_prefix(words: Sequence[str], i: int) -> bool:
    """Whether the dash at i ends a word: pre- and post-natal, HFE+/- mice; but right-to-left."""
    after = words[i + 1] if i + 1 < len(words) else ""
    beyond = words[i + 2] if i + 2 < len(words) else ""
    if words[i] == "/":
        return False
    if i >= 2 and words[i - 1] == "/" and words[i - 2] in "+-":
        return after[:1].isalnum()
    return after in _CONJUNCTIONS and beyond not in _DASHES


def _glues_plus(words: Sequence[str], i: int) -> bool:
    before = words[i - 1] if i else ""
    after = words[i + 1] if i + 1 < len(words) else ""
    beyond = words[i + 2] if i + 2 < len(words) else ""
    if after == "/" and beyond in _DASHES:
        return not before[-1:].isdecimal()
    return not before.islower() and not after[:1].isdecimal()


def _are_short_numbers(*words: str) -> bool:
    return all(word.isdecimal() and len(word) <= 2 for word in words)


def _joins_next(words: Sequence[str], i: int) -> bool:
    """Whether the mark at i (full stop, comma, colon) is inside a number or a name."""
    before = words[i - 1] if i else ""
    after = words[i + 1] if i + 1 < len(words) else ""
    beyond = words[i + 2] if i + 2 < len(words) else ""
    if words[i] == ".":
        in_abbreviation = (
            _SINGLE_LETTER.fullmatch(before) is not None
            and _SINGLE_LETTER.fullmatch(after) is not None
            and beyond == "."
        )
        return after[:1].isdecimal() and (not before or not before[-1].isalpha()) or in_abbreviation
    if not (before[-1:].isdecimal() and after[:1].isdecimal()):
        # N,N-dimethyl
        return words[i] == "," and len(before) == 1 and before == after and before.isupper()
    if words[i] == ":":
        return True
    is_thousands = len(after) == 3 and len(before) <= 3
    return is_thousands or beyond in _DASHES and len(before) <= 2 and len(after) <= 2
