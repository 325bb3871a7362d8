"""Where this machine's own apt gets its packages, and how.

The lab needs packages of another Debian release than the machine's. They come from the same mirror by the
same way, whatever that is here; so nothing about mirrors or proxies is written down in the project.
"""

from dataclasses import dataclass

from chaos.lab.shell import LabError, run

# apt's setting, the environment variable that debootstrap's wget reads instead
_PROXIES = {"Acquire::http::Proxy": "http_proxy", "Acquire::https::Proxy": "https_proxy"}


@dataclass(frozen=True)
class Mirror:
    """Base addresses of the Debian archive and, if this machine uses it, of its security updates."""

    debian: str
    security: str | None

    def sources(self, suite: str) -> str:
        """Lines of a sources.list for another release from the same mirror."""
        key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]"
        lines = [f"deb {key} {self.debian} {name} main" for name in (suite, f"{suite}-updates")]
        if self.security:
            lines.append(f"deb {key} {self.security} {suite}-security main")
        return "\n".join(lines) + "\n"


def mirror() -> Mirror:
    """The mirror in this machine's apt sources; LabError if there is none."""
    listed = run(
        "apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)", "Created-By: Packages"
    ).decode()
    addresses = [
        fields[0] for line in listed.splitlines() if len(fields := line.split()) == 2 and fields[1] == "main"
    ]
    security = [address for address in addresses if "security" in address]
    archive = [address for address in addresses if "security" not in address and "/debian" in address]
    if not archive:
        raise LabError("apt on this machine has no source of Debian packages (component main)")
    return Mirror(archive[0], security[0] if security else None)


def environment() -> dict[str, str]:
    """Proxies that apt is told to use, as environment variables (empty without any)."""
    found = {}
    for setting, variable in _PROXIES.items():
        line = run("apt-config", "shell", "value", setting).decode().strip()
        if line:
            found[variable] = line.removeprefix("value=").strip("'")
    return found
