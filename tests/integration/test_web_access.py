"""Who gets in over HTTP, how far, and what a browser can be made to do: a running archive with accounts."""

import subprocess
import sys
from collections.abc import Iterator

import pytest
import requests

from tests import corpus
from tests.archive import Archive, running_archive

PASSWORD = "correct horse battery staple"


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with running_archive(
        tmp_path_factory.mktemp("closed"), arguments=(), environment={"STELE_HTTP__SECURE_COOKIES": "false"}
    ) as running:
        yield running


@pytest.fixture(scope="module")
def open_archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Archive]:
    with running_archive(tmp_path_factory.mktemp("open")) as running:
        yield running


def stele(archive: Archive, *arguments: str, typed: str = "") -> str:
    command = [sys.executable, "-m", "node.cli", *arguments, "--data", str(archive.data)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, input=typed, timeout=60)
    return done.stdout


@pytest.fixture(scope="module")
def tokens(closed: Archive) -> dict[str, str]:
    roles = ("viewer", "technologist", "administrator")
    return {role: stele(closed, "machine", "add", f"m-{role}", "--role", role).split()[-1] for role in roles}


@pytest.fixture(scope="module")
def person(closed: Archive) -> str:
    stele(closed, "user", "add", "person", "--role", "administrator", typed=f"{PASSWORD}\n{PASSWORD}\n")
    return "person"


def login(
    archive: Archive, name: str, password: str, **fields: str
) -> tuple[requests.Session, requests.Response]:
    session = requests.Session()
    answer = session.post(
        f"{archive.base_url}/login",
        data={"name": name, "password": password, **fields},
        headers={"Origin": archive.base_url},
        allow_redirects=False,
        timeout=30,
    )
    return session, answer


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_roles(closed: Archive, tokens: dict[str, str]) -> None:
    (image,) = corpus.ct_series(1, size=32, study=corpus.Study(seed=70))
    studies = f"{closed.base_url}/dicom-web/studies"
    study = f"{studies}/{image.StudyInstanceUID}"
    for role, may_store, may_delete in (
        ("viewer", 403, 403),
        ("technologist", 200, 403),
        ("administrator", 200, 204),
    ):
        headers = {**bearer(tokens[role]), "Content-Type": "application/dicom"}
        stored = requests.post(studies, data=corpus.encode(image), headers=headers, timeout=60)
        assert stored.status_code == may_store, role
        found = requests.get(studies, headers=bearer(tokens[role]), timeout=60)
        assert found.status_code == 200, role
        deleted = requests.delete(study, headers=bearer(tokens[role]), timeout=60)
        assert deleted.status_code == may_delete, role


def test_a_token_in_an_address_is_refused_and_never_logged(closed: Archive, tokens: dict[str, str]) -> None:
    for name in ("token", "access_token", "Token"):
        address = f"{closed.base_url}/dicom-web/studies?{name}={tokens['viewer']}"
        assert requests.get(address, timeout=30).status_code == 401
        assert requests.get(address, headers=bearer(tokens["viewer"]), timeout=30).status_code == 401
    assert tokens["viewer"] not in closed.log


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer  ", "Basic YTpi", "Bearer a b", "Bearer " + "x" * 600, ""]
)
def test_no_such_token(closed: Archive, header: str) -> None:
    answer = requests.get(
        f"{closed.base_url}/dicom-web/studies", headers={"Authorization": header}, timeout=30
    )
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_a_session_from_login_to_logout(closed: Archive, person: str) -> None:
    session, answer = login(closed, person, PASSWORD, next="/viewer/viewer?StudyInstanceUIDs=1.2")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/viewer/viewer?StudyInstanceUIDs=1.2")
    cookie = answer.headers["Set-Cookie"]
    assert all(part in cookie for part in ("HttpOnly", "SameSite=Strict", "Path=/")), cookie
    studies = f"{closed.base_url}/dicom-web/studies"
    assert session.get(studies, timeout=30).status_code == 200
    secret = session.cookies["stele_session"]
    out = session.post(
        f"{closed.base_url}/logout", headers={"Origin": closed.base_url}, allow_redirects=False, timeout=30
    )
    assert out.status_code == 303
    assert requests.get(studies, cookies={"stele_session": secret}, timeout=30).status_code == 401
    assert secret not in closed.log


