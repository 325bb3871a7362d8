"""What the clients send, and the suite's own reading of DICOM files."""

from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file

from chaos import corpus, part10
from chaos.corpus import Corpus, Sample
from chaos.multipart import identity_of

COUNT = 200


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return corpus.make(tmp_path_factory.mktemp("corpus") / "made", COUNT, seed=5)


def test_pydicom_reads_every_sample_as_the_corpus_says(made: Corpus) -> None:
    for sample in [*made.everything, *made.rivals]:
        read = pydicom.dcmread(sample.path)
        assert read.file_meta.TransferSyntaxUID == sample.syntax
        assert read.file_meta.MediaStorageSOPInstanceUID == read.SOPInstanceUID == sample.uid
        assert (read.SOPClassUID, read.PatientID) == (sample.sop_class, sample.patient_id)
        assert (read.StudyInstanceUID, read.SeriesInstanceUID) == (sample.study, sample.series)
        assert read.pixel_array.shape == (corpus.SIZE, corpus.SIZE)
    assert {each.syntax for each in made.samples} == {corpus.EXPLICIT, corpus.IMPLICIT, corpus.RLE}


def test_all_that_could_tell_who_a_patient_is_has_the_canary(made: Corpus) -> None:
    read = pydicom.dcmread(made.samples[0].path)
    for name in ("PatientName", "PatientID", "AccessionNumber", "ReferringPhysicianName", "StudyDescription"):
        assert corpus.CANARY in str(read[name].value)


def test_a_seed_makes_the_same_bytes_and_another_seed_other_patients(made: Corpus, tmp_path: Path) -> None:
    def told(samples: list[Sample]) -> list[tuple[str, str]]:
        return [(each.uid, each.content) for each in samples]

    again = corpus.make(tmp_path / "again", COUNT, seed=5)
    assert told(again.everything) == told(made.everything)
    assert told(again.rivals) == told(made.rivals)
    other = corpus.instances(6, COUNT)
    for field in ("uid", "patient_id", "study", "series"):
        assert not {getattr(each, field) for each in other} & {
            getattr(each, field) for each in made.everything
        }
    prefix = corpus.patient_prefix(6)
    assert all(each.patient_id.startswith(prefix) for each in other)
    assert not any(each.patient_id.startswith(corpus.patient_prefix(5)) for each in corpus.instances(55, 10))


def test_who_reads_back_knows_the_instances_without_the_files(made: Corpus) -> None:
    known = corpus.all_instances([(5, 10), (5, COUNT), (5, COUNT)])
    assert sorted(each.row.uid for each in known) == sorted(each.row.uid for each in made.everything)
    assert {each.row for each in known} == {each.row for each in made.everything}


def test_rivals_have_the_same_place_and_other_bytes(made: Corpus) -> None:
    assert len(made.rivals) == COUNT // corpus.INSTANCES_PER_RIVAL
    for original, rival in zip(made.originals, made.rivals, strict=True):
        assert original.row == rival.row
        assert original.content != rival.content
    fewer = made.first(100)
    assert len(fewer) == 100
    assert len(fewer.originals) == len(fewer.rivals) == 100 // corpus.INSTANCES_PER_RIVAL


def test_files_are_taken_apart_as_pydicom_does(made: Corpus) -> None:
    for path in (Path(str(get_testdata_file("CT_small.dcm"))), made.samples[0].path):
        file = path.read_bytes()
        parts = part10.parse(file)
        meta = pydicom.filereader.read_file_meta_info(path)
        assert parts is not None
        assert (parts.uid, parts.syntax) == (meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID)
        assert file.endswith(parts.dataset)
        assert len(file) - len(parts.dataset) == 144 + meta.FileMetaInformationGroupLength
    sample = made.samples[0]
    assert identity_of(sample.file()) == (sample.uid, sample.content)
    assert sample.file().endswith(sample.dataset())
    assert pydicom.dcmread(BytesIO(sample.file())).SOPInstanceUID == sample.uid


@pytest.mark.parametrize("length", [0, 131, 140, 143, 150, 200])
def test_what_is_no_file_is_none(made: Corpus, length: int) -> None:
    assert part10.parse(made.samples[0].file()[:length]) is None
    assert identity_of(b"\r\n") == ("", "")
