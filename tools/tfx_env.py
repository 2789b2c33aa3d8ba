"""An environment with TFX, beside the checkout's own: `python tools/tfx_env.py make`, then `... run COMMAND...`.

TFX's wheels need glibc 2.39. Where the system has it, the environment is a venv; elsewhere it is a Debian 13 root with
a venv in it, made with debootstrap from the mirror that apt uses, which takes root. Environments are kept in the user's
cache (or `$TFDLRM_TFX_DIR`) by what they are made of, setup.cfg and this file, so that clones share them; one that was
not finished is begun again, and those that nobody used for a week are removed. Commands run in the checkout.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
SOURCE = "/src"  # the checkout within a root
VENV = "/venv"
SUITE = "trixie"
GLIBC = (2, 39)
PACKAGES = ("python3", "python3-venv", "python3-dev", "ca-certificates", "g++", "make")
INSTALL = ".[tfx,test-tfx]"
_PARTIAL = ".partial"
_KEPT_SECONDS = 7 * 24 * 3600
# what a root needs of the machine's network set-up, where it is there
_CONFIGURATION = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs", "/usr/local/share/ca-certificates")


def has_glibc() -> bool:
    """Whether TFX's wheels run on this system."""
    library, version = platform.libc_ver()
    return library == "glibc" and tuple(map(int, version.split(".")[:2])) >= GLIBC


def folder() -> Path:
    """Where the environment is or will be."""
    cache = Path(os.environ.get("TFDLRM_TFX_DIR") or Path.home() / ".cache" / "tfdlrm" / "tfx")
    digest = hashlib.sha256()
    for file in (CHECKOUT / "setup.cfg", Path(__file__)):
        digest.update(file.read_bytes())
    return cache / digest.hexdigest()[:16]


def mirror_of(sources: str) -> str | None:
    """The first Debian mirror of apt's sources, in either of their forms; comments are none."""
    for line in sources.splitlines():
        found = re.match(r"(?:URIs:|deb\s+(?:\[[^\]]*\]\s+)?)\s*(https?://\S+)", line)
        if found and "security" not in found[1]:
            return found[1]
    return None


def make() -> Path:
    """Makes the environment if it is not there.

    Raises:
        SystemExit: it cannot be made here; says why in one line.
    """
    done = folder()
    done.parent.mkdir(parents=True, exist_ok=True)
    with (done.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # until it is closed
        if not done.is_dir():
            _make(done)
    os.utime(done)
    return done


def _make(done: Path) -> None:
    for old in done.parent.iterdir():
        if old.is_dir() and (old.suffix == _PARTIAL or time.time() - old.stat().st_mtime > _KEPT_SECONDS):
            shutil.rmtree(old, ignore_errors=True)
    partial = done.with_suffix(_PARTIAL)
    partial.mkdir()
    if has_glibc():
        _call([sys.executable, "-m", "venv", str(partial / "venv")])
    else:
        _make_root(partial)
    python = _python(partial)
    _call(_inside(partial, [python, "-m", "pip", "install", "--quiet", "uv"]))
    _call(
        _inside(partial, [python, "-m", "uv", "pip", "install", "--quiet", "--python", python, "--editable", INSTALL])
    )
    # imports of TFX take half a minute without
    _call(
        _inside(partial, [python, "-m", "compileall", "-q", "-j", "0", str(Path(python).parents[1] / "lib")]),
        check=False,
    )
    partial.rename(done)


def _make_root(root: Path) -> None:
    if os.geteuid() != 0:
        raise SystemExit(
            "tfx_env: glibc here is older than 2.39, which TFX needs, and a Debian 13 root takes root. Be root."
        )
    if shutil.which("debootstrap") is None:
        if shutil.which("apt-get") is None:
            raise SystemExit(
                "tfx_env: glibc here is older than 2.39, and there is no debootstrap for a Debian 13 root."
            )
        _call(["apt-get", "update", "-qq"])
        _call(["apt-get", "install", "-qq", "-y", "debootstrap"])
    sources = [*Path("/etc/apt/sources.list.d").glob("*.sources"), Path("/etc/apt/sources.list")]
    texts = [file.read_text("utf-8") for file in sources if file.is_file()]
    mirror = next(filter(None, map(mirror_of, texts)), "http://deb.debian.org/debian")
    include = ",".join(PACKAGES)
    _call(["debootstrap", "--variant=minbase", f"--include={include}", SUITE, str(root), mirror])
    pip_files = subprocess.run(
        [sys.executable, "-m", "pip", "config", "debug"], capture_output=True, text=True, check=False
    ).stdout
    found = re.findall(r"^\s+(/\S+), exists: True", pip_files, re.MULTILINE)
    for source in (
        *_CONFIGURATION,
        *dict.fromkeys(str(Path(file).parent) if "/pip/" in file else file for file in found),
    ):
        _copy(Path(source), root)
    (root / SOURCE.strip("/")).mkdir()
    _call(_inside(root, ["python3", "-m", "venv", VENV]))


def _copy(source: Path, root: Path) -> None:
    for file in source.rglob("*") if source.is_dir() else [source]:
        if file.is_file():
            target = root / str(file).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)  # it may be a link, and to a file outside the root
            shutil.copyfile(file, target)


def _python(environment: Path) -> str:
    return str(environment / "venv" / "bin" / "python") if has_glibc() else f"{VENV}/bin/python"


def _inside(environment: Path, command: list[str]) -> list[str]:
    """The command within the environment, in the checkout. Mounts end with it."""
    if has_glibc():
        return command
    root = shlex.quote(str(environment))
    mounts = [f"mount --bind {what} {root}{where}" for what, where in (("/proc", "/proc"), ("/dev", "/dev"))]
    mounts.append(f"mount --bind {shlex.quote(str(CHECKOUT))} {root}{SOURCE}")
    rest = f"exec chroot {root} sh -c {shlex.quote(f'cd {SOURCE} && exec {shlex.join(command)}')}"
    return ["unshare", "--mount", "sh", "-e", "-c", "\n".join([*mounts, rest])]


def run(command: list[str]) -> int:
    """Runs a command in the environment, in the checkout; `python` is the environment's. Gives its exit code."""
    environment = make()
    bin_folder = str(Path(_python(environment)).parent)
    path = f"{bin_folder}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    source = str(CHECKOUT) if has_glibc() else SOURCE
    inside = _inside(environment, ["env", f"PATH={path}", f"PYTHONPATH={source}", *command])
    with subprocess.Popen(inside, cwd=CHECKOUT) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:  # the command has it, too, and ends in its own way
                continue


def _call(command: list[str], *, check: bool = True) -> None:
    done = subprocess.run(command, cwd=CHECKOUT, check=False, stdin=subprocess.DEVNULL)
    if check and done.returncode:
        raise SystemExit(f"tfx_env: exit {done.returncode} of {shlex.join(command)[:300]}")


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:
        print(make())
    elif sys.argv[1:2] == ["run"] and sys.argv[2:]:
        sys.exit(run(sys.argv[2:]))
    else:
        sys.exit("usage: tfx_env.py make | tfx_env.py run COMMAND [ARGUMENT ...]")
