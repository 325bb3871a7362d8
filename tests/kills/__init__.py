"""Kills of one embedded archive under load; who sends, records and judges is in `chaos`.

`faults` whom to kill · `lossy` a power cut that forgets what was not synced · `inspection` what can be asked
of an archive on this machine only · `inside/` what runs within the archive's processes: the book of what was
synced, and the mutations that the checks have to catch · `scenario` one seeded run of it all.
"""
