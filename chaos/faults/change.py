"""Changes that nobody may notice."""

import random
import time

from chaos import deploy, release
from chaos.deployed import Deployed
from chaos.faults.fault import Expect, Fault, Inject, Injected

RATE = 3.0  # on a lab, Ansible takes most of the processors
# Of each tier one that nothing else demands in exactly its version
PROGRAMS = ("etcd-server", "postgresql-17", "ceph-osd", "haproxy", "keepalived", "prometheus")


def _upgrade(*packages: str) -> Inject:
    """Every host gets another release, and Debian's packages of these names under higher versions; then the
    release that was there before."""

    def inject(cluster: Deployed, _generator: random.Random) -> Injected:
        suffix = f"+chaos{time.time():.0f}"  # higher than that of an earlier run
        bundle = release.raised(deploy.BUNDLE, deploy.BUNDLE.with_name("bundle-raised"), packages, suffix)
        deploy.upgrade(cluster.lab, bundle)
        return Injected("every host", lambda: deploy.upgrade(cluster.lab, deploy.BUNDLE))

    return inject


def _rotate(asked: str, then: str = "") -> Inject:
    """New certificates for every host; `asked`, `then`: variables of the playbook and of its second run."""

    def inject(cluster: Deployed, _generator: random.Random) -> Injected:
        def play(variables: str) -> None:
            deploy.play(cluster.lab, "rotate_certificates.yml", "--extra-vars", variables)

        play(asked)
        return Injected("every host", lambda: play(then) if then else None)

    return inject


FAULTS = (
    Fault(
        "rolling-upgrade",
        "Change",
        "another release, host by host, and back",
        5,
        _upgrade(),
        making_seconds=2 * deploy.UPGRADE_SECONDS,
        whole_seconds=deploy.UPGRADE_SECONDS,
        expects=Expect.UNNOTICED,
        roles_stay=True,
        rate=RATE,
    ),
    # A primary that is handed over and an address that moves break what runs through them: clients try again
    Fault(
        "packages",
        "Change",
        "the same, and every tier's programs",
        5,
        _upgrade(*PROGRAMS),
        making_seconds=2 * deploy.UPGRADE_SECONDS,
        whole_seconds=deploy.UPGRADE_SECONDS,
        rate=RATE,
    ),
    Fault(
        "certificates",
        "Change",
        "new certificates, host by host",
        5,
        _rotate("stele_renew_all=true"),
        making_seconds=deploy.DEPLOY_SECONDS,
        roles_stay=True,
        rate=RATE,
    ),
    Fault(
        "authority",
        "Change",
        "a new authority; the old retires",
        5,
        _rotate("stele_authority=new", "stele_authority=retire"),
        making_seconds=2 * deploy.DEPLOY_SECONDS,
        whole_seconds=deploy.DEPLOY_SECONDS,
        rate=RATE,
    ),
)
