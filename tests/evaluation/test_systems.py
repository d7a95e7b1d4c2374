"""Every adaptor on a small real model of its class, built here."""

from __future__ import annotations

import json
import typing
from pathlib import Path
from typing import Any

import pytest
import spacy
from spacy.language import Language
from spacy.tokens import DocBin
from spacy.training import Example

from spacy_vaner.errors import VanerError
from spacy_vaner.evaluation.predictions import FoundSpan
from spacy_vaner.evaluation.systems import KINDS, load_system
from spacy_vaner.evaluation.systems.base import Question, System, SystemMissing, SystemSpec
from spacy_vaner.evaluation.systems.names import NameList, lists_of_mentions
from spacy_vaner.evaluation.systems.scispacy import LABEL_MAPS
from spacy_vaner.gold import KEY, Gold, get_ask
from spacy_vaner.types import Mention

TEXT = "Aspirin eases head pain in mice. TNF does not."
ASKED = Question(TEXT, types=("Disease", "Chemical"))


def load(kind: str, where: object = "", **rest: Any) -> System:
    return load_system(SystemSpec("a", kind, str(where), **rest))


def found(system: System, question: Question = ASKED) -> list[tuple[str, str]]:
    (spans,) = system.predict([question])
    return [(span.type, question.text[span.start : span.end]) for span in spans]


def check(spans: list[FoundSpan], text: str) -> None:
    """Offsets lie in the text, do not begin or end in a blank, and probabilities are some."""
    for span in spans:
        part = text[span.start : span.end]
        assert part and part == part.strip()
        assert span.probability is None or 0 <= span.probability <= 1


def ruler(path: Path) -> Path:
    """A pipeline with other labels than our types."""
    nlp = spacy.blank("en")
    patterns = [{"label": "CHEMICAL", "pattern": "Aspirin"}, {"label": "OTHER", "pattern": "mice"}]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)  # type: ignore[attr-defined]
    nlp.to_disk(path)
    return path


def test_a_pipeline_answers_in_our_types_and_counts_labels_without_one(tmp_path: Path) -> None:
    where = ruler(tmp_path / "ruler")
    system = load("spacy", where, label_map={"CHEMICAL": "Chemical"})
    assert found(system) == [("Chemical", "Aspirin"), ("OTHER", "mice")]
    assert system.types == {"Chemical", "OTHER"}
    assert system.unmapped == {"OTHER": 1}
    assert system.size_bytes and system.size_bytes > 100


