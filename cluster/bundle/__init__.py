"""Everything that a cluster's hosts install, in one folder: for hosts without a way to the internet.

    apt.py      where this machine's own apt gets its packages, and how
    debian.py   Debian packages with all they depend on, as a repository
    wheels.py   the project's wheel and its locked dependencies, for the hosts' Python
    archive.py  both, with the viewer, as two archives and a manifest

Who trusts what: apt checks Debian's signatures when packages are collected; the manifest has the SHA-256 of
each archive; deployment checks it on the way to every host, over SSH. On the host the repository is marked as
trusted, since what it could be signed with would lie in the same archive.
"""
