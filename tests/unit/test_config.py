"""Settings: where they come from, and what is refused with which words."""

import tomllib
from pathlib import Path

import pytest

from node.config import Settings, WrongSettings, check_entity, describe, load
from node.domain.model import ApplicationEntity


def test_defaults_listen_on_the_wellknown_ports() -> None:
    settings = load()
    assert (settings.ae_title, settings.dicom.port, settings.http.port) == ("STELE", 11112, 8042)
    assert not settings.demo


def test_command_line_over_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stele.toml"
    file.write_text('ae_title = "FILE"\n[dicom]\nport = 1001\nworkers = 3\n[http]\nport = 1002\n')
    monkeypatch.setenv("STELE_DICOM__PORT", "2001")
    settings = load(file, {"http": {"port": 3002}})
    assert settings.ae_title == "FILE"
    assert settings.dicom.workers == 3
    assert settings.dicom.port == 2001
    assert settings.http.port == 3002


@pytest.mark.parametrize(
    ("overrides", "name", "value"),
    [
        ({"dicom": {"port": 99999}}, "dicom.port", "99999"),
        ({"dicom": {"prot": 104}}, "dicom.prot", "104"),
        ({"dicom": {"proxies": ["10.0.0.0/33"]}}, "dicom.proxies", "10.0.0.0/33"),
        ({"ae_title": "SEVENTEEN_LETTERS"}, "ae_title", "SEVENTEEN_LETTERS"),
        ({"objects": {"kind": "tape"}}, "objects.kind", "tape"),
        ({"search": {"study_tags": ["0008,0060"]}}, "search.study_tags", "0008,0060"),
        ({"log_level": "loud"}, "log_level", "loud"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(overrides: dict[str, object], name: str, value: str) -> None:
    with pytest.raises(WrongSettings) as caught:
        load(None, overrides)
    assert name in str(caught.value)
    assert value in str(caught.value)


def test_settings_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(WrongSettings, match="budget_bytes"):
        load(None, {"intake": {"budget_bytes": 32 << 20, "spill_bytes": 16 << 20}})
    with pytest.raises(WrongSettings, match="tls_certificate"):
        load(None, {"dicom": {"tls_port": 2762}})


def test_a_missing_or_broken_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongSettings, match="no such file"):
        load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[dicom\n")
    with pytest.raises(WrongSettings, match=r"broken\.toml"):
        load(broken)


def test_demo_listens_on_loopback_whatever_else_is_set() -> None:
    settings = load(None, {"demo": True, "dicom": {"host": "0.0.0.0"}, "http": {"host": "0.0.0.0"}})
    assert (settings.dicom.host, settings.http.host) == ("127.0.0.1", "127.0.0.1")
    assert settings.dicom.any_calling_ae


def test_the_printed_settings_are_a_file_with_every_default() -> None:
    described = tomllib.loads(describe())
    assert Settings(**described) == Settings()


def test_an_ae_is_checked_before_it_is_kept() -> None:
    check_entity(ApplicationEntity("WS1", "192.0.2.7", 104, sources=("192.0.2.0/24",)), "192.0.2.7:104")
    for entity, address, word in [
        (ApplicationEntity("A" * 17), "", "title"),
        (ApplicationEntity("WS1"), "nowhere", "address"),
        (ApplicationEntity("WS1", sources=("300.1.1.1",)), "", "source"),
        (ApplicationEntity("WS1", certificate="abc"), "", "certificate"),
    ]:
        with pytest.raises(WrongSettings, match=word):
            check_entity(entity, address)
