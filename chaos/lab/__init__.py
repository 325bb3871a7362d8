"""Real Debian hosts on one machine, for tests that switch hosts off and cut cables.

A lab is three to six Debian 13 hosts. Each is a systemd-nspawn container that boots its own systemd: own
process tree, own addresses, own disk, one kernel. They are joined by a bridge in a network namespace that
has no route to anywhere; a second namespace on the same bridge is where clients (modalities, browsers, the
deploying machine) stand. Faults are made where nature makes them: power off is SIGKILL to the host's own
init, a cut cable is a dropped frame on the bridge, a frozen host is a frozen cgroup.

    rootfs.py   the Debian that all hosts start from, made once and cached
    network.py  namespaces, bridge, cut links, loss, rates
    cgroup.py   what runs on a host: count, freeze, kill
    controllers.py  memory and disk of single processes, limited
    disk.py     disks that lose in a power cut what was not synced; smalldisk.py  disks that can be filled
    host.py     one host: its disk, power, commands
    lab.py      the whole: start, stop, what a crashed run left
    records.py  which labs there are on this machine, and whose
    cli.py      python -m chaos.lab

Everything of a lab carries its name (network namespaces, cgroups, mounts, folders), so two labs never meet.
Needs root.
"""
