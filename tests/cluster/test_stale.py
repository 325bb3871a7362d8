"""The script that deployment asks which programs run otherwise than they are installed."""

import subprocess
from pathlib import Path

from tests.support import require

STALE = Path(__file__).parents[2] / "ansible/roles/files/files/stale"

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
