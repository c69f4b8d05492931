"""One real cluster as one process: etcd, API server, controller manager, scheduler and hollow kubelets.

It runs in a network, process and mount namespace of its own, since hollow kubelets bind every address. A listening
socket that was opened outside and is inherited leads in: what is accepted there is passed to the API server. It
reads commands from standard input, a line each, and answers each with a line: `stop NAME`, `start NAME`, where the
name is a program's or a node's. Everything ends with this process, whatever ends it.

    unshare --net --pid --fork --kill-child --mount-proc \\
        python cluster_host.py BINARIES FOLDER SOCKET NODE,PROFILE …
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import fcntl
import http.client
import json
import os
import secrets
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

HOST, PORT, ETCD = "127.0.0.1", 6443, "http://127.0.0.1:2379"
START_S = 120.0
PROGRAMS, FILES = Path("/media"), Path("/mnt")
"""Folders that every system has, over which ours are mounted in this namespace."""
LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_BIND = 0x00020000, 0x1000
TOKENS = (("admin", "system:masters"), ("manager", "system:masters"), ("scheduler", "system:masters"))
CERTIFICATE = "certificates/apiserver.crt"
GRACE = "40s"
"""How long a node may be silent. It reports every 10 s, and 20 is too short on a busy machine."""


class ClusterHost:
    """The programs of one cluster."""

    def __init__(self, binaries: Path, folder: Path, nodes: dict[str, str]) -> None:
        self.folder, self.nodes = folder, nodes
        self.tokens = {name: secrets.token_hex(16) for name, _ in TOKENS} | {
            n: secrets.token_hex(16) for n in nodes
        }
        self._commands = self._arguments(binaries)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def begin(self) -> None:
        """Write what the programs need, start them, and wait until every node is Ready."""
        self._write_files()
        self.start("etcd")
        self.start("kube-apiserver")
        for name in ("kube-controller-manager", "kube-scheduler", *self.nodes):
            self._spawn(name)
        self._wait("the nodes", self._nodes_ready)

    def start(self, name: str) -> None:
        """Start a program that does not run; the API server is waited for."""
        self._spawn(name)
        if name == "kube-apiserver":
            self._wait("the API server", lambda: self._get("/readyz") == b"ok")

    def stop(self, name: str) -> None:
        """Kill a program."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def _spawn(self, name: str) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        command = self._commands[name]
        self._running[name] = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_private_tmp if name in self.nodes else None,
        )

    def _wait(self, what: str, ready: object) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if callable(ready) and ready():
                    return
            for name, process in self._running.items():
                if process.poll() is not None:
                    sys.exit(f"{name} ended with {process.returncode}: see {name}.log")
            time.sleep(0.2)
        sys.exit(f"{what} did not get ready in {START_S:g} s: see the logs")

    def _nodes_ready(self) -> bool:
        items = json.loads(self._get("/api/v1/nodes"))["items"]
        conditions = [c for item in items for c in item["status"].get("conditions", ())]
        ready = sum(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
        return ready == len(self.nodes)

    def _get(self, path: str) -> bytes:
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection(HOST, PORT, timeout=5, context=context)
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.tokens['admin']}"})
            return connection.getresponse().read()
        finally:
            connection.close()

    def _write_files(self) -> None:
        rows = [f"{self.tokens[name]},{name},{name},{group}" for name, group in TOKENS]
        rows += [f"{self.tokens[n]},{n},{n},system:masters" for n in self.nodes]
        (self.folder / "tokens.csv").write_text("\n".join(rows) + "\n")
        key = self.folder / "service-account.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        authority = self.folder / CERTIFICATE  # which the API server makes for itself
        for name, token in self.tokens.items():
            (self.folder / f"{name}.kubeconfig").write_text(
                kubeconfig(name, f"https://{HOST}:{PORT}", token, authority)
            )

    def _arguments(self, binaries: Path) -> dict[str, list[str]]:
        folder = self.folder
        key = folder / "service-account.key"
        commands = {
            "etcd": [
                "etcd", f"--data-dir={folder / 'etcd'}", f"--listen-client-urls={ETCD}",
                f"--advertise-client-urls={ETCD}", "--listen-peer-urls=http://127.0.0.1:2380",
                "--unsafe-no-fsync",
            ],
            "kube-apiserver": [
                "kube-apiserver", f"--etcd-servers={ETCD}", f"--bind-address={HOST}",
                f"--advertise-address={HOST}", f"--secure-port={PORT}", f"--cert-dir={folder / 'certificates'}",
                f"--service-account-key-file={key}", f"--service-account-signing-key-file={key}",
                "--service-account-issuer=https://kubernetes.default",
                f"--token-auth-file={folder / 'tokens.csv'}",
                "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/16",
                "--disable-admission-plugins=ServiceAccount",
            ],
            "kube-controller-manager": [
                "kube-controller-manager", f"--kubeconfig={folder / 'manager.kubeconfig'}",
                "--controllers=*,-nodeipam,-ttl", f"--node-monitor-grace-period={GRACE}",
                "--node-monitor-period=2s", "--leader-elect=false", "--port=0",
                f"--service-account-private-key-file={key}",
            ],
            "kube-scheduler": [
                "kube-scheduler", f"--kubeconfig={folder / 'scheduler.kubeconfig'}", "--leader-elect=false",
                "--port=0",
            ],
        }  # fmt: skip
        for index, (node, profile) in enumerate(self.nodes.items()):
            commands[node] = [
                "kubemark", "--morph=kubelet", f"--name={node}", f"--kubeconfig={folder / f'{node}.kubeconfig'}",
                f"--kubelet-port={10250 + 2 * index}", f"--kubelet-read-only-port={20250 + 2 * index}",
                f"--node-labels=edgewright.dev/profile={profile}",
            ]  # fmt: skip
        return {name: [str(binaries / argv[0]), *argv[1:]] for name, argv in commands.items()}


