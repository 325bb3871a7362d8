"""Who is let in: sessions, tokens, and what a stolen or made-up one is worth.

Tokens are opaque random secrets, kept as digests: there is no algorithm, key or audience in them that
could be swapped.
"""

import base64
import json
import secrets

import pytest
import requests

from tests import corpus
from tests.hostile.target import PASSWORD, PERSON, STUDIES, Target

pytestmark = pytest.mark.usefixtures("unharmed")


def login(target: Target, name: str = PERSON, password: str = PASSWORD, **more: str) -> requests.Response:
    """The answer to the form."""
    return requests.post(
        f"{target.archive.base_url}/login",
        data={"name": name, "password": password},
        headers={"Origin": target.archive.base_url, **more},
        allow_redirects=False,
        timeout=60,
    )


def with_cookie(target: Target, secret: str, address: str = STUDIES) -> requests.Response:
    """A request with a session's secret, or what is taken for one."""
    return target.get(address, Authorization="", Cookie=f"stele_session={secret}")


@pytest.mark.parametrize("name", ["token", "access_token", "id_token", "Token", "bearer", "jwt", "%74oken"])
def test_a_token_in_an_address(target: Target, name: str) -> None:
    """401 (RFC 9700 section 4.3.2 forbids it), even beside a good one in its place, and never logged."""
    token = target.tokens["viewer"]
    for headers in ({"Authorization": ""}, {"Authorization": f"Bearer {token}"}):
        answer = target.get(f"{STUDIES}?{name}={token}", **headers)
        assert answer.status_code == 401
        assert token not in answer.text
    assert token not in target.archive.log


def _jwt(header: dict[str, str]) -> str:
    parts = (header, {"sub": "administrator", "role": "administrator", "exp": 4102444800})
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, ""])


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer  ",
        "Bearer a b",
        "Bearer " + "x" * 600,
        "Bearer \xff\xfe",
        "Bearer ' OR 1=1 --",
        "Basic YWRtaW5pc3RyYXRvcjp4",
        "Bearer " + _jwt({"alg": "none"}),
        "Bearer " + _jwt({"alg": "HS256", "kid": "../../etc/passwd"}),
        "Bearer " + _jwt({"alg": "RS256", "jku": "http://127.0.0.1/keys"}),
        "Bearer " + secrets.token_urlsafe(32),
    ],
    ids=lambda header: str(header)[:30],
)
def test_a_token_that_is_none(target: Target, header: str) -> None:
    """401 with WWW-Authenticate (RFC 6750 section 3), and no hint why."""
    answer = target.get(STUDIES, Authorization=header)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert header not in answer.text


def test_no_token_at_all(target: Target) -> None:
    """401 everywhere but on what needs no login."""
    for method, address in (
        ("GET", STUDIES),
        ("POST", STUDIES),
        ("DELETE", f"{STUDIES}/1.2.3"),
        ("GET", "/dicom-web/nothing"),
        ("GET", "//dicom-web/studies"),
        ("GET", "/dicom-web/../dicom-web/studies"),
        ("OPTIONS", STUDIES),
    ):
        answer = target.ask(method, address, headers={"Authorization": ""})
        assert answer.status_code in (401, 404), (method, address)
        assert answer.status_code == 401 or "//" in address or ".." in address


@pytest.mark.parametrize(
    "address", ["/Login", "/login/", "/health/live/../../dicom-web/studies", "/metrics%2f"]
)
def test_almost_an_open_address(target: Target, address: str) -> None:
    """What is open is named exactly."""
    prepared = requests.Request("GET", target.archive.base_url).prepare()
    prepared.url = target.archive.base_url + address
    with requests.Session() as session:
        answer = session.send(prepared, allow_redirects=False, timeout=60)
    assert answer.status_code in (401, 404), answer.text


def test_an_expired_session(target: Target) -> None:
    """401 from the moment on."""
    secret = login(target).cookies["stele_session"]
    assert with_cookie(target, secret).status_code == 200
    with target.catalog() as connection:
        connection.execute(
            "UPDATE sessions SET expires_at = clock_timestamp() - interval '1 ms' WHERE name = %s"
            " AND expires_at IS NOT NULL",
            (PERSON,),
        )
    assert with_cookie(target, secret).status_code == 401
    assert secret not in target.archive.log


