"""A container of a rendered pod as a process of this host: its arguments, its user, its mounts, as a kubelet lays
them. Files of ConfigMaps and Secrets are links into a dated folder, with the owner, group and mode that they get.

There is no image: the process sees this host's own root, but for what is mounted, in a mount namespace of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

Json = dict[str, Any]
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
TOPS = ("/etc", "/run", "/var/lib")
"""Folders of this host in which mount points are made; nothing of it changes, as the changes are a layer above."""


def lay(folder: Path, files: dict[str, bytes], mode: int, group: int = 0, owner: int = 0) -> Path:
    """A ConfigMap or a Secret as a volume, which pkg/volume/util/atomic_writer.go writes."""
    dated = folder / "..2026_01_01"
    dated.mkdir(parents=True)
    for name, data in files.items():
        (dated / name).write_bytes(data)
        os.chown(dated / name, owner, group)
        (dated / name).chmod(mode)
        (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data").symlink_to(dated.name)
    for path in (folder, dated):
        path.chmod(0o755)
    return folder


def run_pod(
    pod: Json,
    volumes: dict[str, Path],
    environment: dict[str, str],
    log: Path,
    service_account: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start the only container of a pod's specification; `volumes` are by name, others are left out."""
    [container] = pod["containers"]
    mounts = [
        (str(volumes[mount["name"]]), mount["mountPath"])
        for mount in container["volumeMounts"]
        if mount["name"] in volumes
    ]
    if service_account is not None:
        mounts.append((str(service_account), SERVICE_ACCOUNT))
    limits = container["securityContext"]
    groups = [pod["securityContext"]["fsGroup"]] if "securityContext" in pod else []
    arguments = container["args"]
    for name, value in environment.items():
        arguments = [argument.replace(f"$({name})", value) for argument in arguments]
    plan = {
        "mounts": mounts, "uid": limits["runAsUser"], "gid": limits.get("runAsGroup", 0), "groups": groups,
        "args": arguments,
    }  # fmt: skip
    return subprocess.Popen(
        ["unshare", "--mount", sys.executable, __file__, json.dumps(plan)],
        stdout=log.open("ab"),
        stderr=subprocess.STDOUT,
        env={**os.environ, **environment},
    )


def main() -> None:
    plan = json.loads(sys.argv[1])

    def mount(*words: str) -> None:
        subprocess.run(["mount", *words], check=True)

    mount("--make-rprivate", "/")
    mount("-t", "tmpfs", "tmpfs", "/mnt")
    for number, top in enumerate(TOPS):
        upper, work = (Path(f"/mnt/{kind}{number}") for kind in ("upper", "work"))
        upper.mkdir()
        work.mkdir()
        mount("-t", "overlay", "overlay", "-o", f"lowerdir={top},upperdir={upper},workdir={work}", top)
    for source, target in plan["mounts"]:
        Path(target).mkdir(parents=True, exist_ok=True)
        mount("--bind", source, target)
    user = [f"--reuid={plan['uid']}", f"--regid={plan['gid']}"]
    groups = f"--groups={','.join(map(str, plan['groups']))}" if plan["groups"] else "--clear-groups"
    without = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    line = ["setpriv", *user, groups, *without, sys.executable, "-m", "edgewright_cli.main", *plan["args"]]
    os.execvp(line[0], line)


if __name__ == "__main__":
    main()