def test_a_pipeline_without_entities_is_refused(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("sentencizer")
    nlp.to_disk(tmp_path / "p")
    with pytest.raises(VanerError, match="VE408"):
        load("spacy", tmp_path / "p")


def test_words_of_the_corpus_are_given_to_pipelines(tmp_path: Path) -> None:
    system = load("spacy", ruler(tmp_path / "ruler"))
    words = ("Aspirin-", "like")
    question = Question("Aspirin-like", ("CHEMICAL",), words=words, spaces=(False, False))
    assert found(system, question) == []
    assert found(system, Question("Aspirin-like", ("CHEMICAL",))) == [("CHEMICAL", "Aspirin")]


ASKS: list[Any] = []


@Language.component("test_keeps_asks", assigns=["doc.ents"])
def keeps_asks(doc: Any) -> Any:
    ASKS.append(get_ask(doc))
    return doc


def test_no_corpus_name_is_another_question_than_none_known(tmp_path: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("test_keeps_asks")
    nlp.to_disk(tmp_path / "p")
    system = load("spacy", tmp_path / "p")
    ASKS.clear()
    for names in (None, {}, {"Gene": "JNLPBA"}):
        list(system.predict([Question(TEXT, ("Gene",), names)]))
    list(system.predict([Question(TEXT)]))
    types = {"types": ["Gene"]}
    named = {**types, "corpus": {"Gene": "JNLPBA"}}
    assert [{**types, "corpus": None}, types, named, {}] == ASKS


def test_a_vaner_pipeline_is_asked_for_types_and_corpus(tmp_path: Path) -> None:
    from tests.support.tiny_tagger import TINY

    nlp = spacy.blank("en")
    nlp.add_pipe("vaner_ner", config={**TINY, "label_map": {"Chemical": "CHEM"}})
    nlp.initialize(lambda: [Example.from_dict(nlp.make_doc(TEXT), {"entities": []})])
    nlp.to_disk(tmp_path / "p")
    system = load("vaner", tmp_path / "p")
    assert system.types == {"Chemical", "Gene"}
    for spans in system.predict([Question(TEXT, ("Gene",), {"Gene": "JNLPBA"}), Question(TEXT)]):
        check(spans, TEXT)
    # The random tagger finds something, and nothing but what is asked.
    (spans,) = system.predict([Question(TEXT * 3, ("Gene",))])
    assert {span.type for span in spans} <= {"Gene"}
    assert all(span.probability is not None for span in spans)
    (told,) = system.facts["component_settings"].values()
    assert told == {
        **{"threshold": 0.0, "repeat_threshold": None, "asking": "per_type"},
        **{"engine": "torch", "precision": "fp32"},
    }


def test_a_vaner_without_a_place_is_the_one_of_the_package_on_the_engine_that_is_named() -> None:
    settings = {"engine": "torch", "precision": "fp32"}
    system = load_system(SystemSpec("ours", "vaner", settings=settings))
    component = system.nlp.get_pipe("vaner_ner")  # type: ignore[attr-defined]
    assert (component.engine, component.precision) == ("torch", "fp32")
    with pytest.raises(VanerError, match="VE026: engine"):
        load_system(SystemSpec("ours", "vaner", settings={"engine": "steam"}))


def test_a_vaner_is_asked_with_the_thresholds_that_its_row_names() -> None:
    settings: dict[str, Any] = {"threshold": {"Gene": 0.5}, "repeat_threshold": None}
    system = load_system(SystemSpec("ours", "vaner", settings=settings))
    (told,) = system.facts["component_settings"].values()
    assert (told["threshold"], told["repeat_threshold"]) == ({"Gene": 0.5}, None)
    for wrong, message in (({"threshold": 2}, "VE027"), ({"repeat_threshold": "no"}, "VE042")):
        with pytest.raises(VanerError, match=message):
            load_system(SystemSpec("ours", "vaner", settings=wrong))


def test_the_untrained_cnn_reads_texts() -> None:
    system = load("cnn")
    (spans,) = system.predict([Question(TEXT)])
    check(spans, TEXT)


def test_scispacys_labels_become_our_types(tmp_path: Path) -> None:
    # The released models are spaCy pipelines of these names; here one with their labels.
    nlp = spacy.blank("en")
    patterns = [{"label": "TAXON", "pattern": "mice"}, {"label": "GGP", "pattern": "TNF"}]
    nlp.add_pipe("entity_ruler").add_patterns(patterns)  # type: ignore[attr-defined]
    nlp.to_disk(tmp_path / "en_ner_craft_md")
    system = load("scispacy", tmp_path / "en_ner_craft_md")
    assert found(system) == [("Species", "mice"), ("Gene", "TNF")]
    assert not system.unmapped


@pytest.mark.external
@pytest.mark.parametrize("model", LABEL_MAPS)
def test_label_maps_cover_the_released_models(model: str) -> None:
    if not spacy.util.is_package(model):
        pytest.skip(f"{model} is not installed")
    nlp = spacy.load(model)
    assert set(nlp.get_pipe("ner").labels) <= set(LABEL_MAPS[model])  # type: ignore[attr-defined]


def write_training_file(path: Path) -> Path:
    nlp = spacy.blank("en")
    docs = []
    for text, spans in (
        ("Aspirin and folic acid.", [("Chemical", 0, 7), ("Chemical", 12, 22)]),
        ("The acid test: folic acid.", [("Chemical", 15, 25)]),
        ("An acid. Acid acid.", [("Chemical", 3, 7)]),
        ("The cat gene CAT.", [("Gene", 13, 16)]),
    ):
        doc = nlp.make_doc(text)
        mentions = tuple(Mention(type, ((start, end),)) for type, start, end in spans)
        doc.user_data[KEY] = Gold(types=("Chemical", "Gene"), mentions=mentions).to_user_data()
        docs.append(doc)
    DocBin(docs=docs, store_user_data=True).to_disk(path)
    return path


def test_the_dictionary_takes_the_longest_names_that_training_mostly_annotates(
    tmp_path: Path,
) -> None:
    write_training_file(tmp_path / "a.train.spacy")
    system = load("dictionary", tmp_path)
    text = "Folic  acid, acid, aspirin; a cat has CAT."
    assert found(system, Question(text, ("Chemical", "Gene"))) == [
        ("Chemical", "Folic  acid"),
        ("Chemical", "aspirin"),
        ("Gene", "CAT"),
    ]
    assert found(system, Question(text, ("Gene",))) == [("Gene", "CAT")]
    every = lists_of_mentions([tmp_path / "a.train.spacy"], min_share=0.0)
    assert [span for _, span in every["Chemical"].find([("acid", 0, 4)])] == [(0, 4)]


def test_names_do_not_overlap() -> None:
    words = [("a", 0, 1), ("b", 2, 3), ("c", 4, 5)]
    spans = [span for _, span in NameList(["a b", "b c", "c"]).find(words)]
    assert spans == [(0, 3), (4, 5)]


def test_the_dictionary_reads_a_knowledge_base(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    from spacy_vaner.knowledge.sources.base import Entry
    from spacy_vaner.knowledge.store import BuildReport, build

    entries = [Entry("head pain", "Disease", "D1", "test"), Entry("mice", "Species", "S1", "test")]
    build(entries, BuildReport()).to_file(tmp_path / "kb.parquet")
    system = load("dictionary", tmp_path / "kb.parquet")
    assert found(system, Question(TEXT)) == [("Disease", "head pain"), ("Species", "mice")]


HEAVY = [
    pytest.param(kind, marks=[pytest.mark.slow, pytest.mark.filterwarnings("default")])
    for kind in ("flair", "gliner", "llm")
]
"""Kinds whose packages take seconds to import, and warn."""


@pytest.mark.parametrize("kind", [*sorted(set(KINDS) - {"cnn", "flair", "gliner", "llm"}), *HEAVY])
def test_what_is_not_there_is_said(kind: str, tmp_path: Path) -> None:
    with pytest.raises(SystemMissing, match=r"VE46\d"):
        load(kind, tmp_path / "nothing")


def test_an_unknown_kind_and_a_wrong_row_are_refused() -> None:
    with pytest.raises(VanerError, match="VE460.*dictionary"):
        load("oracle")
    with pytest.raises(VanerError, match="VE461"):
        SystemSpec.from_dict({"name": "a", "kind": "spacy", "labels": {}})


def test_a_row_survives_json() -> None:
    spec = SystemSpec("a", "spacy", "b", label_map={"X": "Y"}, seen=("BC5CDR",))
    assert SystemSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def tiny_bert(folder: Path) -> Path:
    """A BERT of a few thousand random parameters with a tokenizer, as the hub would give it."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    letters = [chr(code) for code in range(33, 127)]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    vocab += [f"##{letter}" for letter in letters]
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(vocab), encoding="utf8")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(vocab), intermediate_size=16, **sizes)
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of spacy-transformers and torch's autocast
def test_an_encoder_with_spacys_ner_is_a_pipeline(tmp_path: Path) -> None:
    pytest.importorskip("spacy_transformers")
    from spacy.util import load_config, load_model_from_config

    encoder = tiny_bert(tmp_path / "bert")
    path = Path(__file__).parents[2] / "project/configs/transformer.cfg"
    overrides = {"paths.encoder": str(encoder)}
    nlp: Language = load_model_from_config(load_config(path, overrides, interpolate=True))
    example = Example.from_dict(nlp.make_doc(TEXT), {"entities": [(0, 7, "Chemical")]})
    nlp.initialize(lambda: [example])
    nlp.update([example])
    nlp.to_disk(tmp_path / "p")
    system = load("spacy", tmp_path / "p")
    assert system.types == {"Chemical"}
    (spans,) = system.predict([Question(TEXT)])
    check(spans, TEXT)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of gliner and what it imports
def test_gliner_reads_long_texts_in_chunks(tmp_path: Path) -> None:
    gliner = pytest.importorskip("gliner")
    encoder = tiny_bert(tmp_path / "bert")
    config = gliner.GLiNERConfig(
        model_name=str(encoder), hidden_size=16, max_width=4, max_len=20, fine_tune=True
    )
    model = gliner.GLiNER.from_config(config)
    model.save_pretrained(str(tmp_path / "gliner"))
    settings = {"threshold": 0.0, "max_words": 10}
    system = load("gliner", tmp_path / "gliner", settings=settings)
    assert system.types is None
    text = f"{TEXT} {TEXT} {TEXT} {'word ' * 30}end mice."
    (spans,) = system.predict([Question(text, ("Disease", "Species"))])
    check(spans, text)
    assert {span.type for span in spans} <= {"Disease", "Species"}
    assert max(span.end for span in spans) > len(text) - 20


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of flair and what it imports
def test_flair_gives_offsets_into_the_document(tmp_path: Path) -> None:
    pytest.importorskip("flair")
    from flair.data import Dictionary
    from flair.embeddings import TransformerWordEmbeddings
    from flair.models import SequenceTagger

    encoder = tiny_bert(tmp_path / "bert")
    tags = Dictionary(add_unk=False)
    tags.span_labels = True
    for type in ("Chemical", "Species"):
        tags.add_item(type)
    tagger = SequenceTagger(
        TransformerWordEmbeddings(str(encoder), layers="-1", fine_tune=True),
        tag_dictionary=tags,
        tag_type="ner",
        use_rnn=False,
        use_crf=False,
        reproject_embeddings=False,
    )
    # Untrained, it would find nothing or everything: make it take every word for a species.
    tagger.linear.bias.data[tagger.label_dictionary.get_idx_for_item("S-Species")] = 10.0
    tagger.save(tmp_path / "tagger.pt")
    system = load("flair", tmp_path / "tagger.pt")
    assert system.types == {"Chemical", "Species"}
    text = f"{TEXT}  {TEXT}"
    (spans,) = system.predict([Question(text)])
    check(spans, text)
    assert {("Species", text.index("mice"), text.index("mice") + 4, 1.0)} <= {
        (span.type, span.start, span.end, round(span.probability or 0, 1)) for span in spans
    }
    assert [text[span.start : span.end] for span in spans][-3:] == ["does", "not", "."]


LLM = """
[nlp]
lang = "en"
pipeline = ["llm"]

[components]

[components.llm]
factory = "llm"

[components.llm.task]
@llm_tasks = "spacy.NER.v3"
labels = ["Chemical", "Disease"]

[components.llm.model]
@llm_models = "tests.Answers.v1"
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # of spacy-llm and what it imports
def test_a_prompted_model_is_a_pipeline(tmp_path: Path) -> None:
    pytest.importorskip("spacy_llm")
    from spacy_llm.registry import registry

    @registry.llm_models("tests.Answers.v1")
    def make_model() -> Any:
        # The answer of a model that understood the prompt.
        answer = "1. Aspirin | True | Chemical | a drug\n2. head pain | True | Disease | a symptom"

        # spacy-llm checks for typing's own Iterable.
        def model(
            prompts: typing.Iterable[typing.Iterable[Any]],
        ) -> typing.Iterable[typing.Iterable[Any]]:
            return [[answer for _ in texts] for texts in prompts]

        return model

    path = tmp_path / "few_shot.cfg"
    path.write_text(LLM, encoding="utf8")
    system = load("llm", path)
    assert found(system) == [("Chemical", "Aspirin"), ("Disease", "head pain")]
