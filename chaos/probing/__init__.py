"""Write probes: on every host one that writes to that host's own PostgreSQL five times a second.

on_host.py   the program that runs there; knows nothing of this project
probes.py    one on each host, started again whenever its host is back; what was acknowledged, on disk

They go past proxies and pools, so they also meet a primary that nobody is sent to any more; see
`chaos.primaries` for the judgement.
"""
