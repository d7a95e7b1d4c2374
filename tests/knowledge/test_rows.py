"""DBR rows: what is drawn, how often, and that it follows from (seed, epoch, sentence)."""

from __future__ import annotations

from collections import Counter

import pytest

from spacy_vaner.errors import VanerError
from spacy_vaner.knowledge.candidates import Key, SentenceCandidates
from spacy_vaner.knowledge.rows import AUTHORS, DbrRow, RowSettings, draw_row
from spacy_vaner.knowledge.store import KnowledgeBase
from spacy_vaner.types import Mention
from tests.knowledge.conftest import make_kb

DISEASES = [f"marsh fever {number}" for number in range(30)]
GENES = [f"MRSH{number}" for number in range(30)]
BOTH = ["mallow"]


@pytest.fixture(scope="module")
def marsh() -> KnowledgeBase:
    others = {"Species": ["Mallow", *(f"alga {number}" for number in range(30))]}
    return make_kb({"Disease": DISEASES + BOTH, "Gene": GENES, **others})


def sentence(names: list[str], kb: KnowledgeBase, start: int = 0) -> SentenceCandidates:
    positions = [kb.find(name) for name in names]
    types = tuple(kb.types[position] for position in positions if position is not None)
    assert len(types) == len(names)
    return SentenceCandidates(Key("C", "1", start), 9, tuple(names), types, (1.0,) * len(names))


def draw(names: list[str], kb: KnowledgeBase, **settings: object) -> DbrRow | None:
    candidates = sentence(names, kb)
    own = RowSettings(**settings)  # type: ignore[arg-type]
    return draw_row(candidates, ["Disease"], kb, own, seed=0, epoch=0)


def named(row: DbrRow) -> list[tuple[str, str]]:
    return [
        (mention.type, row.text[start:end])
        for mention in row.mentions
        for start, end in mention.fragments
    ]


def test_row_holds_at_most_ten_positives_and_five_negatives(marsh: KnowledgeBase) -> None:
    row = draw(DISEASES + GENES, marsh)
    assert row is not None and row.types == ("Disease",)
    names = row.text.split(", ")
    assert names == [row.text[start:end] for start, end in row.places]
    assert len(names) == len(set(names)) == len(row.places) == 15
    positives = [name for _, name in named(row)]
    assert len(positives) == 10 and set(positives) <= set(DISEASES)
    assert len(set(names) & set(GENES)) == 5
    assert names != sorted(names, key=lambda name: name in GENES), "shuffled"
    few = draw(DISEASES[:2] + GENES[:1], marsh)
    assert few is not None and len(few.places) == 3 and len(few.mentions) == 2


def test_rows_follow_from_seed_epoch_and_sentence(marsh: KnowledgeBase) -> None:
    def text(seed: int, epoch: int, start: int, **settings: bool) -> str:
        candidates = sentence(DISEASES + GENES, marsh, start)
        own = RowSettings(**settings)  # type: ignore[arg-type]
        row = draw_row(candidates, ["Disease"], marsh, own, seed=seed, epoch=epoch)
        assert row is not None
        return row.text

    assert text(0, 0, 0) == text(0, 0, 0)
    assert len({text(0, 0, 0), text(1, 0, 0), text(0, 1, 0), text(0, 0, 5)}) == 4
    assert text(0, 7, 0, every_epoch=False) == text(0, 0, 0)


def test_name_of_several_types_is_a_positive_of_each_and_a_negative_of_none(
    marsh: KnowledgeBase,
) -> None:
    candidates = sentence(["mallow", "MRSH1"], marsh)
    settings = RowSettings()
    for type, expected in (("Disease", ["mallow"]), ("Species", ["mallow"]), ("Gene", ["MRSH1"])):
        row = draw_row(candidates, [type], marsh, settings, seed=0, epoch=0)
        assert row is not None and named(row) == [(type, name) for name in expected]
    # A type is asked as a whole, not as a part of another one's name.
    row = draw_row(candidates, ["Gen"], marsh, settings, seed=0, epoch=0)
    assert row is not None and row.mentions == ()
    joint = draw_row(candidates, ["Disease", "Species"], marsh, settings, seed=0, epoch=0)
    assert joint is not None
    (place,) = {mention.fragments for mention in joint.mentions}
    assert joint.mentions == (Mention("Disease", place), Mention("Species", place))


def test_separator_is_a_setting(marsh: KnowledgeBase) -> None:
    row = draw(["marsh fever 1", "MRSH1"], marsh, separator=AUTHORS)
    assert row is not None
    assert row.text in ("marsh fever 1 MRSH1", "MRSH1 marsh fever 1")
    assert named(row) == [("Disease", "marsh fever 1")]


def test_names_that_fit_in_no_window_are_left_out_and_counted(marsh: KnowledgeBase) -> None:
    row = draw(["marsh fever 1", "mallow", "MRSH1"], marsh, max_words=2)
    assert row is not None
    assert (len(row.places), row.n_too_long) == (2, 1)
    assert "fever" not in row.text
    assert draw(["marsh fever 1"], marsh, max_words=2) is None


@pytest.mark.parametrize("names", [DISEASES[:3] + GENES[:2], DISEASES[:3], GENES[:2]])
def test_random_rows_have_the_same_counts_from_anywhere(
    marsh: KnowledgeBase, names: list[str]
) -> None:
    retrieved, drawn = draw(names, marsh), draw(names, marsh, mode="random")
    assert retrieved is not None and drawn is not None
    assert len(drawn.places) == len(retrieved.places)
    assert len(drawn.mentions) == len(retrieved.mentions)
    assert set(drawn.text.split(", ")) != set(names)
    assert {name for _, name in named(drawn)} <= {*DISEASES, *BOTH}


def test_random_rows_end_where_the_base_has_too_few_names() -> None:
    kb = make_kb({"Disease": ["marsh fever"]})
    candidates = SentenceCandidates(
        Key("C", "1", 0),
        9,
        ("marsh fever", "x1", "x2"),
        (("Disease",), ("Gene",), ("Gene",)),
        (1.0, 1.0, 1.0),
    )
    settings = RowSettings(mode="random")
    row = draw_row(candidates, ["Disease"], kb, settings, seed=0, epoch=0)
    assert row is not None and row.text == "marsh fever"


def test_no_row_without_candidates_and_with_mode_off(marsh: KnowledgeBase) -> None:
    assert draw([], marsh) is None
    assert draw([], marsh, mode="random") is None
    assert draw(DISEASES, marsh, mode="off") is None
    assert draw(GENES, marsh, n_negative=0) is None


def test_over_the_epochs_every_candidate_is_drawn(marsh: KnowledgeBase) -> None:
    candidates = sentence(DISEASES, marsh)
    seen: Counter[str] = Counter()
    for epoch in range(40):
        row = draw_row(candidates, ["Disease"], marsh, RowSettings(), seed=0, epoch=epoch)
        assert row is not None
        seen.update(name for _, name in named(row))
    assert set(seen) == set(DISEASES)
    assert max(seen.values()) < 30


@pytest.mark.parametrize(
    "settings",
    [
        {"mode": "Random"},
        {"n_positive": -1},
        {"n_negative": -1},
        {"max_words": 0},
        {"separator": ""},
        {"separator": " and "},
    ],
)
def test_settings_are_checked(settings: dict[str, object]) -> None:
    with pytest.raises(VanerError, match=f"VE612: {next(iter(settings))} = "):
        RowSettings(**settings)  # type: ignore[arg-type]