def kubeconfig(name: str, server: str, token: str, authority: Path, *, embedded: bool = False) -> str:
    """A kubeconfig of one context; `authority` is the file of who vouches for the server, or is put into it."""
    cluster = {"server": server}
    if embedded:
        cluster["certificate-authority-data"] = base64.b64encode(authority.read_bytes()).decode()
    else:
        cluster["certificate-authority"] = str(authority)
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        }
    )


def _lead_in(listener: socket.socket) -> None:
    """Pass each connection that is accepted outside to the API server in here."""
    while True:
        outside, _ = listener.accept()
        try:
            inside = socket.create_connection((HOST, PORT))
        except OSError:  # it is down: whoever asks sees a connection that is closed
            outside.close()
            continue
        for source, sink in ((outside, inside), (inside, outside)):
            threading.Thread(target=_pump, args=(source, sink), daemon=True).start()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _private_tmp() -> None:
    """Give the process about to be started a /tmp of its own: each hollow kubelet has its runtime's socket there,
    under one name, and leaves folders behind."""
    if LIBC.unshare(CLONE_NEWNS) != 0:
        os._exit(os.EX_OSERR)
    _mount("tmpfs", "/tmp", b"tmpfs", 0)


def _mount(source: str, target: str, kind: bytes | None, flags: int) -> None:
    if LIBC.mount(source.encode(), target.encode(), kind, flags, None) != 0:
        raise OSError(ctypes.get_errno(), f"mount {source} on {target}")


def _loopback_up() -> None:
    """netdevice(7): SIOCSIFFLAGS of `lo` with IFF_UP and IFF_RUNNING."""
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh", b"lo", 0x1 | 0x40))


def _say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def main() -> None:
    binaries, folder, descriptor, *named = sys.argv[1:]
    listener = socket.socket(fileno=int(descriptor))
    _loopback_up()
    # Where they are seen by a kubelet too, whose /tmp is its own.
    for source, seen in ((binaries, PROGRAMS), (folder, FILES)):
        _mount(source, str(seen), None, MS_BIND)
    host = ClusterHost(PROGRAMS, FILES, dict(node.split(",") for node in named))
    host.begin()
    threading.Thread(target=_lead_in, args=(listener,), daemon=True).start()
    _say("ready")
    for line in sys.stdin:
        word, name = line.split()
        {"start": host.start, "stop": host.stop}[word](name)
        _say("done")
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
