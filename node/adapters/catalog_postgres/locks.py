"""Names of advisory locks. They share one space of 64-bit numbers in the database.

Order, so that nobody waits in a circle: studies by key, then patients by key.
"""

import hashlib


def lock_key(kind: str, name: str) -> int:
    """The lock of something ("study", "patient", "seal", "migrate") as a signed 64-bit number."""
    digest = hashlib.blake2b(f"{kind}\0{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)
