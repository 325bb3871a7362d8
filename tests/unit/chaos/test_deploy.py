"""What Ansible's recap tells."""

from pathlib import Path
from types import SimpleNamespace

from chaos import deploy

RECAP = """TASK [etcd : Start] ***
changed: [host1] => (item=changed=7)

PLAY RECAP *********************************************************************
host1                      : ok=180  changed=68   unreachable=0    failed=0    skipped=11   rescued=0
localhost                  : ok=11   changed=0    unreachable=0    failed=0    skipped=0    rescued=0
"""


def test_changes_are_counted_by_host(tmp_path: Path) -> None:
    (tmp_path / "site.yml.log").write_text(RECAP)
    lab = SimpleNamespace(folder=tmp_path)
    assert deploy.changed(lab, "site.yml") == {"host1": 68, "localhost": 0}  # type: ignore[arg-type]
