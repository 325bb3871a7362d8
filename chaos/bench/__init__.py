"""How fast a deployed cluster takes images in and hands them out, beside what its own Ceph does, in one run.

Everything alternates, round by round, and counts with its median: an absolute figure holds for one machine
on one day, a ratio for longer. Intake and retrieval go through the virtual IP, from where clients stand.
`rados bench` runs on a node's host with the node's own key: the same pool, object size and concurrency. The
archive on its embedded defaults takes the same images in beside them. Then a host loses power, and intake is
measured again once the others have noticed. On a lab all of this, the load too, shares one machine's
processors: whose work took how much of their time is in the figures.

    flood.py       one image sent many times; also what `make bench` sends with
    download.py    studies by WADO-RS
    rados.py       rados bench
    embedded.py    the archive on its embedded defaults
    processors.py  processor time by program
    figures.py     medians and ratios with their targets, pure
    measuring.py   the run

What was sent stays in the archive, what `rados bench` wrote is removed.
"""
