"""The server: right answers, refusals in a sentence, and nothing that is waited for in vain."""

# ruff: noqa: E402  # what an extra brings is asked for before it is imported
from __future__ import annotations

import json
import logging
import re
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import spacy
from spacy.language import Language

pytest.importorskip("fastapi", reason="fastapi is in the extra [serve]")
httpx = pytest.importorskip("httpx", reason="httpx is in requirements-dev.txt")

from spacy_vaner.annotation.document import Document, whole
from spacy_vaner.annotation.server.batches import Batches, Closed, Failed
from spacy_vaner.annotation.server.bodies import ServerLimits
from spacy_vaner.errors import VanerError
from spacy_vaner.model import get_tagger
from tests.support.serving import MODEL, serving

LIMITS = ServerLimits(body_bytes=60_000, documents=20, characters=20_000, types=3, waiting=64)
TEXT = {"content-type": "text/plain"}


@pytest.fixture(scope="module")
def served(pipeline):
    """The address of a server of the tiny tagger."""
    with serving(lambda: spacy.load(pipeline), LIMITS) as address:
        yield address


@pytest.fixture(scope="module")
def client(served):
    with httpx.Client(base_url=served, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def nlp(pipeline):
    return spacy.load(pipeline)


def ents_of(nlp, text, **asked):
    """What a row of the answer holds, from the pipeline itself."""
    doc = nlp(text, component_cfg={"vaner_ner": asked} if asked else {})
    return [[s, e, t, text[s:e]] for t, s, e, _ in doc.user_data["vaner_predictions"]]


def scores_of(nlp, text, **asked):
    doc = nlp(text, component_cfg={"vaner_ner": asked} if asked else {})
    return [p for *_, p in doc.user_data["vaner_predictions"]]


def rows_of(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["documents"]


# Answers


@pytest.mark.parametrize(
    "text", ["zinc and BRCA1", "", " \n", "😀 zinc\r\nde\u0301ja\u0300 vu \x00 <b>p53</b> &lt;"]
)
def test_a_text_is_answered_as_the_pipeline_would(client, nlp, text):
    answer = client.post("/annotate", content=text.encode(), headers=TEXT)
    (row,) = rows_of(answer)
    assert (row["id"], row["text"]) == ("1", text)
    assert row["ents"] == ents_of(nlp, text)
    assert row.get("scores", []) == pytest.approx(scores_of(nlp, text), abs=1e-4)
    assert answer.json()["model"] == MODEL
    assert all(text[start:end] == said for start, end, _, said in row["ents"])


def test_documents_of_a_batch_keep_their_order_their_ids_and_their_other_keys(client, nlp, texts):
    documents = [{"text": text} for text in texts]
    documents[2].update(id="PMC7", pmid=12, year=[1999])
    rows = rows_of(client.post("/annotate", json={"documents": documents}))
    assert [row["text"] for row in rows] == texts
    assert [row["ents"] for row in rows] == [ents_of(nlp, text) for text in texts]
    assert [row["id"] for row in rows][:4] == ["1", "2", "PMC7", "4"]
    assert (rows[2]["pmid"], rows[2]["year"]) == ("12", [1999])


def test_what_a_document_is_annotated_with_stays(client):
    document = {"text": "zinc and iron", "ents": [[9, 13, "Metal", "iron", "MESH:D007501"]]}
    (row,) = rows_of(client.post("/annotate?types=Chemical", json=document))
    assert row["ents"] == [[9, 13, "Metal", "iron", "MESH:D007501"], [0, 4, "Chemical", "zinc"]]
    assert row["scores"][0] is None and row["models"] == [None, MODEL]


@pytest.mark.parametrize(
    "settings, asked",
    [
        ({"types": "Gene"}, {"types": ["Gene"]}),
        ({"types": ["Gene", "Chemical"], "corpus": "X"}, {"corpus": "X"}),
        (
            {"corpus": "Gene=G,Chemical=C"},
            {"corpus": {"Gene": "G", "Chemical": "C"}},
        ),
    ],
)
def test_types_and_corpus_are_asked_per_request(client, nlp, texts, settings, asked):
    documents = {"documents": [{"text": text} for text in texts]}
    rows = rows_of(client.post("/annotate", params=settings, json=documents))
    assert [row["ents"] for row in rows] == [ents_of(nlp, text, **asked) for text in texts]


def test_spans_below_the_threshold_are_left_out(client, nlp, texts):
    text = " ".join(texts)
    scores = sorted(scores_of(nlp, text))
    middle = round(scores[len(scores) // 2], 3)
    answer = client.post("/annotate", params={"threshold": middle}, json={"text": text})
    (row,) = rows_of(answer)
    assert 0 < len(row["ents"]) < len(scores)
    assert min(row["scores"]) >= middle


def test_bioc_comes_back_as_bioc_with_all_that_was_in_it(client):
    document = {
        "id": "7",
        "infons": {"journal": "x"},
        "passages": [
            {"offset": 0, "infons": {"type": "title"}, "text": "of zinc 😀", "annotations": []},
            {"offset": 10, "text": "and BRCA1", "relations": [{"id": "R1", "nodes": []}]},
        ],
    }
    given = {"source": "PMC", "date": "today", "key": "k", "documents": [document]}
    answer = client.post("/annotate", json=given)
    found = answer.json()
    assert (found["source"], found["key"]) == ("PMC", "k")
    (row,) = found["documents"]
    added = [one for passage in row["passages"] for one in passage.pop("annotations")]
    assert [(one["text"], one["infons"]["type"]) for one in added] == [
        ("zinc", "Chemical"),
        ("BRCA1", "Gene"),
    ]
    assert [one["locations"] for one in added] == [
        [{"offset": 3, "length": 4}],
        [{"offset": 14, "length": 5}],
    ]
    assert {one["infons"]["model"] for one in added} == {MODEL}
    document["passages"][0].pop("annotations")
    assert row == document
    # The document alone, without a collection around it.
    (alone,) = client.post("/annotate", json=document).json()["documents"]
    assert alone["passages"][0]["annotations"] and alone["infons"] == {"journal": "x"}


def test_answers_come_in_the_form_that_is_asked(client):
    documents = {"documents": [{"id": "a", "text": "A title.\nOf zinc."}, {"text": "none"}]}

    def ask(to):
        answer = client.post("/annotate", params={"to": to}, json=documents)
        assert answer.status_code == 200
        return answer

    lines = [json.loads(line) for line in ask("jsonl").text.splitlines()]
    assert lines == ask("json").json()["documents"]
    assert ask("pubtator").text == (
        "a|t|A title.\na|a|Of zinc.\na\t12\t16\tzinc\tChemical\t-\n\n2|t|none\n\n"
    )
    bioc = ask("bioc_json").json()
    assert bioc["documents"][0]["passages"][0]["annotations"][0]["text"] == "zinc"


def test_spans_over_the_end_of_a_passage_are_counted(client):
    # "folic acid" is one mention for the tagger, and two passages for the source.
    document = {
        "text": "of folic acid was",
        "passages": [{"start": 0, "end": 8}, {"start": 9, "end": 17}],
    }
    answer = client.post("/annotate?types=Chemical", json=document)
    assert answer.json()["across_passages"] == 1
    assert answer.json()["documents"][0]["ents"] == []


def test_requests_of_many_clients_are_answered_each_with_its_own(served, nlp, texts):
    """Many at once, so that they share batches, each with its own question."""
    questions = [{"types": ["Gene"]}, {"types": ["Chemical"], "corpus": "X"}, {}]

    def ask(number):
        asked = questions[number % 3]
        some = texts[number % 10 : number % 10 + 1 + number % 4]
        body = {"documents": [{"text": text} for text in some]}
        rows = rows_of(httpx.post(f"{served}/annotate", params=asked, json=body, timeout=60))
        return asked, some, [row["ents"] for row in rows]

    with ThreadPoolExecutor(12) as pool:
        for asked, some, found in pool.map(ask, range(36)):
            assert found == [ents_of(nlp, text, **asked) for text in some]


def test_health_and_types(client):
    assert client.get("/health").json() == {"status": "ok", "model": MODEL, "waiting": 0}
    assert client.get("/types").json() == {
        "model": MODEL,
        "types": ["Chemical", "Gene"],
        "takes_types": True,
        "known_types": None,
    }


def test_what_the_tagger_was_trained_for_is_told(pipeline):
    def load():
        nlp = spacy.load(pipeline)
        get_tagger(nlp.get_pipe("vaner_ner").model).known_types = ("Gene", "Metal")
        return nlp

    with serving(load, LIMITS) as address:
        told = httpx.get(f"{address}/types").json()
    assert (told["types"], told["known_types"]) == (["Chemical", "Gene"], ["Gene", "Metal"])


# Refusals

BIOC = {"id": "1", "passages": [{"offset": 0, "text": "zinc"}]}


def with_annotation(**changes):
    one = {"infons": {"type": "A"}, "locations": [{"offset": 0, "length": 4}], **changes}
    return {"id": "1", "passages": [{**BIOC["passages"][0], "annotations": [one]}]}


@pytest.mark.parametrize(
    "status, body, said",
    [
        (413, {"text": "x" * 20_001}, "VE751: document 1 of the request has 20,001 characters"),
        (413, {"text": "é" * 40_000}, "VE751: the body has .* bytes, .* at most 60,000"),
        (422, {"documents": [{"text": ""}] * 21}, "VE751: the request has 21 documents"),
        (422, b"{", "VE752: .* not JSON"),
        (422, b"\xff", "VE752: .* not UTF-8"),
        (422, b"[" * 9_000, "VE752: .* not JSON"),
        (422, b"[" * 200 + b"]" * 200, "nested in more than 100 levels"),
        (422, b'{"text": "", "id": NaN}', "a number that is too large"),
        (422, b'{"text": "", "id": 1e999}', "a number that is too large"),
        (422, b'{"text": "a", "ents": [[0, 1, "A"]], "scores": [1' + b"0" * 400 + b"]}", "large"),
        (422, b'{"text": "a", "id": "\\ud800"}', "half of a surrogate pair"),
        (422, [], "expected an object"),
        (422, {}, 'document 1: expected an object with a string "text"'),
        (422, {"documents": 1}, '"documents" must be a list'),
        (422, {"text": "a", "id": 1.5}, '"id" must be a text or a number; found: 1.5'),
        (422, {"documents": [{"text": "a"}, {"text": 1}]}, "document 2: expected an object"),
        (422, {"text": "zinc", "types": ["A"]}, r'"types" belongs .*: /annotate\?types='),
        (422, {"text": "zinc", "ents": [[0, 5, "A"]]}, "document 1: .* does not lie inside"),
        (422, {"text": "zinc", "ents": [[0, 4, "A", "iron"]]}, "the offsets do not fit the text"),
        (422, with_annotation(locations=[{"offset": 9, "length": 4}]), "does not lie inside"),
        (422, with_annotation(text="iron"), "the offsets do not fit the text"),
        (422, with_annotation(infons=None), "no infon 'type'"),
        (422, with_annotation(locations=[1]), '"locations" must be a list of objects'),
        (422, {**BIOC, "passages": [1]}, '"passages" must be a list of objects'),
        (422, {"id": 1, "passages": [{"offset": 0, "text": "", "sentences": [1]}]}, '"sentences"'),
        (422, {**BIOC, "passages": [{"offset": "9" * 5_000, "text": ""}]}, "this is not BioC"),
        # What would take gigabytes to write down.
        (422, {"text": "x" * 9_000, "ents": [[0, 9_000, "A"]] * 900}, "more than 20 times"),
        (422, {"text": "x" * 9_000, "passages": [{"start": 0, "end": 9_000}] * 900}, "20 times"),
        (422, {**BIOC, "passages": [{"offset": 0, "text": ""}] * 2_001}, "2,001 passages"),
        (
            422,
            {"id": 1, "passages": [{"offset": n * 90_000, "text": ""} for n in range(900)]},
            "has the offset",
        ),
    ],
)  # fmt: skip
def test_a_body_that_is_not_taken_is_refused_in_a_sentence(client, status, body, said):
    content = body if isinstance(body, bytes) else json.dumps(body)
    answer = client.post("/annotate", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status
    assert re.search(said, answer.json()["error"])
    assert answer.json().keys() == {"error"}


@pytest.mark.parametrize(
    "settings, said",
    [
        ("types=A&types=B&types=C&types=D", "VE751: the request has 4 types"),
        ("types=a:b", "VE022"),
        ("types=", "VE022"),
        ("corpus=a=", "VE758: 'a='"),
        ("threshold=2", "VE754: .*threshold"),
        ("to=html", "VE754: .*to: "),
        ("type=Gene", "VE754: .*type: "),
    ],
)
def test_a_setting_that_is_not_taken_is_refused_in_a_sentence(client, settings, said):
    answer = client.post(f"/annotate?{settings}", content=b"zinc", headers=TEXT)
    assert answer.status_code == 422
    assert re.search(said, answer.json()["error"])


@pytest.mark.parametrize("kind", ["text/html", "text/plain; charset=latin-1", None])
def test_a_body_of_another_type_is_refused(client, kind):
    headers = {} if kind is None else {"content-type": kind}
    answer = client.post("/annotate", content=b"zinc", headers=headers)
    assert answer.status_code == 415 and "VE753" in answer.json()["error"]
    charset = {"content-type": 'text/plain;charset="UTF-8"'}
    assert client.post("/annotate", content=b"zinc", headers=charset).status_code == 200


def test_a_body_that_grows_beyond_the_limit_is_not_kept(client):
    """Its length is not announced, so it has to be counted."""
    taken = []

    def parts():
        for _ in range(100):
            taken.append(1)
            yield b"x" * 10_000

    answer = client.post("/annotate", content=parts(), headers=TEXT)
    assert answer.status_code == 413 and "at most 60,000" in answer.json()["error"]


@pytest.mark.parametrize("method, path, status", [("GET", "/x", 404), ("GET", "/annotate", 405)])
def test_other_addresses_are_refused_in_the_same_form(client, method, path, status):
    answer = client.request(method, path)
    assert answer.status_code == status and answer.json().keys() == {"error"}


def test_a_pipeline_without_vaner_ner_is_served_but_not_asked_for_types():
    def load():
        nlp = spacy.blank("en")
        nlp.add_pipe("entity_ruler").add_patterns([{"label": "CHEM", "pattern": "zinc"}])
        return nlp

    with serving(load, LIMITS) as address:
        assert httpx.get(f"{address}/types").json()["types"] == ["CHEM"]
        (row,) = rows_of(httpx.post(f"{address}/annotate", json={"text": "of zinc"}))
        assert row["ents"] == [[3, 7, "CHEM", "zinc"]] and "scores" not in row
        answer = httpx.post(f"{address}/annotate?types=A", json={"text": "of zinc"})
        assert answer.status_code == 422 and "no vaner_ner" in answer.json()["error"]


# A pipeline that waits: who is let in, who is served first, who is given up


class Gate:
    """A component that notes every text, waits until it is opened, and fails on "boom"."""

    def __init__(self):
        self.opened, self.reached = threading.Event(), threading.Event()
        self.seen = []

    def __call__(self, doc):
        self.seen.append(doc.text)
        self.reached.set()
        assert self.opened.wait(60)
        if doc.text == "boom":
            raise ValueError(f"the secret text {doc.text}")
        return doc

    def load(self):
        nlp = spacy.blank("en")
        Language.component("test_gate", func=self)
        nlp.add_pipe("test_gate")
        return nlp


@pytest.fixture
def gate():
    gate = Gate()
    yield gate
    gate.opened.set()


@pytest.fixture
def in_background():
    with ThreadPoolExecutor(8) as pool:
        yield pool.submit


def post(address, *texts):
    body = {"documents": [{"text": text} for text in texts]}
    return httpx.post(f"{address}/annotate", json=body, timeout=60)


def wait_until(is_so):
    for _ in range(3_000):
        if is_so():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come about")


def waiting_at(address):
    return httpx.get(f"{address}/health").json()["waiting"]


def test_past_the_number_that_may_wait_requests_are_refused(gate, in_background):
    with serving(gate.load, replace(LIMITS, waiting=2)) as address:
        first = in_background(post, address, "a")
        gate.reached.wait(60)
        second = in_background(post, address, "b")
        wait_until(lambda: waiting_at(address) == 1)
        refused = post(address, "c")
        assert refused.status_code == 429 and "VE755: 2 requests" in refused.json()["error"]
        assert refused.headers["retry-after"]
        gate.opened.set()
        assert first.result().status_code == second.result().status_code == 200
        assert post(address, "d").status_code == 200
        assert gate.seen == ["a", "b", "d"]


def test_past_the_seconds_a_request_is_refused_and_not_worked_on(gate, in_background):
    with serving(gate.load, replace(LIMITS, seconds=0.5), batch_characters=1) as address:
        late = in_background(post, address, "a", "b", "c")
        later = in_background(post, address, "d")
        for answer in (late.result(), later.result()):
            assert answer.status_code == 503 and "within 0.5 seconds" in answer.json()["error"]
        gate.opened.set()
        assert post(address, "e").status_code == 200
        assert len(gate.seen) == 2 and gate.seen[-1] == "e"


def test_a_body_that_does_not_come_is_not_waited_for(gate):
    with serving(gate.load, replace(LIMITS, seconds=0.5)) as address:
        with connection(address) as line:
            line.sendall(b"POST /annotate HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nzinc")
            assert line.recv(4096).startswith(b"HTTP/1.1 503")


def test_a_client_that_is_refused_while_it_sends_gets_the_answer(gate):
    with serving(gate.load, LIMITS) as address, connection(address) as line:
        line.sendall(
            b"POST /annotate HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
            b"content-length: 9000000\r\n\r\n" + b"x" * 9_000_000
        )
        assert line.recv(4096).startswith(b"HTTP/1.1 413")


def connection(address):
    port = int(address.rpartition(":")[2])
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def test_a_client_that_hangs_up_costs_nothing(gate, in_background):
    with serving(gate.load, replace(LIMITS, waiting=2), batch_characters=1) as address:
        first = in_background(post, address, "a")
        gate.reached.wait(60)
        body = json.dumps({"documents": [{"text": f"gone {n}"} for n in range(20)]}).encode()
        head = (
            "POST /annotate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode()
        with connection(address) as line:
            line.sendall(head + body)
            wait_until(lambda: waiting_at(address) == 1)
        # Its place is free again, before the pipeline has done anything.
        wait_until(lambda: post_is_let_in(address, in_background))
        with connection(address) as line:
            line.sendall(head + body[:50])
        gate.opened.set()
        assert first.result().status_code == 200
        assert post(address, "z").status_code == 200
        assert not [text for text in gate.seen if text.startswith("gone")]


def post_is_let_in(address, in_background):
    pending = in_background(post, address, "b")
    wait_until(lambda: pending.done() or waiting_at(address) == 2)
    return not pending.done() or pending.result().status_code != 429


def test_short_requests_do_not_wait_for_the_end_of_long_ones(gate):
    batches = Batches(gate.load, MODEL, batch_characters=1)
    long = batches.submit([document(f"long {n}") for n in range(5)], {})
    gate.reached.wait(60)
    short = batches.submit([document("short")], {})
    gate.opened.set()
    assert len(long.result(60).documents) == 5
    assert gate.seen.index("short") <= 2 and short.done()
    batches.close()


def document(text):
    return Document("1", text, whole(text))


def test_what_waits_shares_a_batch(gate):
    batches = Batches(gate.load, MODEL, batch_characters=10)
    first = batches.submit([document("a")], {})
    gate.reached.wait(60)
    others = [batches.submit([document("b" * 4), document("c" * 4)], {}) for _ in range(3)]
    gate.opened.set()
    for answer in [first, *others]:
        answer.result(60)
    # In turn; the gate sees the documents of a batch in the order of the batch.
    assert gate.seen == ["a", *["bbbb"] * 3, *["cccc"] * 3]
    batches.close()


def test_a_document_that_the_pipeline_fails_on_fails_its_own_request_only(
    gate, in_background, caplog
):
    gate.opened.set()
    with caplog.at_level(logging.DEBUG), serving(gate.load, LIMITS) as address:
        bad, good = post(address, "a", "boom", "c"), post(address, "d")
    assert bad.status_code == 500 and good.status_code == 200
    assert "VE759: the pipeline failed on document 2" in bad.json()["error"]
    # Neither in the answer nor in the log: the message of an exception may hold text.
    assert "secret" not in bad.text and "secret" not in caplog.text
    assert "ValueError in test_server.py" in caplog.text


def test_the_others_of_a_batch_are_answered_when_one_fails(gate):
    batches = Batches(gate.load, MODEL)
    first = batches.submit([document("a")], {})
    gate.reached.wait(60)
    bad, good = batches.submit([document("boom")], {}), batches.submit([document("b")], {})
    gate.opened.set()
    assert first.result(60) and good.result(60)
    with pytest.raises(Failed):
        bad.result(60)
    batches.close()


def test_closing_refuses_what_waits_and_ends_the_thread(gate):
    n_threads = threading.active_count()
    batches = Batches(gate.load, MODEL, batch_characters=1)
    first = batches.submit([document("a")], {})
    gate.reached.wait(60)
    waiting = batches.submit([document("b")], {})
    closing = threading.Thread(target=batches.close)
    closing.start()
    with pytest.raises(Closed):
        waiting.result(60)
    gate.opened.set()
    closing.join()
    assert len(first.result(60).documents) == 1  # what was begun is finished
    assert threading.active_count() == n_threads and not batches.is_open
    with pytest.raises(Closed):
        batches.submit([document("c")], {}).result(60)


def test_a_pipeline_that_cannot_be_loaded_is_told():
    def load():
        raise VanerError("VE709: no")

    with pytest.raises(VanerError, match="VE709"):
        Batches(load, MODEL)


# The page


def test_the_page_takes_nothing_from_elsewhere(client):
    answer = client.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
    page = answer.text + client.get("/page.js").text + client.get("/page.css").text
    assert "//" not in re.sub(r"/\*.*?\*/|^ *// .*$|<!doctype.*?>", "", page, flags=re.M | re.S)
    assert not re.search(r"<[^>]* (style|on\w+)=", answer.text)
