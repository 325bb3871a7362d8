"""One DIMSE process: everything wired, served until told to stop."""

import threading

from pydicom.uid import UID
from pynetdicom import AE

from node import lasting
from node.config import Settings
from node.dimse import command as commands
from node.dimse import contexts, find, retrieve, store
from node.dimse.association import Edge
from node.dimse.gate import Gate
from node.dimse.limits import Rates
from node.dimse.listener import Listener
from node.domain.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from node.quiet import quiet
from node.services.archive import Archive

STOP_SECONDS = 20.0  # within the supervisor's patience


def listener(settings: Settings, archive: Archive) -> Listener:
    """The DICOM ports of this process, not started yet."""
    quiet()
    dicom = settings.dicom
    ae = AE(settings.ae_title)
    ae.implementation_class_uid = UID(IMPLEMENTATION_CLASS_UID)
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_associations = dicom.max_associations + dicom.max_pending  # ours are the limits that count
    edge = Edge(
        settings=settings,
        archive=archive,
        ae=ae,
        contexts={str(each.abstract_syntax): each for each in contexts.supported(dicom.extra_sop_classes)},
        services={
            commands.C_ECHO_RQ: store.echo,
            commands.C_STORE_RQ: store.store,
            commands.C_FIND_RQ: find.find,
            commands.C_MOVE_RQ: retrieve.move,
            commands.C_GET_RQ: retrieve.get,
        },
        rates=Rates(),
        stopping=threading.Event(),
    )
    gate = Gate(
        archive.policy,
        own_title=settings.ae_title,
        any_called_ae=dicom.any_called_ae,
        proxies=dicom.proxies,
        request_seconds=dicom.request_seconds,
    )
    return Listener(edge, gate)


def serve(settings: Settings, archive: Archive, stop: threading.Event) -> None:
    """Serve DICOM until `stop` is set; associations get a while to finish what they have begun."""
    ports = listener(settings, archive)
    lasting.settle()
    ports.start()
    stop.wait()
    ports.stop(STOP_SECONDS)
