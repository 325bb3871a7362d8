"""Why the archive says no.

There is one exception for every refusal that a client is told about, with a reason out of a short
list. Each edge owns a table from reason to its own protocol's status (`node.dimse.status`,
`node.web.status`). Anything that is not a `Refusal` is a fault of ours: it is logged and the client
learns nothing but "internal".
"""

from enum import Enum


class Reason(Enum):
    """What went wrong, in the archive's terms. The value is the label used in metrics and logs."""

    # The client's data
    INVALID_UID = "invalid_uid"  # a UID that PS3.5 section 9.1 forbids
    MISMATCH = "mismatch"  # dataset and command, or dataset and address, name different things
    NOT_UNDERSTOOD = "not_understood"  # truncated, malformed or not what the syntax promises
    CONFLICT = "conflict"  # other bytes are already stored under this SOP Instance UID
    UNSUPPORTED_CLASS = "unsupported_class"  # a SOP class that this archive does not take
    TOO_LARGE = "too_large"  # beyond a limit of the configuration
    INVALID_QUERY = "invalid_query"  # a key, parameter or range that cannot be evaluated
    # The client itself
    NOT_AUTHENTICATED = "not_authenticated"
    NOT_ALLOWED = "not_allowed"
    TOO_MANY = "too_many"  # over a limit on associations or rate
    # What was asked for
    NOT_FOUND = "not_found"
    NOT_ACCEPTABLE = "not_acceptable"  # it exists, but not in a form that the client takes
    UNKNOWN_DESTINATION = "unknown_destination"  # C-MOVE to an AE title nobody configured
    CANCELLED = "cancelled"
    # Us
    STORE_FULL = "store_full"  # no room for objects or for rows
    UNAVAILABLE = "unavailable"  # catalog or objects do not answer, or are read-only
    CORRUPT = "corrupt"  # stored bytes fail their digest; they are never sent


class Refusal(Exception):
    """A request is declined for `reason`.

    `comment` goes to the client and to logs: it names limits, tags and offsets, never a value out of
    a dataset, so that it cannot carry patient data. It fits DICOM's Error Comment (LO, 64 characters).
    """

    def __init__(self, reason: Reason, comment: str = "") -> None:
        super().__init__(f"{reason.value}: {comment}" if comment else reason.value)
        self.reason = reason
        self.comment = comment[:64]
