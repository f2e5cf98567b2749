"""Install the system packages that Qt, OpenGL and the tests need, or print the command that does.

Needs nothing but Python's standard library. Ends with status 1 where packages are missing and cannot be installed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from napari_dinobloom.doctor import apt_command, missing_packages


def main() -> int:
    """Install what is missing; 0 if nothing is missing in the end."""
    missing = missing_packages(tests=True)
    if not missing:
        print("System packages: all there.")
        return 0
    print(f"System packages missing: {' '.join(missing)}", flush=True)
    rights = _rights()
    if rights is None:
        print(f"They cannot be installed from here. Run this, then try again:\n\n    {apt_command(missing)}\n")
        return 1
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update", "-q"], ["install", "-y", "-q", "--no-install-recommends", *missing]):
        command = [*rights, "apt-get", *words]
        print("$", *command, flush=True)
        if subprocess.run(command, env=environment, check=False).returncode:
            print(f"That failed. Run this where it is permitted, then try again:\n\n    {apt_command(missing)}\n")
            return 1
    left = missing_packages(tests=True)
    if left:
        print(f"Installed, but still not found: {' '.join(left)}")
    return 1 if left else 0


def _rights() -> list[str] | None:
    """Words to put before apt-get: none for root, sudo if it asks for no password, None where it is not permitted."""
    if shutil.which("apt-get") is None:
        return None
    if os.geteuid() == 0:
        return []
    asked = ["sudo", "-n", "true"]
    if shutil.which("sudo") and subprocess.run(asked, capture_output=True, check=False).returncode == 0:
        return ["sudo", "-n", "DEBIAN_FRONTEND=noninteractive"]
    return None


if __name__ == "__main__":
    sys.exit(main())
