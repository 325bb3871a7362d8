"""Tests of the cluster's tools, on real etcd, HAProxy and node processes on loopback."""
