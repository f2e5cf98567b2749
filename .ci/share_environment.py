"""Let several tox environments share one folder: the package brings torch, which is 5.5 GB.

tox notes the name of an environment in its folder and builds it anew when the next one to use it has another name. All
that share the folder here are made alike, so the name is taken out again. If tox changes that note, the worst that
happens is that the environment is built anew.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Take the name out of the note in the running environment."""
    note = Path(sys.prefix) / ".tox-info.json"
    if note.is_file():
        content = json.loads(note.read_text(encoding="utf-8"))
        content.pop("ToxEnv", None)
        note.write_text(json.dumps(content, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
