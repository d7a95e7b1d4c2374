"""Adapters over a trained tagger: made, found by their types, saved, read, put on.

What an adapter is and does stands in backbone/adapters.py; here are the names and checks that
`vaner_ner` offers of it, and the callback that puts one on for `spacy train`.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spacy.language import Language

from spacy_vaner.backbone.settings import Lora
from spacy_vaner.errors import Messages, VanerError
from spacy_vaner.files import write_whole
from spacy_vaner.gold import FACTORY
from spacy_vaner.model import TaggerModel, ask_text, get_tagger
from spacy_vaner.reading import Question

if TYPE_CHECKING:
    from spacy_vaner.backbone.adapters import Adapter


def add_adapter(
    types: list[str], component: str = "vaner_ner", lora: Lora | None = None
) -> Callable[[Language], None]:
    """A callback for [initialize.before_init] of a config that sources a trained pipeline.

    types: what the new adapter is for.
    component: name of the vaner_ner that it is put on.
    lora: the size of its weights; null = as `spacy-vaner.lora.v1` gives it.
    """
    return partial(_add_adapter, types=types, component=component, lora=lora)


def _add_adapter(nlp: Language, *, types: list[str], component: str, lora: Lora | None) -> None:
    if component not in nlp.component_names or nlp.get_pipe_meta(component).factory != FACTORY:
        known = ", ".join(nlp.component_names)
        raise VanerError(Messages.VE038.format(name=component, known=known))
    ner: Any = nlp.get_pipe(component)
    ner.add_adapter(types, lora=lora)


def adapters_of(model: TaggerModel) -> tuple["Adapter", ...]:
    """The adapters that are on; none before there are weights."""
    tagger = get_tagger(model)
    return () if tagger is None else tuple(tagger.adapters)


def describe(adapters: Iterable["Adapter"]) -> str:
    """The types of adapters, for messages."""
    return "; ".join(", ".join(adapter.types) for adapter in adapters) or "none"


def find_adapter(model: TaggerModel, types: Sequence[str]) -> "Adapter":
    """The adapter for just these types. RAISES VanerError: VE032."""
    adapters = adapters_of(model)
    for adapter in adapters:
        if set(adapter.types) == set(types):
            return adapter
    raise VanerError(Messages.VE032.format(types=list(types), known=describe(adapters)))


def new_adapter(model: TaggerModel, types: Sequence[str], lora: Lora, *, seed: int) -> "Adapter":
    """Make a fresh adapter and put it on. RAISES VanerError: VE031, VE180."""
    tagger = get_tagger(model)
    assert tagger is not None
    adapter = tagger.adapters.new(types, lora, asked_as=_asked_as(model, types), seed=seed)
    _put_on(model, adapter)
    return adapter


def read_adapter(model: TaggerModel, path: Path) -> "Adapter":
    """Read an adapter that write_adapter wrote and put it on; it is frozen.

    RAISES VanerError: VE031, VE036, VE180-VE185.
    """
    tagger = get_tagger(model)
    assert tagger is not None
    files = {file.name: file.read_bytes() for file in path.glob("adapter.*")}
    adapter = tagger.adapters.read(files, where=str(path))
    trained, asked = list(adapter.asked_as), _asked_as(model, adapter.types)
    if trained != asked:
        raise VanerError(Messages.VE036.format(where=path, trained=trained, asked=asked))
    _put_on(model, adapter)
    return adapter


def write_adapter(adapter: "Adapter", path: Path) -> None:
    """Write an adapter to a folder of its own."""
    path.mkdir(parents=True, exist_ok=True)
    for name, content in adapter.files().items():
        write_whole(path / name, content)


def _put_on(model: TaggerModel, adapter: "Adapter") -> None:
    for other in adapters_of(model):
        if not set(other.types).isdisjoint(adapter.types):
            raise VanerError(
                Messages.VE031.format(types=list(adapter.types), known=list(other.types))
            )
    tagger = get_tagger(model)
    assert tagger is not None
    tagger.adapters.put_on(adapter)


def _asked_as(model: TaggerModel, types: Sequence[str]) -> list[str]:
    """What an adapter is asked with, to notice when a pipeline would ask it otherwise."""
    return [ask_text(model, Question(types[0], corpus)) for corpus in (None, "corpus")]
