"""Adapters over a frozen tagger: what was there before stays as it was, to the bit."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from spacy.cli.train import train
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training import Example
from thinc.api import Adam, Config

from spacy_vaner.backbone.adapters import Adapter
from spacy_vaner.backbone.settings import Lora
from spacy_vaner.errors import VanerError
from spacy_vaner.gold import KEY, Gold
from spacy_vaner.model import get_tagger
from spacy_vaner.types import Mention
from tests.support.tiny_tagger import (
    Prediction,
    Writer,
    component_of,
    examples_of,
    found,
    predictions,
)

LORA = Lora(rank=8, dropout=0.0)
TEXT = "zinc levels in the liver and BRCA1 in cells of the kidney"


@pytest.fixture(params=["all trained", "merged adapter"])
def base(
    request: pytest.FixtureRequest, trained_path: Path, lora_nlp: Callable[[], Language]
) -> Language:
    """Taggers that something can be put over."""
    if request.param == "all trained":
        return spacy.load(trained_path)
    nlp = lora_nlp()
    if request.param == "merged adapter":
        component_of(nlp).merge_adapter()
    return nlp


def anatomy(nlp: Language, *organs: str) -> Example:
    """A document in which these organs are all there is of Anatomy; its other types are silent."""
    filler = Writer(nlp, len(organs)).doc(9, share=0.5).text
    text = f"{filler} {' with '.join(organs)} of {filler}"
    mentions = tuple(
        Mention("Anatomy", ((text.index(organ), text.index(organ) + len(organ)),))
        for organ in organs
    )
    reference = nlp.make_doc(text)
    reference.user_data[KEY] = Gold(types=("Anatomy",), mentions=mentions).to_user_data()
    return Example(nlp.make_doc(text), reference)


def lessons(nlp: Language) -> list[Example]:
    return [anatomy(nlp, *organs) for organs in (["liver"], ["kidney"], ["liver", "kidney"], [])]


def teach_anatomy(nlp: Language, *, n_steps: int = 25) -> Adapter:
    """Put an adapter on and train it; it learns what the tagger beneath does not know."""
    adapter = component_of(nlp).add_adapter("Anatomy", lora=LORA)
    examples, optimizer = lessons(nlp), Adam(0.01)
    for _ in range(n_steps):
        nlp.update(examples, sgd=optimizer)
    return adapter


def shake(adapter: Adapter, seed: int = 0) -> None:
    """Give an adapter random weights, as if it had learned something."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in adapter.parameters():
        parameter.data.normal_(std=0.3, generator=generator)


