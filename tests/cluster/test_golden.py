"""Rendered configuration is what was looked at and found right."""

from pathlib import Path

from tests.cluster import golden


def test_every_file_is_as_it_was_found_right() -> None:
    expected = {
        path.relative_to(golden.FOLDER): path.read_text()
        for path in golden.FOLDER.rglob("*")
        if path.is_file()
    }
    assert dict(golden.rendered()) == expected


def test_only_what_belongs_to_a_host_is_on_it() -> None:
    paths = {path for path, _ in golden.rendered()}
    assert Path("large/db1/etc/patroni/config.yml") in paths
    assert not any("haproxy" in str(path) for path in paths if path.is_relative_to("large/db1"))
    assert not any("patroni" in str(path) for path in paths if path.is_relative_to("large/front1"))
