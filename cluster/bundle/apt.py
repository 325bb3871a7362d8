"""Where this machine's own apt gets its packages, and how.

Packages of another Debian release than the machine's come from the same mirror by the same way, whatever that
is here; so nothing about mirrors or proxies is written down in the project.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

# apt's setting, and the environment variable that debootstrap's wget reads instead
_PROXIES = {"Acquire::http::Proxy": "http_proxy", "Acquire::https::Proxy": "https_proxy"}
_SECONDS = 1200.0


class BundleError(Exception):
    """Something cannot be collected; the text says why."""


def output(*command: str, cwd: Path | None = None) -> str:
    """Run a program and return what it prints; BundleError with its complaint if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, cwd=cwd, check=False)
    if done.returncode != 0:
        raise BundleError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-2000:]}")
    return done.stdout


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
    """The mirror in this machine's apt sources; BundleError if there is none."""
    listed = output("apt-get", "indextargets", "--format", "$(REPO_URI) $(COMPONENT)", "Created-By: Packages")
    addresses = [
        fields[0] for line in listed.splitlines() if len(fields := line.split()) == 2 and fields[1] == "main"
    ]
    security = [address for address in addresses if "security" in address]
    archive = [address for address in addresses if "security" not in address and "/debian" in address]
    if not archive:
        raise BundleError("apt on this machine has no source of Debian packages (component main)")
    return Mirror(archive[0], security[0] if security else None)


def environment() -> dict[str, str]:
    """Proxies that apt is told to use, as environment variables (empty without any)."""
    found = {}
    for setting, variable in _PROXIES.items():
        line = output("apt-config", "shell", "value", setting).strip()
        if line:
            found[variable] = line.removeprefix("value=").strip("'")
    return found
