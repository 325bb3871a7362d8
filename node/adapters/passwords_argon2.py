"""Passwords hashed with argon2id (RFC 9106), with argon2-cffi's current default parameters."""

import argon2


class Argon2Passwords:
    """The `Passwords` port on argon2id."""

    def __init__(self) -> None:
        self._hasher = argon2.PasswordHasher()

    def hash(self, password: str) -> str:
        """The encoded hash, with its salt and parameters."""
        return self._hasher.hash(password)

    def verify(self, hashed: str, password: str) -> bool:
        """Whether the password is the one that was hashed."""
        try:
            return self._hasher.verify(hashed, password)
        except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
            return False
