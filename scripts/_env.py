"""Make or update the virtual environment for one habit, and print its path. Runs on the standard library alone.

An environment is up to date when a stamp of the habit, or of a larger one, matches pyproject.toml, the Python and the
places. The stamp is written last, so an interrupted installation is done again, from the beginning if need be.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"

# Each habit has all that the one before it has: (extra of the package, dependency groups).
HABITS: dict[str, tuple[str, tuple[str, ...]]] = {
    "demo": ("demo,consul", ()),
    "test": ("all", ("test",)),
    "check": ("all", ("test", "check")),
}


def main() -> int:
    habit = sys.argv[1] if len(sys.argv) == 2 else ""
    if habit not in HABITS:
        return fail(f"usage: scripts/_env {' | '.join(HABITS)}")
    venv = Path(os.environ["MESHLIB_VENV"]).absolute()
    if not is_current(venv, habit):
        venv.parent.mkdir(parents=True, exist_ok=True)
        with (venv.parent / f"{venv.name}.lock").open("w") as lock:
            wait_for(lock)
            if not is_current(venv, habit):  # somebody else may have made it while we waited
                make(venv, habit)
    print(venv)
    return 0


def wait_for(lock: IO[str]) -> None:
    """Hold `lock` until it is closed; the kernel releases it however we end."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say("Another script is making the environment: waiting for it …")
        fcntl.flock(lock, fcntl.LOCK_EX)


def is_current(venv: Path, habit: str) -> bool:
    names = list(HABITS)
    expected = stamp(venv)
    return expected is not None and any(
        stamp_file(venv, larger).is_file() and stamp_file(venv, larger).read_text() == expected
        for larger in names[names.index(habit) :]
    )


def stamp_file(venv: Path, habit: str) -> Path:
    return venv / f".meshlib-{habit}"


def stamp(venv: Path) -> str | None:
    """Return what the environment should have been made from, None when its Python doesn't run."""
    version = python_version(venv / "bin" / "python")
    if version is None:
        return None
    return hashlib.sha256("\0".join([version, str(ROOT), str(venv), PYPROJECT.read_text()]).encode()).hexdigest()


def python_version(python: Path) -> str | None:
    if Path(sys.executable) == python:
        return sys.version
    if not python.exists():
        return None
    code = "import sys; sys.exit(sys.version_info < (3, 11) or print(sys.version))"
    asked = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    return asked.stdout.removesuffix("\n") if asked.returncode == 0 else None


def make(venv: Path, habit: str) -> None:
    python = venv / "bin" / "python"
    uv = shutil.which("uv")
    unfinished = venv / ".meshlib-unfinished"  # there if an installation was killed: who knows what it left
    first = python_version(python) is None or unfinished.exists()
    doing, how_long = ("Making", "first time: about a minute") if first else ("Updating", "usually seconds")
    say(f"{doing} the environment {venv} ({how_long}) …")
    if first:
        create(venv, uv)
    extra, groups = HABITS[habit]
    unfinished.touch()
    try:
        install(python, uv, ["--quiet", "--editable", f".[{extra}]", *requirements(groups)])
    except SystemExit:
        unfinished.unlink()  # it failed in good order
        raise
    expected = stamp(venv)
    if expected is None:
        raise SystemExit(fail(f"{python} was made but doesn't run. Remove {venv} and try again."))
    unfinished.unlink()
    stamp_file(venv, habit).write_text(expected)
    say("The environment is ready.")


def create(venv: Path, uv: str | None) -> None:
    maker = os.path.realpath(sys.executable)  # sys.executable may be in what is removed next
    if venv.exists() and any(venv.iterdir()):
        if not (venv / "pyvenv.cfg").exists():
            text = f"MESHLIB_VENV={venv} is no virtual environment, and not empty: name another directory."
            raise SystemExit(fail(text))
        say("What is there doesn't run, is too old or was left unfinished: making it anew.")
        shutil.rmtree(venv)
    if uv:
        run([uv, "venv", "--quiet", "--python", maker, venv])
        return
    run(
        [maker, "-m", "venv", venv],
        hint="On Debian and Ubuntu the package python3-venv is needed. Or install uv.",
    )


def install(python: Path, uv: str | None, what: list[str]) -> None:
    if uv:
        if succeeds([uv, "pip", "install", "--python", python, *what]):
            return
        say("uv could not install it (see above): trying pip.")
    if not has_pip(python):
        run([python, "-m", "ensurepip", "--default-pip"])
    run([python, "-m", "pip", "install", "--disable-pip-version-check", *what])


def has_pip(python: Path) -> bool:
    return subprocess.run([python, "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def requirements(groups: tuple[str, ...]) -> list[str]:
    """Return the requirements of dependency groups; read here because pip knows `--group` only since 25.1."""
    table = tomllib.loads(PYPROJECT.read_text())["dependency-groups"]
    found: list[str] = []
    for group in groups:
        for entry in table[group]:
            found += [entry] if isinstance(entry, str) else requirements((entry["include-group"],))
    return found


def run(command: list[str | Path], hint: str = "") -> None:
    if not succeeds(command):
        raise SystemExit(fail(f"This failed: {' '.join(map(str, command))}\n{hint}".rstrip()))


def succeeds(command: list[str | Path]) -> bool:
    # What an installer says goes to stderr: stdout is the path alone.
    return subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False).returncode == 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def fail(text: str) -> int:
    say(text)
    return 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
