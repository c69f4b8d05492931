"""`Cluster`: one Kubernetes API server through the official client, in JSON, with errors of our family.

The client's typed objects are left alone, since a field that a newer or older API server has makes them fail.
Credentials, TLS and kubeconfig files are the client's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from edgewright.errors import ClusterError, ConfigError

Json = dict[str, Any]
TIMEOUT_S = (3.0, 10.0)
"""To connect and to answer; an emergency stop must not wait for a cluster that is gone."""
CONFLICT, NOT_FOUND, UNREACHABLE = 409, 404, 0
FIELD_MANAGER = "edgewright"


class Cluster:
    """One API server and the namespace that Edgewright has in it."""

    def __init__(self, name: str, client: Any, namespace: str) -> None:
        self.name, self.namespace = name, namespace
        self._client = client

    def __str__(self) -> str:
        return f"cluster {self.name}"

    @property
    def server(self) -> str:
        return str(self._client.configuration.host)

    def get(self, path: str, **query: str) -> Json:
        """Read an object or a list."""
        return self._call("GET", path, query)

    def create(self, path: str, body: Json) -> Json:
        """Create an object in a collection."""
        return self._call("POST", path, body=body)

    def replace(self, path: str, body: Json) -> Json:
        """Replace an object; `ClusterError` with status `CONFLICT` where its resourceVersion has moved on."""
        return self._call("PUT", path, body=body)

    def patch(self, path: str, body: Json) -> Json:
        """Change some fields of an object (a JSON merge patch, RFC 7396)."""
        return self._call("PATCH", path, body=body, content="application/merge-patch+json")

    def apply(self, path: str, body: Json) -> Json:
        """Create or change an object so that it has the fields of `body` (server-side apply)."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return self._call("PATCH", path, query, body, "application/apply-patch+yaml")

    def delete(self, path: str, **query: str) -> Json:
        """Delete an object; the query may say what becomes of those that it owns."""
        return self._call("DELETE", path, query)

    def lines(self, path: str, **query: str) -> Iterator[str]:
        """A text, line by line as it comes, without a limit on the time between two lines."""
        response = self._send("GET", path, query, timeout_s=(TIMEOUT_S[0], None), _preload_content=False)
        with closing(response), self._failures("GET", path):
            rest = b""
            for part in response.stream():
                *whole, rest = (rest + part).split(b"\n")
                yield from (line.decode(errors="replace") for line in whole)
            if rest:
                yield rest.decode(errors="replace")

    def named(self, plural: str, name: str = "", *, api: str = "v1") -> str:
        """The path of a collection of our namespace, or of one object in it."""
        root = f"/api/{api}" if "/" not in api else f"/apis/{api}"
        return f"{root}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _call(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Json | None = None,
        content: str = "application/json",
    ) -> Json:
        kinds = dict.fromkeys((200, 201, 202), "object")
        answer = self._send(method, path, query, body, content, response_types_map=kinds)
        if not isinstance(answer, dict):
            raise ClusterError(f"{method} {path}: the answer is no JSON object", where=str(self))
        return answer

    def _send(
        self,
        method: str,
        path: str,
        query: dict[str, str] | None = None,
        body: Json | None = None,
        content: str = "application/json",
        timeout_s: tuple[float, float | None] = TIMEOUT_S,
        **options: Any,
    ) -> Any:
        with self._failures(method, path):
            return self._client.call_api(
                path,
                method,
                query_params=query or {},
                header_params={"Accept": "application/json, */*", "Content-Type": content},
                body=body,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=timeout_s,
                **options,
            )

    @contextmanager
    def _failures(self, method: str, path: str) -> Iterator[None]:
        """Turn what the client raises into our one line."""
        from kubernetes.client import ApiException
        from urllib3.exceptions import HTTPError

        try:
            yield
        except ApiException as error:
            status = int(error.status or UNREACHABLE)
            raise ClusterError(
                f"{method} {path}: {_message(error)}", where=str(self), status=status
            ) from None
        except HTTPError as error:
            reason = getattr(error, "reason", None) or error
            raise ClusterError(
                f"does not answer at {self.server} ({_short(reason)})", where=str(self)
            ) from None


def in_cluster(name: str, namespace: str) -> Cluster:
    """The cluster that this process runs in, by its pod's service account. Raises `ClusterError`."""
    from kubernetes import client, config

    settings = client.Configuration()
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException as error:
        raise ClusterError(
            f"this process has no service account ({_short(error)})",
            remedy="outside a cluster give --context",
        ) from None
    return _cluster(name, settings, namespace)


def from_kubeconfig(
    files: Sequence[Path], contexts: Sequence[str], namespace: str, *, every: bool = False
) -> list[Cluster]:
    """A cluster for each context named, or for each current context; `every`: for each context that there is.

    Raises `ConfigError` where a file cannot be read, or no file has a context or two have it.
    """
    from kubernetes import client, config

    known: dict[str, Path | None] = {}
    chosen: list[str] = []
    sources: Sequence[Path | None] = files or (None,)
    for file in sources:
        where = str(file or "kubeconfig")
        try:
            there, current = config.list_kube_config_contexts(str(file) if file else None)
            names = [str(context["name"]) for context in there]
        except Exception as error:  # noqa: BLE001 - the client raises whatever its parser does
            raise ConfigError(f"cannot be read as a kubeconfig ({_short(error)})", where=where) from None
        for name in names:
            if name in known and (name in contexts or every):
                raise ConfigError(
                    f"context '{name}' is in two files", where=where, remedy="rename one of them"
                )
            known[name] = file
        chosen += names if every else [str(current["name"])]
    clusters = []
    for name in contexts or chosen:
        if name not in known:
            there = ", ".join(known) or "none"
            raise ConfigError(f"there is no context '{name}'; there are: {there}", where="kubeconfig")
        settings = client.Configuration()
        source = known[name]
        try:
            config.load_kube_config(
                str(source) if source else None,
                context=name,
                client_configuration=settings,
                persist_config=False,
            )
        except Exception as error:  # noqa: BLE001 - as above
            raise ConfigError(
                f"context '{name}' cannot be used ({_short(error)})", where=str(source)
            ) from None
        clusters.append(_cluster(name, settings, namespace))
    return clusters


def _cluster(name: str, settings: Any, namespace: str) -> Cluster:
    from kubernetes import client

    # What to do about a failure is ours to say. Not False: a TLS error would then come out of urllib3 as such, and
    # the client fails on it.
    settings.retries = 0
    return Cluster(name, client.ApiClient(settings), namespace)


def _message(error: Any) -> str:
    """What an API server says of a failure, in its own words where it has any."""
    try:
        return _short(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return _short(error.reason or error.status)


def _short(said: object) -> str:
    return " ".join(str(said).split())[:300]
