"""What this machine offers and lacks, as data; the command line prints it.

At module level only the standard library is imported, so that the project's own setup can ask for missing system
packages before anything is installed.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from napari_dinobloom.encoders.speed import Speed

Status = Literal["ok", "note", "problem"]

QT_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
"""In the order in which napari would take them."""

LITTLE_DISK_GIB = 2.0
"""Below this a study of a few thousand fields, or the larger weights, may not fit."""


LITTLE_MEMORY_GIB = 2.0
"""Below this a run may not fit beside the system."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the examination.

    Attributes
    ----------
    topic : str
        What was looked at ("torch").
    status : str
        ``ok``; ``note``: works, with something to know; ``problem``: a part of the program will not work.
    value : str
        What was found ("2.14.1, CUDA 13.0").
    remedy : str
        What to do; empty for ``ok``.
    """

    topic: str
    status: Status
    value: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class SystemNeed:
    """A part of the operating system that windows, or their tests, need on Linux.

    Attributes
    ----------
    package : str
        Name of the Debian and Ubuntu package.
    libraries : tuple of str
        Names of shared libraries that must load.
    program : str
        Name of a program that must be found; empty for none.
    files : tuple of str
        Patterns below ``/usr``, of one of which a file must exist; empty for none.
    tests_only : bool
        Whether only the test suite needs it.
    """

    package: str
    libraries: tuple[str, ...] = ()
    program: str = ""
    files: tuple[str, ...] = ()
    tests_only: bool = False

    @property
    def present(self) -> bool:
        """Whether the machine has it."""
        if self.program and shutil.which(self.program) is None:
            return False
        if self.files and not any(found for pattern in self.files for found in Path("/usr").glob(pattern)):
            return False
        return all(_loads(library) for library in self.libraries)


SYSTEM_NEEDS: tuple[SystemNeed, ...] = (
    SystemNeed("libgl1", ("libGL.so.1",)),
    SystemNeed("libgl1-mesa-dri", files=("lib/*/dri/*_dri.so", "lib*/dri/*_dri.so")),
    SystemNeed("libegl1", ("libEGL.so.1",)),
    SystemNeed("libopengl0", ("libOpenGL.so.0",)),
    SystemNeed("libglib2.0-0", ("libglib-2.0.so.0", "libgthread-2.0.so.0")),
    SystemNeed("libfontconfig1", ("libfontconfig.so.1",)),
    SystemNeed("libdbus-1-3", ("libdbus-1.so.3",)),
    SystemNeed("libxkbcommon-x11-0", ("libxkbcommon-x11.so.0",)),
    SystemNeed("libxcb-cursor0", ("libxcb-cursor.so.0",)),
    SystemNeed("libxcb-icccm4", ("libxcb-icccm.so.4",)),
    SystemNeed("libxcb-image0", ("libxcb-image.so.0",)),
    SystemNeed("libxcb-keysyms1", ("libxcb-keysyms.so.1",)),
    SystemNeed("libxcb-render-util0", ("libxcb-render-util.so.0",)),
    SystemNeed("libxcb-shape0", ("libxcb-shape.so.0",)),
    SystemNeed("libxcb-xinerama0", ("libxcb-xinerama.so.0",)),
    SystemNeed("xvfb", program="Xvfb", tests_only=True),
    SystemNeed("xauth", program="xauth", tests_only=True),
)
"""What Qt 6 and OpenGL want to find on Debian and Ubuntu; other systems bring it along."""


def examine(folders: Sequence[Path] = ()) -> list[Finding]:
    """Look at Python, torch, the device, Qt, system libraries, the package's own files, folders and disk.

    Parameters
    ----------
    folders : sequence of Path
        Folders to look at beside the package's own (say, where studies are kept).

    Returns
    -------
    list of Finding
        Never raises for what it finds: an import that fails is a finding.
    """
    findings = [_python(), _memory(), *_torch(), _window(), *_system_libraries(), _weights(), *_encoders()]
    findings += [_folder("Data folder", _home()), _folder("Current folder", Path.cwd())]
    findings += [_folder("Folder", folder) for folder in folders]
    return findings


def measure(seconds: float = 4.0) -> list[Finding]:
    """Measure how fast this machine embeds; about ten seconds with the defaults.

    Parameters
    ----------
    seconds : float
        Time for each number format.
    """
    try:
        from napari_dinobloom.encoders.speed import measure_speed

        found = measure_speed(seconds=seconds)
    except Exception as error:  # whatever is wrong with torch or the device, the rest of the examination stands
        return [Finding("Speed", "problem", f"could not be measured: {error}".splitlines()[0], "See torch, Device.")]
    findings = []
    for speed in found:
        minutes = 10_000 / speed.per_second / 60
        value = (
            f"{speed.encoder} on {speed.device} in {speed.precision}: {speed.per_second:.0f} cells per second, "
            f"{minutes:.1f} min for 10,000"
        )
        findings.append(Finding("Speed", "ok", value))
    return findings + _advice(found)


def _advice(found: Sequence[Speed]) -> list[Finding]:
    """What would make embedding faster here."""
    import torch

    from napari_dinobloom.encoders.device import resolve_device, resolve_precision

    advice = []
    device = resolve_device("auto")
    best = max(found, key=lambda speed: speed.per_second)
    if device.type == "cpu" and best.precision != resolve_precision("auto", device):
        times = best.per_second / found[0].per_second
        remedy = f"--precision bf16 is {times:.1f} times as fast here (cosine to float32 above 0.999)."
        advice.append(Finding("Number format", "note", "float32 is the default on a CPU", remedy))
    cores, used = os.cpu_count() or 1, torch.get_num_threads()
    if device.type == "cpu" and used < cores // 2:
        remedy = "Set OMP_NUM_THREADS to the number of physical cores, or unset it."
        advice.append(Finding("Cores", "note", f"torch uses {used} of {cores}", remedy))
    return advice


def missing_packages(*, tests: bool = False) -> list[str]:
    """Debian names of the system packages that windows lack on this machine; empty where none is needed.

    Parameters
    ----------
    tests : bool
        Also what only the test suite needs (an X server without a screen).
    """
    if not sys.platform.startswith("linux"):
        return []
    return [need.package for need in SYSTEM_NEEDS if (tests or not need.tests_only) and not need.present]


def apt_command(packages: Sequence[str]) -> str:
    """Command for a terminal that installs `packages` on Debian or Ubuntu."""
    sudo = "" if _is_root() else "sudo "
    return f"{sudo}apt-get update && {sudo}apt-get install -y --no-install-recommends {' '.join(packages)}"


def _python() -> Finding:
    """Python and the platform."""
    own = _version("napari-dinobloom") or "not installed"
    value = f"{platform.python_version()} on {platform.platform(terse=True)}, {os.cpu_count()} cores; package {own}"
    return Finding("Python", "ok", value)


def _memory() -> Finding:
    """Main memory, all of it and what is free."""
    try:
        import psutil
    except ImportError:
        return Finding("Memory", "note", "unknown: psutil is missing", "Install napari-dinobloom again.")
    memory = psutil.virtual_memory()
    value = f"{memory.total / 2**30:.0f} GiB, {memory.available / 2**30:.0f} GiB free"
    if memory.available < LITTLE_MEMORY_GIB * 2**30:
        return Finding("Memory", "note", value, "Close other programs: a run takes about 1 GiB, DinoBloom-G 5 GiB.")
    return Finding("Memory", "ok", value)


def _torch() -> list[Finding]:
    """Whether torch and torchvision import together, and on what they compute."""
    again = "Reinstall both from one registry: pip install --force-reinstall torch torchvision"
    try:
        import torch
        import torchvision
    except Exception as error:  # broken builds of torch raise RuntimeError, OSError and others on import
        return [Finding("torch", "problem", f"does not import: {error}".splitlines()[0], again)]
    others = f"torchvision {torchvision.__version__}, timm {_version('timm') or 'missing'}"
    versions = Finding("torch", "ok", f"{torch.__version__}, {others}")
    if torch.cuda.is_available():
        try:
            return [versions, *(_card(number) for number in range(torch.cuda.device_count()))]
        except Exception as error:  # a driver that is broken or older than torch
            value = f"the graphics card does not answer: {error}".splitlines()[0]
            remedy = "Update the driver, or set CUDA_VISIBLE_DEVICES= (empty) to do without the card."
            return [versions, Finding("Device", "problem", value, remedy)]
    if torch.backends.mps.is_available():
        return [versions, Finding("Device", "ok", "Apple GPU (mps)")]
    note = "No graphics card is used. The starter encoder needs none; large encoders are slow without one."
    return [versions, Finding("Device", "note", f"CPU, {torch.get_num_threads()} threads", note)]


def _card(number: int) -> Finding:
    """One graphics card and its memory."""
    import torch

    free, total = (value / 2**30 for value in torch.cuda.mem_get_info(number))
    name = torch.cuda.get_device_name(number)
    return Finding(f"Device cuda:{number}", "ok", f"{name}, {total:.0f} GiB, {free:.0f} GiB free")


def _window() -> Finding:
    """Whether napari and a Qt binding are installed; neither is imported."""
    napari = _version("napari")
    if napari is None:
        return Finding("napari", "note", "not installed", 'For the plugin: pip install "napari-dinobloom[all]"')
    found = [f"{name} {_version(name)}" for name in QT_BINDINGS if find_spec(name) is not None]
    if not found:
        remedy = 'The command line works. For the plugin: pip install "napari-dinobloom[all]"'
        return Finding("napari", "note", f"{napari}, no Qt binding", remedy)
    return Finding("napari", "ok", f"{napari}, {', '.join(found)}")


def _system_libraries() -> list[Finding]:
    """System packages that windows lack (Linux only)."""
    if not sys.platform.startswith("linux"):
        return []
    lacking = missing_packages()
    if not lacking:
        return [Finding("System libraries", "ok", "all that Qt and OpenGL need")]
    remedy = f"The command line works. For windows, on Debian or Ubuntu: {apt_command(lacking)}"
    return [Finding("System libraries", "note", f"missing: {', '.join(lacking)}", remedy)]


def _weights() -> Finding:
    """Whether the bundled encoder came along with the installation."""
    path = Path(__file__).parent / "weights" / "starter.safetensors"
    if not path.is_file():
        return Finding("Starter encoder", "problem", f"{path} is missing", "Install napari-dinobloom again.")
    return Finding("Starter encoder", "ok", f"{path.stat().st_size / 1e6:.1f} MB in the package")


def _encoders() -> list[Finding]:
    """Which published and imported encoders are on this machine, and whether their files are the right ones."""
    try:
        from napari_dinobloom.encoders.inventory import holdings
        from napari_dinobloom.encoders.library import cache_folder

        held = [one for one in holdings() if one.state not in ("absent", "bundled")]
        folder = _folder("Weights folder", cache_folder())
    except Exception as error:  # an installation may lack any library
        return [Finding("Encoders", "problem", f"{error}".splitlines()[0], "Mend what is named, or install again.")]
    listed = ", ".join(f"{one.spec.name} ({one.state})" for one in held) or "none beside the starter"
    wrong = [one for one in held if one.problem]
    if wrong:
        return [Finding("Encoders", "problem", listed, " ".join(one.problem for one in wrong)), folder]
    if any(one.state in ("unverified", "unchecked") for one in held):
        remedy = (
            "unverified: no hash is published, the first one seen is kept; `napari-dinobloom weights verify` checks."
        )
        return [Finding("Encoders", "note", listed, remedy), folder]
    return [Finding("Encoders", "ok", listed), folder]


def _folder(topic: str, folder: Path) -> Finding:
    """Whether `folder` can be written, and how much room its disk has."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free / 2**30
    value = f"{folder}, {free:.1f} GiB free"
    if not os.access(there, os.W_OK):
        return Finding(topic, "problem", f"{value}, read-only", f"Make {there} writable or choose another folder.")
    if free < LITTLE_DISK_GIB:
        return Finding(topic, "note", value, f"Little room: below {LITTLE_DISK_GIB:.0f} GiB a large study may not fit.")
    return Finding(topic, "ok", value)


def _home() -> Path:
    """Folder in which the package keeps what belongs to this user and machine."""
    from napari_dinobloom.io.locations import home

    return home()


def _version(distribution: str) -> str | None:
    """Installed version of `distribution`, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _loads(library: str) -> bool:
    """Whether the dynamic linker finds `library`."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _is_root() -> bool:
    """Whether this process may install packages without sudo."""
    getuid: Callable[[], int] | None = getattr(os, "geteuid", None)
    return getuid is not None and getuid() == 0