def test_a_login_never_leads_elsewhere(closed: Archive, person: str) -> None:
    for target in ("https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example"):
        assert login(closed, person, PASSWORD, next=target)[1].headers["Location"] == "/"


def test_a_cookie_changes_nothing_for_another_site(closed: Archive, person: str) -> None:
    (image,) = corpus.ct_series(1, size=32, study=corpus.Study(seed=71))
    session, _ = login(closed, person, PASSWORD)
    studies = f"{closed.base_url}/dicom-web/studies"
    for said, code in (
        ({}, 403),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": closed.base_url, "Sec-Fetch-Site": "same-origin"}, 200),
    ):
        headers = {"Content-Type": "application/dicom", **said}
        answer = session.post(studies, data=corpus.encode(image), headers=headers, timeout=60)
        assert answer.status_code == code, said


def test_another_site_cannot_log_somebody_in(closed: Archive, person: str) -> None:
    answer = requests.post(
        f"{closed.base_url}/login",
        data={"name": person, "password": PASSWORD},
        headers={"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"},
        timeout=30,
    )
    assert answer.status_code == 403
    assert "Set-Cookie" not in answer.headers


def test_guessing_is_slowed_down_and_tells_nothing(closed: Archive, person: str) -> None:
    known, unknown = login(closed, person, "wrong")[1], login(closed, "nobody-at-all", "wrong")[1]
    assert (known.status_code, unknown.status_code) == (401, 401)
    assert known.text == unknown.text
    codes = [login(closed, "victim", f"guess {number}")[1].status_code for number in range(11)]
    assert codes == [401] * 10 + [429]
    assert login(closed, person, PASSWORD)[1].status_code == 303


def test_html_in_a_name_stays_text(closed: Archive) -> None:
    page = requests.get(
        f"{closed.base_url}/login", params={"next": "/'><script>alert(1)</script>"}, timeout=30
    )
    assert "<script>" not in page.text
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert page.headers["X-Content-Type-Options"] == "nosniff"


def test_what_needs_no_login_says_nothing_of_patients(closed: Archive) -> None:
    for address in ("/health/live", "/health/ready", "/metrics", "/openapi.json", "/login"):
        assert requests.get(f"{closed.base_url}{address}", timeout=30).status_code == 200, address
    pages = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
    for address in ("/", "/viewer/"):
        answer = requests.get(f"{closed.base_url}{address}", headers=pages, allow_redirects=False, timeout=30)
        assert answer.status_code == 303
        assert answer.headers["Location"].startswith("/login?next=%2F")


@pytest.mark.parametrize("host", ["rebound.example", "rebound.example:80", "127.0.0.1.rebound.example", ""])
def test_the_demonstration_has_loopback_names_only(open_archive: Archive, host: str) -> None:
    answer = requests.get(f"{open_archive.base_url}/dicom-web/studies", headers={"Host": host}, timeout=30)
    assert answer.status_code in (400, 421)


def test_the_demonstration_is_not_for_other_sites(open_archive: Archive) -> None:
    studies = f"{open_archive.base_url}/dicom-web/studies"
    elsewhere = {"Origin": "https://elsewhere.example", "Content-Type": "application/dicom"}
    assert requests.post(studies, data=b"", headers=elsewhere, timeout=30).status_code == 403
    answer = requests.get(studies, headers={"Origin": "https://elsewhere.example"}, timeout=30)
    assert "Access-Control-Allow-Origin" not in answer.headers
