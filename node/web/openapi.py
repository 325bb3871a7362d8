"""GET /openapi.json: the OpenAPI 3.1 description of what this node serves.

Written beside the routes, not derived from them; a test compares its addresses and methods with the
application's, and schemathesis holds it against the answers.
"""

from typing import Any

import falcon

from node.services.metadata import DICOMWEB_PATH
from node.web import body

_UID = {"type": "string", "pattern": "^[0-9.]{1,64}$"}
_DICOM = "application/dicom"
_JSON = "application/dicom+json"
_MULTIPART = "multipart/related"
_PROBLEM = {"application/problem+json": {"schema": {"type": "object"}}}
_ERRORS = {
    "400": "a malformed address, parameter or body",
    "401": "no login or token",
    "403": "not allowed for this role, or from another site",
    "404": "not stored here",
    "406": "not to be had in an accepted form",
    "421": "the demonstration under another than a loopback name",
    "429": "too many",
    "500": "a fault of the archive",
    "503": "catalog or objects do not answer, or too many requests at once",
}

Operation = dict[str, Any]


def _answers(ok: dict[str, tuple[str, list[str]]], *more: str) -> dict[str, Any]:
    answers: dict[str, Any] = {}
    for code, (text, types) in ok.items():
        answers[code] = {"description": text}
        if types:
            answers[code]["content"] = {media_type: {} for media_type in types}
    texts = {
        **_ERRORS,
        "408": "the body did not come in time",
        "409": "no instance was stored",
        "413": "too large",
        "415": "an unsupported type or encoding",
        "416": "no such range",
        "507": "the store is full",
    }
    for code in (*_ERRORS, *more):
        answers[code] = {"description": texts[code], "content": _PROBLEM}
    return answers


def _get(
    summary: str, types: list[str], *parameters: dict[str, Any], more: tuple[str, ...] = ()
) -> Operation:
    answers = _answers({"200": ("found", types), "304": ("unchanged", [])}, *more)
    if "416" in more:
        answers["206"] = {"description": "a part of it", "content": {each: {} for each in types}}
    return {"summary": summary, "parameters": list(parameters), "responses": answers}


def _query(name: str, schema: dict[str, Any], text: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema, "description": text}


_SEARCH = (
    _query("limit", {"type": "integer", "minimum": 0}, "results at most"),
    _query("offset", {"type": "integer", "minimum": 0}, "results to skip"),
    _query("fuzzymatching", {"type": "boolean"}, "names also by sound"),
    _query("includefield", {"type": "string"}, "further attributes, or all"),
    _query("PatientName", {"type": "string"}, "any attribute's keyword or tag is a key"),
)
_RENDERING = (
    _query("window", {"type": "string"}, "centre,width,function"),
    _query("viewport", {"type": "string"}, "width,height[,left,top,width,height]"),
    _query("quality", {"type": "integer", "minimum": 1, "maximum": 100}, "of a JPEG"),
)


def _search(what: str) -> Operation:
    operation = _get(f"Search for {what} (QIDO-RS)", [_JSON, "application/json", _MULTIPART], *_SEARCH)
    operation["responses"].pop("304")
    return operation


def _store() -> Operation:
    content = {_MULTIPART: {"schema": {"type": "string"}}, _DICOM: {"schema": {"type": "string"}}}
    answer = [_JSON, "application/json", "application/dicom+xml"]
    stored = {
        "200": ("all stored", answer),
        "202": ("some stored", answer),
        "409": ("none stored", answer),
        "413": ("too large", answer),
        "503": ("catalog or objects do not answer", answer),
        "507": ("the store is full", answer),
    }
    responses = _answers(stored, "408", "415")
    responses["503"] = {"description": "not now", "content": {**_PROBLEM, **{each: {} for each in answer}}}
    responses["413"] = {"description": "too large", "content": {**_PROBLEM, **{each: {} for each in answer}}}
    return {
        "summary": "Store instances (STOW-RS)",
        "requestBody": {"content": content, "required": True},
        "responses": responses,
    }


def _delete() -> Operation:
    return {"summary": "Remove for good", "responses": _answers({"204": ("removed", [])})}


def _paths() -> dict[str, Any]:
    images = ["image/jpeg", "image/png", _MULTIPART]
    study = f"{DICOMWEB_PATH}/studies/{{study}}"
    series = f"{study}/series/{{series}}"
    instance = f"{series}/instances/{{instance}}"
    frames = f"{instance}/frames/{{numbers}}"
    paths: dict[str, Any] = {
        f"{DICOMWEB_PATH}/patients": {"get": _search("patients")},
        f"{DICOMWEB_PATH}/studies": {"get": _search("studies"), "post": _store()},
        f"{DICOMWEB_PATH}/series": {"get": _search("series")},
        f"{DICOMWEB_PATH}/instances": {"get": _search("instances")},
        f"{study}/series": {"get": _search("series of a study")},
        f"{study}/instances": {"get": _search("instances of a study")},
        f"{series}/instances": {"get": _search("instances of a series")},
        frames: {"get": _get("Frames (WADO-RS)", [_MULTIPART, "application/octet-stream"], more=("413",))},
        f"{frames}/rendered": {"get": _get("Frames for display", images, *_RENDERING, more=("413",))},
        f"{frames}/thumbnail": {"get": _get("A frame's thumbnail", images, *_RENDERING, more=("413",))},
        f"{instance}/bulkdata/{{path}}": {
            "get": _get("Bulk data", [_MULTIPART, "application/octet-stream"], more=("416",))
        },
    }
    for path, what in ((study, "a study"), (series, "a series"), (instance, "an instance")):
        paths[path] = {
            "get": _get(f"Retrieve {what}", [_MULTIPART, _DICOM], more=("416",)),
            "delete": _delete(),
        }
        types = [_JSON, "application/json", _MULTIPART]
        paths[f"{path}/metadata"] = {"get": _get(f"Metadata of {what}", types)}
        paths[f"{path}/thumbnail"] = {"get": _get(f"Thumbnail of {what}", images, *_RENDERING)}
        paths[f"{path}/rendered"] = {"get": _get(f"{what} for display", images, *_RENDERING, more=("413",))}
    paths[study]["post"] = _store()
    for path, operations in paths.items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        parameters = [
            {
                "name": name,
                "in": "path",
                "required": True,
                "schema": _UID if name in ("study", "series", "instance") else {"type": "string"},
            }
            for name in names
        ]
        if parameters:
            operations["parameters"] = parameters
    return paths


def description() -> dict[str, Any]:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Stele", "version": "0.1.0", "description": "DICOMweb (PS3.18)"},
        "paths": _paths(),
        "components": {
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "session": {"type": "apiKey", "in": "cookie", "name": "stele_session"},
            }
        },
        "security": [{"token": []}, {"session": []}],
    }


class Description:
    """GET /openapi.json."""

    def __init__(self) -> None:
        self._document = description()

    def on_get(self, req: falcon.Request, resp: falcon.Response) -> None:
        """The document, the same for everybody."""
        body.send_json(req, resp, self._document, body.JSON)