@pytest.fixture(scope="session")
def adapted_path(trained_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained pipeline with an adapter that knows two organs by heart."""
    torch.manual_seed(0)
    nlp = spacy.load(trained_path)
    teach_anatomy(nlp)
    path = tmp_path_factory.mktemp("adapted") / "pipeline"
    nlp.to_disk(path)
    return path


@pytest.fixture
def adapted(adapted_path: Path) -> Language:
    return spacy.load(adapted_path)


def parameters(nlp: Language) -> dict[str, torch.Tensor]:
    tagger = get_tagger(component_of(nlp).model)
    assert tagger is not None
    return {name: value.detach().clone() for name, value in tagger.named_parameters()}


def texts(nlp: Language) -> list[str]:
    return [TEXT, *(Writer(nlp, n).doc(3 * n).text for n in range(1, 9))]


def known(docs: Any) -> list[list[Prediction]]:
    """Predictions of the types of the tagger beneath."""
    return [[p for p in predictions(doc) if p[0] in ("Chemical", "Gene")] for doc in docs]


def read(nlp: Language) -> list[list[Prediction]]:
    """What is found in documents alone, in one batch, and in several."""
    several = nlp.pipe(texts(nlp), batch_size=3)
    return known([*map(nlp, texts(nlp)), *nlp.pipe(texts(nlp)), *several])


# What was there before


@pytest.mark.parametrize("base", ["all trained", "adapter", "merged adapter"], indirect=True)
def test_old_types_stay_as_they_are_to_the_bit(base: Language) -> None:
    ner = component_of(base)
    before, weights = read(base), parameters(base)
    assert sum(map(len, before)) > 10
    tagger = get_tagger(ner.model)
    assert tagger is not None
    was_merged = tagger.is_merged

    ner.add_adapter(["Anatomy"], lora=LORA)
    assert ner.types == ("Chemical", "Gene", "Anatomy")
    assert read(base) == before
    # Documents that are annotated for the old types as well, as in a mixed corpus.
    mixed = [*lessons(base), *examples_of([Writer(base, 3).doc(30)])]
    optimizer = Adam(0.01)
    for _ in range(3):
        assert base.update(mixed, sgd=optimizer)["vaner_ner"] > 0
    assert read(base) == before
    after = parameters(base)
    assert all(torch.equal(after[name], value) for name, value in weights.items())
    assert any(name.startswith("adapters.") for name in after)
    assert tagger.is_merged == was_merged
    ner.remove_adapter("Anatomy")
    assert ner.types == ("Chemical", "Gene")
    assert read(base) == before
    assert parameters(base).keys() == weights.keys()


@pytest.mark.timeout(120)
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_old_types_stay_as_they_are_in_several_processes(nlp: Language, adapted: Language) -> None:
    before = known(nlp.pipe(texts(nlp), n_process=2, batch_size=3))
    docs = list(adapted.pipe(texts(nlp), n_process=2, batch_size=3))
    assert known(docs) == before
    assert ("Anatomy", "liver") in found(docs[0])


def test_an_optimiser_of_before_does_not_reach_the_frozen_tagger(nlp: Language) -> None:
    """Its momentum and averages belong to parameters that are frozen now."""
    optimizer = Adam(0.001, use_averages=True, L2=0.1)
    for _ in range(3):
        nlp.update(examples_of([Writer(nlp, 4).doc(20)]), sgd=optimizer)
    before = read(nlp)
    ner = component_of(nlp)
    ner.add_adapter("Anatomy", lora=LORA)
    for _ in range(3):
        nlp.update(lessons(nlp), sgd=optimizer)
    assert read(nlp) == before
    with nlp.use_params(optimizer.averages):
        assert read(nlp) == before
    ner.remove_adapter("Anatomy")
    weights = parameters(nlp)
    # Without adapters the tagger learns again.
    nlp.update(examples_of([Writer(nlp, 4).doc(20)]), sgd=optimizer)
    after = parameters(nlp)
    assert any(not torch.equal(after[name], value) for name, value in weights.items())


# What is new


def test_an_adapter_learns_a_new_type(nlp: Language, adapted: Language) -> None:
    asked = {"vaner_ner": {"types": "Chemical, Gene, Anatomy"}}
    organs = [("Anatomy", "liver"), ("Anatomy", "kidney")]
    assert not set(organs) <= set(found(nlp(TEXT, component_cfg=asked)))
    assert [pair for pair in found(adapted(TEXT)) if pair[0] == "Anatomy"] == organs


def test_a_fresh_adapter_answers_as_the_tagger_beneath(base: Language) -> None:
    asked = {"vaner_ner": {"types": ["Anatomy"]}}
    before = [predictions(doc) for doc in base.pipe(texts(base), component_cfg=asked)]
    component_of(base).add_adapter("Anatomy", lora=LORA)
    after = [predictions(doc) for doc in base.pipe(texts(base), component_cfg=asked)]
    assert after == before


def test_an_adapter_may_stand_in_for_a_known_type(nlp: Language) -> None:
    ner = component_of(nlp)
    before = [predictions(doc) for doc in nlp.pipe(texts(nlp))]
    shake(ner.add_adapter("Gene", lora=LORA))
    docs = list(nlp.pipe(texts(nlp)))
    genes = [[p for p in predictions(doc) if p[0] == "Gene"] for doc in docs]
    assert genes != [[p for p in found if p[0] == "Gene"] for found in before]
    ner.remove_adapter("Gene")
    # The type was there before the adapter and stays.
    assert ner.types == ("Chemical", "Gene")
    assert [predictions(doc) for doc in nlp.pipe(texts(nlp))] == before


@pytest.fixture
def crowded(base: Language) -> Language:
    """Three adapters, one of them for two types, in an order that is not the one of the types."""
    for seed, types in enumerate(["Anatomy", ["Cell", "Gene"], "Organ"]):
        shake(component_of(base).add_adapter(types, lora=Lora(rank=seed + 1)), seed)
    return base


def test_several_adapters_in_one_call_do_not_mix(crowded: Language) -> None:
    ner = component_of(crowded)
    assert ner.types == ("Chemical", "Gene", "Anatomy", "Cell", "Organ")
    together = [predictions(doc) for doc in crowded.pipe(texts(crowded))]
    assert {p[0] for found in together for p in found} == set(ner.types)
    # Types of one adapter share batches, so they are asked together here too.
    for types in (["Anatomy"], ["Gene", "Cell"], ["Organ"], ["Chemical"]):
        asked = {"vaner_ner": {"types": types}}
        alone = [predictions(doc) for doc in crowded.pipe(texts(crowded), component_cfg=asked)]
        assert alone == [[p for p in found if p[0] in types] for found in together]


def test_threads_share_adapters(crowded: Language) -> None:
    def ask(types: str) -> list[Prediction]:
        return predictions(crowded(TEXT, component_cfg={"vaner_ner": {"types": types}}))

    asked = list(component_of(crowded).types) * 6
    alone = list(map(ask, asked))
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(ask, asked)) == alone


def test_only_what_is_trainable_learns(adapted: Language) -> None:
    ner = component_of(adapted)
    (first,) = ner.adapters
    assert repr(first).startswith("Adapter(types=('Anatomy',), lora=Lora(rank=")
    assert not first.trainable
    with pytest.raises(VanerError, match="VE034.*Anatomy.*trainable = True"):
        adapted.update(lessons(adapted), sgd=Adam(0.01))
    second = ner.add_adapter("Organ", lora=LORA)
    assert second.trainable
    before = parameters(adapted)
    # Anatomy is frozen, so these documents teach nothing.
    assert adapted.update(lessons(adapted), sgd=Adam(0.01)) == {"vaner_ner": 0.0}
    after = parameters(adapted)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    first.trainable = True
    assert adapted.update(lessons(adapted), sgd=Adam(0.01))["vaner_ner"] > 0
    after = parameters(adapted)
    changed = {name for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed and all(name.startswith("adapters.0.") for name in changed)


def test_adapters_follow_the_precision(adapted: Language) -> None:
    component_of(adapted).precision = "bf16"
    assert ("Anatomy", "liver") in found(adapted(TEXT))
    component_of(adapted).adapters[0].trainable = True
    assert adapted.update(lessons(adapted), sgd=Adam(0.001))["vaner_ner"] < 0.2


def test_gradient_checkpointing_reaches_adapters(lora_path: Path) -> None:
    """The layers run again in the backward pass, after the pass that put the adapter on."""
    learned = []
    for gradient_checkpointing in (False, True):
        torch.manual_seed(0)
        backbone = {"gradient_checkpointing": gradient_checkpointing}
        config = {"components": {"vaner_ner": {"model": {"backbone": backbone}}}}
        nlp = spacy.load(lora_path, config=config)
        adapter = component_of(nlp).add_adapter("Anatomy", lora=LORA)
        shake(adapter)
        nlp.update(lessons(nlp), sgd=Adam(0.01))
        learned.append(list(adapter.parameters()))
        tagger = get_tagger(component_of(nlp).model)
        assert tagger is not None
        modules = [m for m in tagger.backbone.modules() if getattr(m, "gradient_checkpointing", 0)]
        assert bool(modules) == gradient_checkpointing and all(m.training for m in modules)
    for one, other in zip(*learned, strict=True):
        torch.testing.assert_close(one, other)


# Saving


def test_adapters_are_saved_with_the_component(
    crowded: Language, tmp_path: Path, lora_path: Path
) -> None:
    expected = [predictions(doc) for doc in crowded.pipe(texts(crowded))]
    component_of(crowded).add_label("Brandnew")
    asked = {"vaner_ner": {"types": ["Chemical", "Gene", "Anatomy", "Cell", "Organ"]}}
    crowded.to_disk(tmp_path / "saved")
    tagger = get_tagger(component_of(crowded).model)
    assert tagger is not None
    if tagger.is_merged:
        # On loading nothing is merged.
        tagger.unmerge_adapter()
        expected = [predictions(doc) for doc in crowded.pipe(texts(crowded), component_cfg=asked)]
    loaded = spacy.load(tmp_path / "saved")
    from_bytes = spacy.blank("en").from_config(crowded.config).from_bytes(crowded.to_bytes())
    pickled = pickle.loads(pickle.dumps(component_of(crowded)))
    for ner in (component_of(loaded), component_of(from_bytes), pickled):
        assert [adapter.types for adapter in ner.adapters] == [
            ("Anatomy",),
            ("Cell", "Gene"),
            ("Organ",),
        ]
    for nlp in (loaded, from_bytes):
        docs = nlp.pipe(texts(nlp), component_cfg=asked)
        assert [predictions(doc) for doc in docs] == expected
    docs = pickled.pipe(
        (crowded.make_doc(text) for text in texts(crowded)), types=asked["vaner_ner"]["types"]
    )
    assert [predictions(doc) for doc in docs] == expected
    # What an adapter brought goes with it, also after loading; what the tagger had stays.
    ner = component_of(loaded)
    for types in ("Anatomy", ["Gene", "Cell"], "Organ"):
        ner.remove_adapter(types)
    assert ner.types == ("Chemical", "Gene", "Brandnew")


@pytest.fixture
def folder(adapted_path: Path, tmp_path: Path) -> Path:
    """An adapter in a folder of its own: within a saved pipeline they have the same form."""
    stored = adapted_path / "vaner_ner" / "adapters" / "0"
    return Path(shutil.copytree(stored, tmp_path / "anatomy"))


def test_an_adapter_goes_from_pipeline_to_pipeline(
    folder: Path, nlp: Language, adapted: Language
) -> None:
    ner = component_of(nlp)
    adapter = ner.load_adapter(folder)
    assert adapter.types == ("Anatomy",) and adapter.lora == LORA
    for one, other in zip(nlp.pipe(texts(nlp)), adapted.pipe(texts(nlp)), strict=True):
        assert predictions(one) == predictions(other)
    assert not adapter.trainable
    adapter.trainable = True
    assert nlp.update(lessons(nlp), sgd=Adam(0.001))["vaner_ner"] < 0.2


def test_an_adapter_is_small(adapted: Language, folder: Path, tmp_path: Path) -> None:
    """Two matrices for each of the seven linear layers of both blocks, in fp32, and a head."""
    saved = tmp_path / "saved"
    component_of(adapted).save_adapter("Anatomy", saved)
    assert {path.name for path in saved.iterdir()} == {"adapter.json", "adapter.safetensors"}
    hidden, inner = 32, 64
    n_parameters = 2 * LORA.rank * (4 * (hidden + hidden) + 3 * (hidden + inner)) + 3 * hidden + 3
    size = (saved / "adapter.safetensors").stat().st_size
    assert 4 * n_parameters < size < 4 * n_parameters + 6_000
    for path in folder.iterdir():
        assert (saved / path.name).read_bytes() == path.read_bytes()


def with_adapters(path: Path, *entries: tuple[Any, Path]) -> Language:
    adapters = [{"types": types, "path": str(place)} for types, place in entries]
    return spacy.load(path, config={"components": {"vaner_ner": {"adapters": adapters}}})


def test_a_config_puts_adapters_on(
    folder: Path, trained_path: Path, adapted: Language, tmp_path: Path
) -> None:
    nlp = with_adapters(trained_path, (["Anatomy"], folder))
    assert component_of(nlp).types == ("Chemical", "Gene", "Anatomy")
    assert found(nlp(TEXT)) == found(adapted(TEXT))
    nlp.to_disk(tmp_path / "saved")
    # They are stored with the pipeline: the folder is not needed any more.
    moved = folder.rename(tmp_path / "moved")
    again = spacy.load(tmp_path / "saved")
    assert predictions(again(TEXT)) == predictions(nlp(TEXT))
    # An override wins …
    without = with_adapters(tmp_path / "saved")
    assert component_of(without).adapters == ()
    assert component_of(without).types == ("Chemical", "Gene")
    from_elsewhere = with_adapters(tmp_path / "saved", (["Anatomy"], moved))
    assert predictions(from_elsewhere(TEXT)) == predictions(nlp(TEXT))
    # … and what was removed does not come back.
    component_of(again).remove_adapter("Anatomy")
    again.to_disk(tmp_path / "removed")
    assert component_of(spacy.load(tmp_path / "removed")).adapters == ()


def test_an_override_keeps_what_was_trained_here(adapted_path: Path, tmp_path: Path) -> None:
    nlp = spacy.load(adapted_path)
    ner = component_of(nlp)
    ner.remove_adapter("Anatomy")
    shake(ner.add_adapter("Organ", lora=LORA))
    ner.save_adapter("Organ", tmp_path / "organ")
    both = with_adapters(adapted_path, (["Organ"], tmp_path / "organ"))
    assert component_of(both).types == ("Chemical", "Gene", "Anatomy", "Organ")
    assert [adapter.types for adapter in component_of(both).adapters] == [("Anatomy",), ("Organ",)]


# What does not fit


def test_an_adapter_over_another_tagger_is_refused(
    folder: Path, nlp: Language, lora_nlp: Callable[[], Language]
) -> None:
    nlp.update(examples_of([Writer(nlp).doc(20)]), sgd=Adam(1e-5))
    for other in (nlp, lora_nlp()):
        with pytest.raises(VanerError, match="VE183.*anatomy.*another tagger"):
            component_of(other).load_adapter(folder)
        assert component_of(other).adapters == ()
        assert component_of(other).types == ("Chemical", "Gene")


def test_an_adapter_belongs_to_the_adapter_beneath(
    lora_nlp: Callable[[], Language], tmp_path: Path
) -> None:
    """The same backbone is not enough where the tagger is an adapter itself; its head is free."""
    ner = component_of(lora_nlp())
    shake(ner.add_adapter("Anatomy", lora=LORA))
    ner.save_adapter("Anatomy", tmp_path / "anatomy")
    other = component_of(lora_nlp())
    tagger = get_tagger(other.model)
    assert tagger is not None
    tagger.head.weight.data.add_(1)
    other.load_adapter(tmp_path / "anatomy")
    other.remove_adapter("Anatomy")
    next(p for name, p in tagger.named_parameters() if "lora_B" in name).data.add_(0.1)
    with pytest.raises(VanerError, match="VE183"):
        other.load_adapter(tmp_path / "anatomy")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def garble(path: Path) -> None:
    path.write_bytes(b"{not json")


def change(key: str, value: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text("utf8")), key: value}), "utf8")

    return write


@pytest.mark.parametrize(
    "name, damage, message",
    [
        ("adapter.json", Path.unlink, "VE181.*no adapter.json"),
        ("adapter.safetensors", Path.unlink, "VE181.*no adapter.safetensors"),
        ("adapter.json", garble, "VE182"),
        ("adapter.json", lambda path: path.write_text("[]"), "VE182"),
        ("adapter.json", change("format_version", 9), "VE182.*format 9"),
        ("adapter.json", change("types", None), "VE182"),
        ("adapter.json", change("lora", None), "VE102.*adapter"),
        ("adapter.json", change("base", "x"), "VE183"),
        ("adapter.json", change("lora", {**LORA.to_dict(), "rank": 5}), "VE184.*28"),
        ("adapter.safetensors", cut, "VE185.*hash"),
    ],
)
def test_a_damaged_adapter_is_refused(
    name: str, damage: Callable[[Path], object], message: str, folder: Path, shared_nlp: Language
) -> None:
    damage(folder / name)
    with pytest.raises(VanerError, match=message):
        component_of(shared_nlp).load_adapter(folder)
    assert component_of(shared_nlp).adapters == ()


def test_a_pipeline_does_not_load_without_an_adapter_that_it_had(
    adapted_path: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(adapted_path, tmp_path / "copy"))
    stored = copy / "vaner_ner" / "adapters" / "0"
    cut(stored / "adapter.safetensors")
    with pytest.raises(VanerError, match="VE185.*adapters/0"):
        spacy.load(copy)
    shutil.rmtree(stored)
    with pytest.raises(VanerError, match="VE181.*adapters/0"):
        spacy.load(copy)


def test_another_instruction_is_refused(folder: Path, load: Callable[..., Language]) -> None:
    wording = {"without_corpus": "find {type}: ", "with_corpus": "find {type} as in {corpus}: "}
    instruction = {"@misc": "spacy-vaner.template_instruction.v1", **wording}
    nlp = load(model={"instruction": instruction})
    with pytest.raises(VanerError, match=r"VE036.*'Anatomy: '.*'find Anatomy: '"):
        component_of(nlp).load_adapter(folder)


def test_a_type_has_one_adapter(adapted: Language, folder: Path) -> None:
    ner = component_of(adapted)
    with pytest.raises(VanerError, match=r"VE031.*Anatomy.*remove_adapter\(\['Anatomy'\]\)"):
        ner.add_adapter(["Organ", "Anatomy"])
    with pytest.raises(VanerError, match="VE031"):
        ner.load_adapter(folder)
    assert len(ner.adapters) == 1
    for types in (["Organ"], ["Anatomy", "Organ"]):
        with pytest.raises(VanerError, match="VE032.*Organ.*Anatomy"):
            ner.remove_adapter(types)
        with pytest.raises(VanerError, match="VE032"):
            ner.save_adapter(types, folder)
    with pytest.raises(VanerError, match="VE022"):
        ner.add_adapter("a:b")


def test_layers_that_are_not_there(nlp: Language) -> None:
    with pytest.raises(VanerError, match=r"VE180.*\['query'\].*q_proj"):
        component_of(nlp).add_adapter("Anatomy", lora=Lora(targets=("query",)))
    with pytest.raises(VanerError, match=r"VE180.*\['vproj'\]"):
        component_of(nlp).add_adapter("Anatomy", lora=Lora(targets=("q_proj", "vproj")))
    component_of(nlp).add_adapter("Anatomy", lora=Lora(targets=("q_proj", "v_proj")))
    assert len(component_of(nlp).adapters[0].layers) == 4


@pytest.mark.parametrize(
    "entry",
    [
        {"types": ["Anatomy"]},
        {"path": "anatomy"},
        {"types": ["Anatomy"], "path": "anatomy", "rank": "3"},
        {"types": ["Anatomy"], "path": ["anatomy"]},
    ],
)
def test_a_config_with_another_form_is_refused(
    entry: dict[str, Any], load: Callable[..., Language]
) -> None:
    with pytest.raises(VanerError, match="VE035.*keys types.*path"):
        load(adapters=[entry])


def test_a_config_that_names_other_types_is_refused(folder: Path, trained_path: Path) -> None:
    with pytest.raises(VanerError, match=r"VE037.*\['Anatomy'\].*\['Organ'\]"):
        with_adapters(trained_path, (["Organ"], folder))
    with pytest.raises(VanerError, match="VE181.*nowhere"):
        with_adapters(trained_path, (["Organ"], folder / "nowhere"))


def test_initialize_leaves_no_adapter_without_its_tagger(
    adapted: Language, folder: Path, make_nlp: Callable[..., Language]
) -> None:
    fresh = make_nlp(adapters=[{"types": ["Anatomy"], "path": str(folder)}])
    for nlp in (adapted, fresh):
        with pytest.raises(VanerError, match="VE033.*Anatomy"):
            nlp.initialize()
    component_of(adapted).remove_adapter("Anatomy")
    adapted.initialize()


def test_a_component_without_weights_has_nothing_to_adapt(
    make_nlp: Callable[..., Language], tmp_path: Path
) -> None:
    ner = component_of(make_nlp())
    assert ner.adapters == ()
    calls: list[Callable[[], object]] = [
        lambda: ner.add_adapter("Anatomy"),
        lambda: ner.remove_adapter("Anatomy"),
        lambda: ner.save_adapter("Anatomy", tmp_path),
        lambda: ner.load_adapter(tmp_path),
    ]
    for call in calls:
        with pytest.raises(VanerError, match="E109"):
            call()


# spacy train


def training_config(nlp: Language, source: Path, folder: Path, **callback: Any) -> Path:
    """A config that sources a trained pipeline and puts an adapter on it."""
    docs = [example.reference for example in lessons(nlp)]
    DocBin(docs=docs, store_user_data=True).to_disk(folder / "organs.spacy")
    corpus = {"@readers": "spacy-vaner.Corpus.v1", "paths": str(folder / "organs.spacy")}
    config = spacy.blank("en").config.interpolate()
    config["nlp"]["pipeline"] = ["vaner_ner"]
    config["components"] = {"vaner_ner": {"source": str(source)}}
    config["corpora"] = {"train": corpus, "dev": corpus}
    config["training"].update(max_steps=20, eval_frequency=10, max_epochs=-1)
    config["training"]["optimizer"].update(learn_rate=0.01, use_averages=True)
    config["training"]["score_weights"] = {"vaner_f": 1.0}
    config["initialize"]["before_init"] = {
        "@callbacks": "spacy-vaner.add_adapter.v1",
        "types": ["Anatomy"],
        "lora": {"@misc": "spacy-vaner.lora.v1", "rank": 8, "dropout": 0.0},
        **callback,
    }
    Config(config).to_disk(folder / "config.cfg", interpolate=False)
    return folder / "config.cfg"


def test_spacy_train_puts_an_adapter_over_a_trained_pipeline(
    nlp: Language, trained_path: Path, tmp_path: Path
) -> None:
    config = training_config(nlp, trained_path, tmp_path)
    train(config, tmp_path / "output")
    trained = spacy.load(tmp_path / "output" / "model-best")
    ner = component_of(trained)
    assert [adapter.types for adapter in ner.adapters] == [("Anatomy",)]
    assert ("Anatomy", "liver") in found(trained(TEXT))
    assert read(trained) == read(nlp)


def test_spacy_train_needs_the_component_that_it_names(
    nlp: Language, trained_path: Path, tmp_path: Path
) -> None:
    config = training_config(nlp, trained_path, tmp_path, component="ner")
    with pytest.raises(VanerError, match="VE038.*'ner'.*vaner_ner"):
        train(config, tmp_path / "output")
