"""What requests and answers look like: the OpenAPI document, and what FastAPI checks by it.

Bodies and answers are read and written by hand (bodies.py); their models stand here for the
document alone.
"""

# No `from __future__ import annotations`: pydantic reads the annotations at run time.
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from spacy_vaner.annotation.server.bodies import JSON, TEXT


class Question(BaseModel):
    """What a request says in its address."""

    model_config = ConfigDict(extra="forbid")

    types: list[str] = Field(
        [], description="Types to ask, any text: types=Disease&types=Gene. Without: as served"
    )
    corpus: str | None = Field(
        None, description="Corpus whose style is asked: a name, or Type=name,Type=name"
    )
    threshold: float = Field(0.0, ge=0, le=1, description="Spans less probable are left out")
    to: Literal["json", "jsonl", "bioc_json", "pubtator"] | None = Field(
        None, description="Form of the answer. Without: bioc_json for BioC JSON, else json"
    )


class TextDocument(BaseModel):
    """A document as JSONL has it; other keys come back as they are."""

    text: str
    id: str | int | None = None


class BioCPassage(BaseModel):
    """A passage of BioC JSON."""

    offset: int | str
    text: str


class BioCDocument(BaseModel):
    """A document as BioC JSON has it; what is in it comes back as it is."""

    id: str | int | None = None
    passages: list[BioCPassage]


class Batch(BaseModel):
    """Several documents; a collection of BioC JSON is one."""

    documents: list[TextDocument | BioCDocument]


class FoundInText(BaseModel):
    """A document of the answer: ents are [start, end, type, text], scores as many."""

    id: str
    text: str
    ents: list[list[Any]]
    scores: list[float | None] | None = None


class Found(BaseModel):
    """The answer as json. across_passages: spans over the end of a passage, left out."""

    model: str
    documents: list[FoundInText]
    across_passages: int


class FoundInBioC(BaseModel):
    """The answer as bioc_json: a collection."""

    source: str | None
    documents: list[dict[str, Any]]


class Health(BaseModel):
    """waiting: requests of which a document is left to begin."""

    status: Literal["ok"]
    model: str
    waiting: int


class Types(BaseModel):
    """types: asked where a request names none. takes_types: whether a request may name some.

    known_types: those that the pipeline was trained for, null where it does not say; of any other
    little can be expected.
    """

    model: str
    types: list[str]
    takes_types: bool
    known_types: list[str] | None


class Refusal(BaseModel):
    """Why a request is not answered, in a sentence."""

    error: str


BODY = {
    "requestBody": {
        "required": True,
        "description": "A text, or one document or several as JSONL or BioC JSON have them",
        "content": {
            TEXT: {"schema": {"type": "string"}, "example": "Aspirin eases pain."},
            JSON: {
                "schema": {
                    "anyOf": [
                        {"$ref": f"#/components/schemas/{model.__name__}"}
                        for model in (TextDocument, BioCDocument, Batch)
                    ]
                },
                "example": {"documents": [{"id": "1", "text": "Aspirin eases pain."}]},
            },
        },
    }
}
REFUSALS: dict[int | str, dict[str, Any]] = {
    413: {"model": Refusal, "description": "The body, or a document in it, is too large"},
    415: {"model": Refusal, "description": "The body is neither text/plain nor application/json"},
    422: {"model": Refusal, "description": "The body or a setting cannot be read, or is too much"},
    429: {"model": Refusal, "description": "Too many requests are waiting"},
    500: {"model": Refusal, "description": "The pipeline failed on a document"},
    503: {"model": Refusal, "description": "No answer in time, or the server is being stopped"},
}
ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The documents with what was found in them",
        "content": {
            JSON: {
                "schema": {
                    "anyOf": [
                        {"$ref": f"#/components/schemas/{model.__name__}"}
                        for model in (Found, FoundInBioC)
                    ]
                }
            },
            "application/x-ndjson": {"schema": {"type": "string"}},
            TEXT: {"schema": {"type": "string"}},
        },
    },
    **REFUSALS,
}


def describe_bodies(app: FastAPI) -> None:
    """Add the schemas of what is read and written by hand to the OpenAPI document."""
    models = (TextDocument, BioCDocument, Batch, Found, FoundInBioC)
    make = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schemas = make()["components"]["schemas"]
            for model in models:
                schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
                schemas.update(schema.pop("$defs", {}))
                schemas[model.__name__] = schema
            schemas.pop("HTTPValidationError", None)
            schemas.pop("ValidationError", None)
        assert app.openapi_schema is not None
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it
