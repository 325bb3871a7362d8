"""Keeping pynetdicom and pydicom from writing what they see into logs.

Both put values into their messages: identifiers, UIDs, names that do not decode. What an operator needs
to know of associations, the node logs itself, without values.
"""

import logging
import warnings

import pydicom.config
from pynetdicom import _config


def quiet() -> None:
    """Silence both libraries in this process; may be called again."""
    _config.LOG_HANDLER_LEVEL = "none"
    _config.LOG_REQUEST_IDENTIFIERS = False
    _config.LOG_RESPONSE_IDENTIFIERS = False
    _config.CODECS = ("ascii", "latin-1")  # some write their version's name in their own language
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    warnings.filterwarnings("ignore", module="pydicom")
    warnings.filterwarnings("ignore", module="pynetdicom")
