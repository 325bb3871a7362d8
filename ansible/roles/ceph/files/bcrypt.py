"""Takes bcrypt's place in Ceph's managers.

Debian 13's bcrypt is written in Rust (PyO3) and cannot be loaded by the several interpreters of one process
that ceph-mgr runs its modules in: without this, no module loads, and there are no metrics. They import it
for the dashboard's passwords only, and the dashboard is not used. Ceph 18.2,
https://github.com/ceph/ceph/pull/57926
"""


def gensalt(*_: object) -> bytes:
    """Refuses: nobody hashes passwords here."""
    raise NotImplementedError("bcrypt is switched off in this manager")


def hashpw(*_: object) -> bytes:
    """Refuses: nobody hashes passwords here."""
    raise NotImplementedError("bcrypt is switched off in this manager")
