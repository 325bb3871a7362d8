"""Clients that send and read as modalities and workstations do, and note every operation.

sending.py         the loop of every sender: what is due, what is tried again, when it is final
programs.py        programs that run for clients, and their end
storescu.py        DCMTK
pynetdicom_scu.py  pynetdicom, in a process of its own
stow.py            STOW-RS
association.py     an association on a plain socket
racing.py          pairs that send one UID with different bytes at the same time
deleting.py        deletion of some of it, and whether it stays away
reading.py         QIDO-RS and WADO-RS of what has just been acknowledged
traffic.py         all of them
greedy.py          clients that take more than their share: python -m chaos.traffic.greedy
cli.py             python -m chaos.traffic
"""
