"""What deployment asks of a host: which programs run otherwise than they are installed, what it owes."""

import re
import subprocess
from pathlib import Path

from tests.support import require

ROLES = Path(__file__).parents[2] / "ansible/roles"
STALE = ROLES / "files/files/stale"

# In a mount namespace of its own, where /opt is empty
_TRY = """
set -eu
mount -t tmpfs none /opt
cp "$(command -v sleep)" /opt/sleep
/opt/sleep 60 &
trap "kill $!" EXIT
until [ "$(readlink /proc/$!/exe)" = /opt/sleep ]; do :; done
echo $! >/opt/number
echo "fresh: $(sh {stale} /opt/number /opt/none)"
cp /opt/sleep /opt/sleep.new
mv /opt/sleep.new /opt/sleep
echo "replaced: $(sh {stale} /opt/none /opt/number)"
"""


def test_a_program_that_was_replaced_while_it_runs_is_told() -> None:
    require("unshare", needs_root=True)
    script = _TRY.format(stale=STALE)
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fresh: \nreplaced: /opt/number\n"


def test_what_stands_beside_a_units_files_is_said_in_one_place() -> None:
    """Whoever deploys a tier and whoever asks what its host owes have to count the same."""
    places = [
        path.relative_to(ROLES)
        for path in sorted(ROLES.rglob("*.yml"))
        if re.search(r"^\s*files_(beside|release):", path.read_text(), re.MULTILINE)
    ]
    assert {path.parts[0] for path in places} == {"files"}
