"""What processes leave that are killed while they write."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_CODE = """
import os, sys
from pathlib import Path
from titles.data.scratch import scratch
made = scratch(Path(sys.argv[1]))
place = made.__enter__()
(place / "half").touch()
os.write(1, os.fsencode(place))
os._exit(9)
"""


def killed(path: Path) -> Path:
    """The scratch folder of a process that was killed while it wrote to a path."""
    done = subprocess.run([sys.executable, "-c", _CODE, path], stdout=subprocess.PIPE, check=False)
    return Path(os.fsdecode(done.stdout))
