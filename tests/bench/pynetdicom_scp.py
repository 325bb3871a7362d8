"""The bare pynetdicom SCP of the benchmark: writes the dataset's raw bytes to a file, promises nothing.

python -m tests.bench.pynetdicom_scp PORT FOLDER
"""

import sys
from pathlib import Path
from typing import Any

from pynetdicom import AE, AllStoragePresentationContexts, evt

folder = Path(sys.argv[2])


def handle_store(event: evt.Event) -> int:
    """Write and acknowledge."""
    request: Any = event.request
    (folder / str(request.AffectedSOPInstanceUID)).write_bytes(request.DataSet.getvalue())
    return 0


ae = AE("PYNETDICOM")
ae.maximum_associations = 100
ae.maximum_pdu_size = 131072
for context in AllStoragePresentationContexts:
    ae.add_supported_context(str(context.abstract_syntax))
ae.start_server(("127.0.0.1", int(sys.argv[1])), evt_handlers=[(evt.EVT_C_STORE, handle_store)])
