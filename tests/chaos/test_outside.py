"""A deployed cluster from outside: modalities, workstations and readers, through the virtual IP alone."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from dicomweb_client.api import DICOMwebClient
from playwright.sync_api import sync_playwright
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association

from chaos import deploy
from chaos.deployed import Deployed
from chaos.lab.network import CLIENT_ADDRESS
from chaos.lab.shell import run
from chaos.target import Dicom, Tls, Web, WebSession
from node.domain.part10 import Part10Reader
from tests import corpus
from tests.browser.conftest import FLAGS
from tests.browser.viewing import Viewing
from tests.orthanc import running_orthanc
from tests.support import free_port, require, wait_until

pytestmark = [
    pytest.mark.deployed,
    pytest.mark.lab,
    pytest.mark.peers,
    pytest.mark.slow,
    pytest.mark.timeout(1800),
]

SLICES = 4
TLS_PORT = 2762
WAIT_SECONDS = 60.0
READER, PASSWORD = "reader", "only in this lab"
FIND, GET = UID("1.2.840.10008.5.1.4.1.2.2.1"), UID("1.2.840.10008.5.1.4.1.2.2.3")


@pytest.fixture(scope="module")
def outside(cluster: Deployed) -> Iterator[Deployed]:
    """The cluster, with this thread where its clients stand."""
    require("storescu", "findscu", "getscu", "movescu", "Orthanc", "chromium")
    with cluster.lab.network.entered():
        yield cluster


@pytest.fixture(scope="module", params=["plain", "tls"])
def modality(outside: Deployed, request: pytest.FixtureRequest) -> Dicom:
    """A modality's way to the virtual IP."""
    entrance = outside.entrance
    if request.param == "plain":
        return Dicom(entrance.address, entrance.dicom_port, calling="CT_PLAIN")
    certificate, key = deploy.client_certificate(outside.lab, "modality")
    tls = Tls(str(entrance.ca), str(certificate), str(key), entrance.server_name)
    return Dicom(entrance.address, TLS_PORT, calling="CT_TLS", tls=tls)


def study_of(name: str) -> corpus.Study:
    """A study for each test, apart from all others."""
    return corpus.Study(corpus.Person(f"PHANTOM^{name}", f"OUTSIDE-{name}"), description=name)


def slices(study: corpus.Study) -> list[FileDataset]:
    """A small CT."""
    return list(corpus.ct_series(SLICES, size=64, study=study))


def datasets(files: list[Path]) -> dict[str, bytes]:
    """Dataset bytes of Part 10 files by SOP Instance UID."""
    found = {}
    for file in files:
        reader = Part10Reader()
        data = bytes(reader.feed(file.read_bytes()))
        found[reader.finish().sop_instance_uid] = data
    return found


def identifiers(study: corpus.Study) -> list[str]:
    """Keys of a study-level retrieval."""
    return ["-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study.study_uid}"]


def test_dcmtk_stores_and_queries(modality: Dicom, tmp_path: Path) -> None:
    study = study_of(f"DCMTK {modality.calling}")
    files = corpus.write(slices(study), tmp_path / "sent")
    run("echoscu", *modality.dcmtk())
    run("storescu", *modality.dcmtk(), *map(str, files))
    answers = tmp_path / "answers"
    answers.mkdir()
    keys = [*identifiers(study), "-k", "NumberOfStudyRelatedInstances"]
    run("findscu", *modality.dcmtk("-S", "-X", "-od", str(answers), *keys))
    [answer] = [dcmread(each, force=True) for each in answers.iterdir()]
    assert int(answer.NumberOfStudyRelatedInstances) == SLICES


def test_dcmtk_gets_and_moves(outside: Deployed, tmp_path: Path) -> None:
    """Its getscu and movescu know no TLS."""
    entrance = outside.entrance
    workstation = Dicom(entrance.address, entrance.dicom_port, calling="READS")
    study = study_of("DCMTK READS")
    files = corpus.write(slices(study), tmp_path / "sent")
    run("storescu", *workstation.dcmtk(), *map(str, files))
    got, moved = tmp_path / "got", tmp_path / "moved"
    got.mkdir()
    moved.mkdir()
    run("getscu", *workstation.dcmtk("-S", "+B", "-od", str(got), *identifiers(study)))
    assert datasets(list(got.iterdir())) == datasets(files)

    port = free_port()
    outside.stele("ae", "add", "READS", "--address", f"{CLIENT_ADDRESS}:{port}")
    options = ["-S", "+B", "+P", str(port), "-aem", "READS", *identifiers(study)]
    command = ["movescu", *workstation.dcmtk(*options)]

    def move() -> bool:  # the AE is known on every node within seconds; with +B it heeds no -od
        subprocess.run(command, check=False, capture_output=True, timeout=120, cwd=moved)
        return len(list(moved.iterdir())) == SLICES

    wait_until(move, WAIT_SECONDS, "C-MOVE to an AE that was just added")
    assert datasets(list(moved.iterdir())) == datasets(files)


def associated(modality: Dicom, *more: UID, **options: Any) -> Association:
    """pynetdicom's association for CT and `more`."""
    ae = AE(modality.calling)
    for uid in (CTImageStorage, *more):
        ae.add_requested_context(uid, [ExplicitVRLittleEndian])
    context = modality.context()
    tls = (context, modality.tls.server_name) if context and modality.tls else None
    association = ae.associate(
        modality.host, modality.port, ae_title=modality.called, tls_args=tls, **options
    )
    assert association.is_established
    return association


