"""The bundle's parts that need no network: requirements for the hosts' Python, archives, packages."""

from pathlib import Path

import yaml

from cluster.bundle import archive, debian, wheels

ROOT = Path(__file__).parents[3]

LOCK = """\
# by uv
colorama==0.4.6 ; sys_platform == 'win32' \\
    --hash=sha256:aa
    # via typer
numpy==2.4.6 ; python_full_version < '3.12' \\
    --hash=sha256:bb
numpy==2.5.5 ; python_full_version >= '3.12' \\
    --hash=sha256:cc \\
    --hash=sha256:dd
typer==0.29.0 \\
    --hash=sha256:ee
"""


def test_requirements_are_those_of_the_hosts_python_not_of_this_one() -> None:
    numpy = "numpy==2.5.5 \\\n    --hash=sha256:cc \\\n    --hash=sha256:dd\n"
    assert wheels.for_target(LOCK) == numpy + "typer==0.29.0 \\\n    --hash=sha256:ee\n"


def test_the_projects_own_lock_is_understood() -> None:
    wanted = wheels.for_target((ROOT / "requirements.lock").read_text())
    names = [line.split("==")[0] for line in wanted.splitlines() if not line.startswith(" ")]
    assert len(names) == len(set(names))  # one version of each
    assert "pydicom" in names
    assert "colorama" not in names


def test_a_package_is_found_under_the_name_that_apt_gives_its_file() -> None:
    line = "Inst libio-pty-perl (1:1.20-1+b3 Debian:13.8/stable [amd64]) []"
    assert debian.file_name(line) == "libio-pty-perl_1%3a1.20-1+b3_amd64.deb"


def test_the_same_files_make_the_same_archive(tmp_path: Path) -> None:
    made = []
    for moment in (1, 2):
        folder = tmp_path / str(moment) / "stele"
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "b").write_text("b")
        (folder / "a").write_text("a")
        made.append(archive.pack(folder, tmp_path / str(moment)))
    assert made[0] == made[1]
    assert (tmp_path / "1" / str(made[0]["file"])).stat().st_size == made[0]["bytes"]
    (tmp_path / "2" / "stele" / "a").write_text("another")
    assert archive.pack(tmp_path / "2" / "stele", tmp_path / "2")["sha256"] != made[0]["sha256"]


def test_every_group_of_the_inventory_has_its_packages_in_the_bundle() -> None:
    tiers = yaml.safe_load((ROOT / archive.PACKAGES).read_text())["stele_packages"]
    inventory = yaml.safe_load((ROOT / "ansible/inventories/example/six.yml").read_text())
    assert set(inventory["all"]["children"]) - {"stele"} <= set(tiers)
    assert {name for names in tiers.values() for name in names} == set(archive.packages(ROOT))
