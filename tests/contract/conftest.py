"""Fixtures that the suites of several ports share."""

from tests.ceph import ceph_cluster

__all__ = ["ceph_cluster"]
