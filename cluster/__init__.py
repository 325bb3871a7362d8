"""Cluster tooling: topology, rendering of configuration, operations."""
