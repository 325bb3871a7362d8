"""Kills under load, judged from the clients' own log.

`corpus` what is sent · `log` who did what when, and what came of it · `clients` DCMTK, pynetdicom and STOW-RS
with retries, racing pairs, readers · `faults` whom to kill · `lossy` a power cut that forgets what was not
synced · `readback` everything that the archive says afterwards · `judge` the invariants, on plain values ·
`inside/` what runs within the archive's processes: the book of what was synced, and the mutations that the
judge has to catch · `scenario` one seeded run of it all.
"""