def test_a_revoked_token(target: Target) -> None:
    """401 at once: whoever has taken a token is out when the machine gets a new one."""
    first = target.stele("machine", "add", "revoked", "--role", "viewer").split()[-1]
    assert target.get(STUDIES, Authorization=f"Bearer {first}").status_code == 200
    second = target.stele("machine", "add", "revoked", "--role", "viewer").split()[-1]
    assert target.get(STUDIES, Authorization=f"Bearer {first}").status_code == 401
    assert target.get(STUDIES, Authorization=f"Bearer {second}").status_code == 200


def test_session_fixation(target: Target) -> None:
    """A secret that somebody else has chosen never becomes a session: each login draws a new one."""
    chosen = secrets.token_urlsafe(32)
    answer = login(target, Cookie=f"stele_session={chosen}")
    drawn = answer.cookies["stele_session"]
    assert drawn != chosen
    assert login(target).cookies["stele_session"] != drawn
    assert with_cookie(target, chosen).status_code == 401
    assert with_cookie(target, drawn).status_code == 200


def test_a_session_after_logout(target: Target) -> None:
    """401: the session ends at the server, not only in the browser."""
    secret = login(target).cookies["stele_session"]
    out = target.ask(
        "POST", "/logout", headers={"Authorization": "", "Cookie": f"stele_session={secret}",
                                    "Origin": target.archive.base_url}, allow_redirects=False,
    )  # fmt: skip
    assert out.status_code == 303
    assert with_cookie(target, secret).status_code == 401
    assert secret not in target.archive.log


def test_a_session_as_a_bearer_of_another_site(target: Target) -> None:
    """403 for a change that another site makes with somebody's cookie."""
    secret = login(target).cookies["stele_session"]
    (image,) = corpus.ct_series(1, size=32, study=corpus.Study(seed=8000))
    for said in ({}, {"Origin": "https://elsewhere.example"}, {"Sec-Fetch-Site": "cross-site"}):
        headers = {
            "Authorization": "",
            "Cookie": f"stele_session={secret}",
            "Content-Type": "application/dicom",
        }
        answer = target.ask("POST", STUDIES, data=corpus.encode(image), headers={**headers, **said})
        assert answer.status_code == 403
    assert not target.has(image.SOPInstanceUID)


def test_passwords_are_not_guessed(target: Target) -> None:
    """401 ten times, then 429; a name that does not exist answers alike, and the password is not logged."""
    guess = "CANARYBIRD-" + secrets.token_hex(8)
    known, unknown = login(target, PERSON, guess), login(target, "nobody", guess)
    assert (known.status_code, known.text) == (unknown.status_code, unknown.text)
    codes = [login(target, "victim", guess).status_code for _ in range(11)]
    assert codes == [401] * 10 + [429]


@pytest.mark.parametrize(
    "form",
    [
        b"",
        b"name=person",
        b"name=" + b"x" * 5000,
        b"name=%00&password=%00",
        b"\xff\xfe",
        b"name=a&name=b&password=c",
    ],
    ids=lambda form: repr(form)[:20],
)
def test_a_login_form_that_is_none(target: Target, form: bytes) -> None:
    """401 or 413, never a fault of the server's."""
    answer = requests.post(
        f"{target.archive.base_url}/login",
        data=form,
        headers={"Content-Type": "application/x-www-form-urlencoded", "Origin": target.archive.base_url},
        timeout=60,
    )
    assert answer.status_code in (401, 413, 429)


@pytest.mark.parametrize("to", ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example"])
@pytest.mark.unnoticed("the login is right")
def test_a_login_never_leads_elsewhere(target: Target, to: str) -> None:
    """An open redirect would lend our name to somebody's login page."""
    answer = requests.post(
        f"{target.archive.base_url}/login",
        data={"name": PERSON, "password": PASSWORD, "next": to},
        headers={"Origin": target.archive.base_url},
        allow_redirects=False,
        timeout=60,
    )
    assert answer.headers["Location"] == "/"


@pytest.mark.parametrize(
    ("role", "method", "address"),
    [("viewer", "POST", STUDIES), ("viewer", "DELETE", f"{STUDIES}/1.2.3"),
     ("technologist", "DELETE", f"{STUDIES}/1.2.3")],
)  # fmt: skip
def test_a_role_that_does_not_suffice(target: Target, role: str, method: str, address: str) -> None:
    """403."""
    headers = {"Authorization": f"Bearer {target.tokens[role]}", "Content-Type": "application/dicom"}
    assert target.ask(method, address, data=b"", headers=headers).status_code == 403
