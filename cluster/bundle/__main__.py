"""`python -m cluster.bundle VIEWER TARGET`: everything that a cluster's hosts install, in one folder."""

import argparse
import sys
import time
from pathlib import Path

from cluster.bundle import archive
from cluster.bundle.apt import BundleError


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m cluster.bundle", description=__doc__)
    parser.add_argument("viewer", type=Path, help="folder of the prepared viewer")
    parser.add_argument("target", type=Path, help="folder to make")
    options = parser.parse_args()
    target = options.target.resolve()
    began = time.monotonic()
    try:
        made = archive.build(Path.cwd(), options.viewer.resolve(), target, target.with_name("bundle-work"))
    except BundleError as reason:
        print(f"stele bundle: {reason}", file=sys.stderr)
        return 1
    print(f"{target}: Stele {made['version']}, {made['debian_packages']} Debian packages", end=", ")
    print(f"{time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
