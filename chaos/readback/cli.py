"""`python -m chaos.readback`: list and retrieve what histories tell of, through every address given.

Run it when everything is healed and quiet, then judge with `python -m chaos check`. Exit codes: 0, whatever
was read; 2 for wrong options.
"""

import argparse
import json
from pathlib import Path

from chaos import corpus, history, options
from chaos.error_pages import ErrorPages
from chaos.readback.whole import read_everything, save


def main(argv: list[str] | None = None) -> int:
    """Run it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m chaos.readback", description=__doc__)
    options.add(parser)
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="what was read, as JSON")
    parser.add_argument("--whole", action="store_true", help="list all patients, not the histories' only")
    parser.add_argument("histories", metavar="HISTORY", type=Path, nargs="+")
    given = parser.parse_args(argv)
    try:
        where = options.Addresses(given)
        dicom, web = where.dicom(given.dicom), where.web(given.http)
        corpora = history.read(given.histories).corpora
    except (ValueError, OSError) as error:
        parser.error(str(error))
    seen = read_everything(
        dicom,
        web,
        corpus.all_instances(corpora),
        ErrorPages(given.out.with_name(f"{given.out.name}.pages")),
        [""] if given.whole else sorted({corpus.patient_prefix(seed) for seed, _ in corpora}),
    )
    save(seen, given.out)
    told = {name: len(listing.instances) for name, listing in seen.listings.items()}
    told |= {name: len(contents) for name, contents in seen.retrieved.items()}
    print(json.dumps({**told, "unread": seen.unread}), flush=True)
    return 0
