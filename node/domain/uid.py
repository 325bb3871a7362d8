"""Unique identifiers (PS3.5 section 9)."""

import re
import uuid

from node.domain.errors import Reason, Refusal

# Components with leading zeros are forbidden by section 9.1 and yet occur in real images, so they pass.
# `[0-9]` rather than `\d`, which would take digits of other scripts.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")


def check_uid(uid: str) -> str:
    """Return `uid` if it is well formed, else raise Refusal(INVALID_UID) (PS3.5 section 9.1).

    1 to 64 characters, digits and dots, no empty component. Leading zeros are tolerated.
    """
    if len(uid) > 64 or not _UID.fullmatch(uid):
        raise Refusal(Reason.INVALID_UID, "a UID is 1 to 64 digits and dots")
    return uid


def new_uid() -> str:
    """A fresh UID under 2.25 (PS3.5 section B.2)."""
    return f"2.25.{uuid.uuid4().int}"
