"""QIDO-RS (PS3.18 section 10.6): searches for patients, studies, series and instances."""

from urllib.parse import parse_qsl, urlencode

import falcon

from node.domain.errors import Reason, Refusal
from node.domain.model import Attributes, Level, Role
from node.services.metadata import DICOMWEB_PATH
from node.services.search import Search
from node.web import body, caching, dicom_xml
from node.web.auth import demand
from node.web.negotiate import attributes as attributes_form
from node.web.responses import scope_of, send_xml, wanted

MAX_PARAMETERS = 1000
_NOT_SEARCHED = frozenset({"accept", "charset"})  # content negotiation (section 8.3.3)


def parameters_of(req: falcon.Request) -> list[tuple[str, str]]:
    """The query component, decoded, in order. Refusal(INVALID_QUERY)."""
    try:
        return parse_qsl(
            req.query_string, keep_blank_values=True, errors="strict", max_num_fields=MAX_PARAMETERS
        )
    except ValueError:  # also UnicodeDecodeError
        raise Refusal(Reason.INVALID_QUERY, "malformed query component") from None


class Qido:
    """One search resource: `level` below the study and series in the path."""

    def __init__(self, search: Search, level: Level) -> None:
        self._search = search
        self._level = level

    def on_get(
        self, req: falcon.Request, resp: falcon.Response, study: str | None = None, series: str | None = None
    ) -> None:
        """Search. 200 with an empty list if nothing matches."""
        actor = demand(req, Role.VIEWER)
        scope = scope_of(study, series)
        media_type = attributes_form(wanted(req))
        parameters = [pair for pair in parameters_of(req) if pair[0] not in _NOT_SEARCHED]
        result = self._search.qido(self._level, scope, parameters, actor)
        for attributes in result.results:
            url = _retrieve_url(self._level, attributes)
            if url:
                attributes["00081190"] = {"vr": "UR", "Value": [body.base_url(req) + url]}
        for warning in result.warnings:
            resp.append_header("Warning", f'299 {req.netloc} "{_quoted(warning)}"')
        if result.next_parameters is not None:
            kept = [pair for pair in parameters_of(req) if pair[0] in _NOT_SEARCHED]
            query = urlencode([*result.next_parameters, *kept])
            resp.append_header("Link", f'<{req.path}?{query}>; rel="next"')
        resp.set_header("Cache-Control", caching.NO_STORE)
        results = [dict(sorted(each.items())) for each in result.results]
        if media_type == dicom_xml.MEDIA_TYPE:
            send_xml(req, resp, results, "search")
        else:
            body.send_json(req, resp, results, media_type)

    on_head = on_get


def _retrieve_url(level: Level, found: Attributes) -> str:
    if level is Level.PATIENT:
        return ""
    steps = {"studies": "0020000D", "series": "0020000E", "instances": "00080018"}
    count = {Level.STUDY: 1, Level.SERIES: 2, Level.IMAGE: 3}[level]
    path = DICOMWEB_PATH
    for name, tag in list(steps.items())[:count]:
        values = found.get(tag, {}).get("Value")
        if not values:
            return ""
        path += f"/{name}/{values[0]}"
    return path


def _quoted(text: str) -> str:
    safe = "".join(letter if " " <= letter <= "~" else "?" for letter in text)
    return safe.replace("\\", "\\\\").replace('"', '\\"')
