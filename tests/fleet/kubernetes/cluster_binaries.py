"""The programs of a real Kubernetes control plane, built from Debian's source package and kept in a cache.

No registry of binaries is needed: Debian's `kubernetes` 1.20.2 source holds its whole vendor tree and builds with
Debian's Go 1.19. Everything is fetched and unpacked into a scratch folder, so that neither root nor a change to
the machine is needed; what stays is five stripped binaries (about 380 MB) under `cache_folder()`.

    python tests/fleet/kubernetes/cluster_binaries.py     # builds what is missing: 13 minutes on two cores
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

VERSION = "1.20.2"
BUILT = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubemark")
BINARIES = (*BUILT, "etcd")
# libpopt0 and libxxhash0 are what rsync loads and a small machine lacks.
PACKAGES = (
    "etcd-server", "golang-1.19-go", "golang-1.19-src", "golang-github-modern-go-reflect2-dev", "jq", "libjq1",
    "libonig5", "libpopt0", "libxxhash0", "rsync",
)  # fmt: skip
TOOLS = ("apt-get", "dpkg", "dpkg-source", "make")
REFLECT2 = "github.com/modern-go/reflect2"


class CannotBuildError(Exception):
    """The binaries are not cached and cannot be built here; the message is one line for a skipped test."""


def cache_folder() -> Path:
    """Where the binaries are kept, outside any checkout."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgewright" / f"kubernetes-{VERSION}"


def cached_binaries() -> Path | None:
    """The folder of the binaries, or None while one of them is missing."""
    folder = cache_folder()
    return folder if all(os.access(folder / name, os.X_OK) for name in BINARIES) else None


def ensure_binaries() -> Path:
    """The folder of the binaries, built first where they are missing. Raises `CannotBuildError`."""
    if (found := cached_binaries()) is not None:
        return found
    if missing := [tool for tool in TOOLS if shutil.which(tool) is None]:
        raise CannotBuildError(
            f"no Kubernetes {VERSION} in {cache_folder()}, and no {missing[0]} to build it"
        )
    cache_folder().parent.mkdir(parents=True, exist_ok=True)
    with _lock(cache_folder().with_name(f"kubernetes-{VERSION}.lock")):
        if (found := cached_binaries()) is None:
            with tempfile.TemporaryDirectory(prefix="edgewright-kubernetes-") as scratch:
                found = _build(Path(scratch))
    return found


def _build(scratch: Path) -> Path:
    started = time.monotonic()

    def progress(sentence: str) -> None:
        sys.stderr.write(f"[{time.monotonic() - started:4.0f} s] kubernetes {VERSION}: {sentence}\n")

    progress("fetch the build tools and etcd from Debian")
    _run(["apt-get", "download", *PACKAGES], scratch)
    root = scratch / "root"
    for package in sorted(scratch.glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(root)], scratch)
        package.unlink()
    progress("fetch the source package (34 MB)")
    source = _source(scratch)
    vendored = source / "vendor" / REFLECT2
    # The vendored 1.0.1 crashes on Go 1.18 and later at the first custom resource.
    for old in vendored.glob("*.go"):
        old.unlink()
    for new in (root / "usr/share/gocode/src" / REFLECT2).iterdir():
        if new.is_file() and not new.name.endswith("_test.go"):
            shutil.copy(new, vendored)
    folder = scratch / "binaries"
    folder.mkdir()
    shutil.copy(root / "usr/bin/etcd", folder)
    environment = _environment(scratch, root, source)
    for name in BUILT:
        progress(f"build {name}")
        _run(["make", f"WHAT=cmd/{name}"], source, environment)
        shutil.copy(source / "_output/bin" / name, folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    partial = cache_folder().with_name(f"kubernetes-{VERSION}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(folder, partial)
    shutil.rmtree(cache_folder(), ignore_errors=True)
    partial.rename(cache_folder())
    progress(f"done, {size / 1e6:.0f} MB in {cache_folder()}")
    return cache_folder()


def _source(scratch: Path) -> Path:
    """The unpacked source package, through package lists of our own that name sources."""
    (scratch / "lists/partial").mkdir(parents=True)
    parts = scratch / "sources.d"
    parts.mkdir()
    known = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    for path in known:
        if not path.is_file() or path.suffix not in (".list", ".sources"):
            continue
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".list":
            text = re.sub(r"^deb\s", "deb-src ", text, flags=re.MULTILINE)
        else:
            text = re.sub(r"^Types:.*$", "Types: deb-src", text, flags=re.MULTILINE)
        (parts / path.name).write_text(text, encoding="utf-8")
    options = [
        *("-o", "Dir::Etc::SourceList=/dev/null"),
        *("-o", f"Dir::Etc::SourceParts={parts}"),
        *("-o", f"Dir::State::Lists={scratch / 'lists'}"),
        *("-o", f"Dir::Cache::pkgcache={scratch / 'pkgcache.bin'}"),
        *("-o", f"Dir::Cache::srcpkgcache={scratch / 'srcpkgcache.bin'}"),
        *("-o", "APT::Sandbox::User=root"),
    ]
    _run(["apt-get", *options, "-q", "update"], scratch)
    _run(["apt-get", *options, "-q", "source", "kubernetes"], scratch)
    return next(path for path in scratch.glob("kubernetes-*") if path.is_dir())


def _environment(scratch: Path, root: Path, source: Path) -> dict[str, str]:
    linked = source / "_gopath/src/k8s.io/kubernetes"
    linked.parent.mkdir(parents=True)
    linked.symlink_to(source)
    version_file = scratch / "version"
    major, minor, _ = VERSION.split(".")
    version_file.write_text(
        f"KUBE_GIT_COMMIT='{'0' * 40}'\nKUBE_GIT_TREE_STATE='archive'\nKUBE_GIT_VERSION='v{VERSION}'\n"
        f"KUBE_GIT_MAJOR='{major}'\nKUBE_GIT_MINOR='{minor}'\n",
        encoding="utf-8",
    )
    return {
        **os.environ,
        "HOME": str(scratch),
        "GOROOT": str(root / "usr/lib/go-1.19"),
        "GOPATH": str(source / "_gopath"),
        "GOCACHE": str(scratch / "gocache"),
        "GOPROXY": "off",
        "GOFLAGS": "",
        "GO111MODULE": "off",
        "GOLDFLAGS": "-s -w",
        "CGO_ENABLED": "0",
        "KUBE_GIT_VERSION_FILE": str(version_file),
        "PATH": f"{root / 'usr/lib/go-1.19/bin'}:{root / 'usr/bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(root / "usr/lib/x86_64-linux-gnu"),
    }


def _run(command: list[str], folder: Path, environment: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        last = [line for line in done.stdout.splitlines() if line.strip()][-12:]
        sys.stderr.write("\n".join(last) + "\n")
        raise CannotBuildError(
            f"'{' '.join(command[:2])} …' failed ({last[-1] if last else 'without a word'})"
        )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{ensure_binaries()}\n")
    except CannotBuildError as error:
        sys.exit(f"error: {error}")