def test_pynetdicom_stores_queries_and_gets(modality: Dicom) -> None:
    study = study_of(f"PYNETDICOM {modality.calling}")
    images = slices(study)
    received: dict[str, bytes] = {}

    def keep(event: evt.Event) -> int:
        received[str(event.dataset.SOPInstanceUID)] = event.dataset.PixelData
        return 0

    storing = associated(modality)
    assert [storing.send_c_store(image).Status for image in images] == [0] * SLICES
    storing.release()
    role = build_role(CTImageStorage, scp_role=True)
    reading = associated(modality, FIND, GET, ext_neg=[role], evt_handlers=[(evt.EVT_C_STORE, keep)])
    keys = Dataset()
    keys.QueryRetrieveLevel = "STUDY"
    keys.StudyInstanceUID = study.study_uid
    assert [status.Status for status, _ in reading.send_c_get(keys, GET)][-1] == 0
    keys.PatientName = ""
    found = [identifier for _, identifier in reading.send_c_find(keys, FIND) if identifier]
    reading.release()
    assert [str(each.PatientName) for each in found] == [study.person.name]
    assert received == {each.SOPInstanceUID: each.PixelData for each in images}


def test_the_audit_has_the_modalitys_own_address(outside: Deployed, modality: Dicom) -> None:
    """Not that of the load balancer it came through."""
    study = study_of(f"AUDIT {modality.calling}")
    association = associated(modality)
    assert association.send_c_store(slices(study)[0]).Status == 0
    association.release()
    statement = f"SELECT actor, address FROM audit_events WHERE study_uids @> ARRAY['{study.study_uid}']"  # noqa: S608
    assert outside.sql(statement) == [[modality.calling, CLIENT_ADDRESS]]


def test_dicomweb_client_stores_searches_and_retrieves(outside: Deployed) -> None:
    entrance = outside.entrance
    token = entrance.token_file.read_text().strip()
    web = Web(entrance.url, str(entrance.ca), token, server_name=entrance.server_name)
    session = WebSession(web, lambda _page: None)
    client = DICOMwebClient(f"{entrance.url}/dicom-web", session=session.requests)
    study = study_of("DICOMWEB")
    images = slices(study)
    answer = client.store_instances(images)
    assert len(answer.ReferencedSOPSequence) == SLICES
    [found] = client.search_for_studies(search_filters={"StudyInstanceUID": str(study.study_uid)})
    assert found["00201208"]["Value"] == [SLICES]
    received = client.retrieve_study(str(study.study_uid))
    assert {each.SOPInstanceUID: each.PixelData for each in received} == {
        each.SOPInstanceUID: each.PixelData for each in images
    }
    session.close()


def test_orthanc_sends_finds_and_fetches(outside: Deployed, tmp_path: Path) -> None:
    study = study_of("ORTHANC")
    files = corpus.write(slices(study), tmp_path / "sent")
    entrance = outside.entrance
    peer = {"stele": ("STELE", entrance.address, entrance.dicom_port)}
    with running_orthanc(tmp_path / "orthanc", modalities=peer) as orthanc:
        outside.stele("ae", "add", "ORTHANC", "--address", f"{CLIENT_ADDRESS}:{orthanc.dicom_port}")
        uploaded = [orthanc.post("/instances", each.read_bytes())["ID"] for each in files]
        sent = orthanc.post("/modalities/stele/store", {"Resources": uploaded, "Synchronous": True})
        assert sent["FailedInstancesCount"] == 0
        orthanc.delete(f"/studies/{orthanc.get('/studies')[0]}")
        query = {"Level": "Study", "Query": {"StudyInstanceUID": str(study.study_uid)}}
        found = orthanc.post("/modalities/stele/query", query)["ID"]
        assert len(orthanc.get(f"/queries/{found}/answers")) == 1

        def fetched() -> bool:  # the AE is known on every node within seconds
            with contextlib.suppress(requests.HTTPError):
                orthanc.post(f"/queries/{found}/answers/0/retrieve", {"TargetAet": "ORTHANC"})
            return len(orthanc.get("/instances")) == SLICES

        wait_until(fetched, WAIT_SECONDS, "Orthanc's C-MOVE to itself")


def test_a_clinician_reads_in_the_viewer(outside: Deployed, tmp_path: Path) -> None:
    entrance = outside.entrance
    study = study_of("VIEWER")
    images = list(corpus.ct_series(8, size=256, study=study))[::-1]  # the viewer shows the highest first
    files = corpus.write(images, tmp_path)
    run("storescu", *Dicom(entrance.address, entrance.dicom_port).dcmtk(), *map(str, files))
    outside.stele("user", "add", READER, "--role", "viewer", "--password", PASSWORD)
    name = f"https://{entrance.server_name}"
    mapped = f"--host-resolver-rules=MAP {entrance.server_name} {entrance.address}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=[*FLAGS, mapped, "--no-proxy-server"]
        )
        # The cluster's own authority is none that browsers know; that the certificate is right is for others
        context = browser.new_context(viewport={"width": 1280, "height": 800}, ignore_https_errors=True)
        folder = os.environ.get("STELE_SCREENSHOTS")
        window = Viewing(context.new_page(), name, Path(folder) if folder else None)
        window.page.goto(f"{name}/login?next=/viewer/")
        window.page.fill("input[name=name]", READER)
        window.page.fill("input[name=password]", PASSWORD)
        window.page.click("button")
        window.page.get_by_role("row").filter(has_text="VIEWER").first.wait_for()
        window.open_study(str(study.study_uid))
        window.wait_for_position(1, len(images))
        window.wait_for_image(images[0])
        window.screenshot("viewer")
        assert window.foreign == []
        browser.close()
