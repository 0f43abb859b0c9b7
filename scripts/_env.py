"""Make or update the virtual environment for one habit, and print its path. Runs on the standard library alone.

An environment is up to date when a stamp of the habit, or of a larger one, matches pyproject.toml, the Python and the
places. The stamp is written last, so an interrupted installation is simply done again.
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

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"

NO_NOTICE = "--disable-pip-version-check"

# Each habit has all that the one before it has: (extra of the package, dependency groups).
HABITS: dict[str, tuple[str, tuple[str, ...]]] = {
    "demo": ("demo", ()),
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
            fcntl.flock(lock, fcntl.LOCK_EX)  # released by the kernel, however we end
            if not is_current(venv, habit):  # somebody else may have made it while we waited
                make(venv, habit)
    print(venv)
    return 0


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
    first = python_version(python) is None
    doing, how_long = ("Making", "first time: about a minute") if first else ("Updating", "usually seconds")
    say(f"{doing} the environment {venv} ({how_long}) …")
    if first:
        create(venv, uv)
    elif uv is None and not has_pip(python):
        run([python, "-m", "ensurepip", "--default-pip"])
    extra, groups = HABITS[habit]
    installer = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install", NO_NOTICE]
    run([*installer, "--quiet", "--editable", f".[{extra}]", *requirements(groups)])
    expected = stamp(venv)
    if expected is None:
        raise SystemExit(fail(f"{python} was made but doesn't run. Remove {venv} and try again."))
    stamp_file(venv, habit).write_text(expected)
    say("The environment is ready.")


def create(venv: Path, uv: str | None) -> None:
    if venv.exists() and any(venv.iterdir()):
        if not (venv / "pyvenv.cfg").exists():
            text = f"MESHLIB_VENV={venv} is no virtual environment, and not empty: name another directory."
            raise SystemExit(fail(text))
        say(f"The Python of {venv} doesn't run or is too old: making it anew.")
        shutil.rmtree(venv)
    if uv:
        run([uv, "venv", "--quiet", "--python", sys.executable, venv])
        return
    run(
        [sys.executable, "-m", "venv", venv],
        hint="On Debian and Ubuntu the package python3-venv is needed. Or install uv.",
    )


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
    # What an installer says goes to stderr: stdout is the path alone.
    ended = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=sys.stderr, check=False)
    if ended.returncode:
        text = f"This failed with status {ended.returncode}: {' '.join(map(str, command))}\n{hint}".rstrip()
        raise SystemExit(fail(text))


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
