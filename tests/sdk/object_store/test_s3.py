"""The store against a real S3-compatible server (Ceph), with links that break and processes that die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ceph_gateway import CREDENTIALS, Gateway
from edgewright.errors import ConfigError, StorageError
from edgewright.object_store import open_store
from edgewright.object_store.s3 import PART, S3Store
from edgewright.object_store.s3_requests import Address, Requests, load_credentials
from edgewright.object_store.signature import Credentials

LARGE = 3 * PART + 1234


def written(path: Path, size: int) -> Path:
    path.write_bytes(os.urandom(size))
    return path


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(
    key=st.lists(
        st.text(
            st.characters(codec="utf-8", exclude_characters="/", exclude_categories=("C",)),
            min_size=1,
            max_size=12,
        ).filter(lambda part: part not in (".", "..")),
        min_size=1,
        max_size=3,
    ).map("/".join),
    size=st.integers(0, 3000),
)
def test_whatever_a_key_is_called_its_bytes_come_back(
    key: str, size: int, gateway: Gateway, tmp_path: Path
) -> None:
    bucket = getattr(gateway, "_any", None) or gateway.make_bucket()
    gateway._any = bucket  # type: ignore[attr-defined]
    store, file = gateway.store(bucket, "any place"), written(tmp_path / "file", size)
    store.put(key, file)
    assert store.read(key) == file.read_bytes()
    assert store.read(key, 10) == file.read_bytes()[:10]
    assert key in [stored.key for stored in store.objects()]
    store.delete(key)
    store.delete(key)
    assert key not in [stored.key for stored in store.objects()]


@pytest.mark.slow
def test_a_listing_longer_than_a_page_is_whole(gateway: Gateway, tmp_path: Path) -> None:
    store = gateway.store(gateway.make_bucket())
    file = written(tmp_path / "file", 10)
    keys = [f"a/{number:05d}" for number in range(1003)]
    for key in keys:
        store.put(key, file)
    assert [stored.key for stored in store.objects("a/")] == keys
    assert {stored.size for stored in store.objects("a/")} == {10}


class _LinkBrokenError(Exception):
    pass


@pytest.mark.slow
def test_an_upload_that_was_cut_sends_no_finished_part_again(gateway: Gateway, tmp_path: Path) -> None:
    bucket = gateway.make_bucket()
    file = written(tmp_path / "file", LARGE)
    sent = [0]

    def break_in_third_part(size: int) -> None:
        if sent[0] + size > 2 * PART + 70_000:
            raise _LinkBrokenError
        sent[0] += size

    with pytest.raises(_LinkBrokenError):
        gateway.store(bucket).put("large", file, break_in_third_part)
    assert list(gateway.store(bucket).objects()) == []
    again = [0]

    def count(size: int) -> None:
        again[0] += size

    gateway.store(bucket).put("large", file, count)
    assert again[0] == LARGE - 2 * PART
    assert gateway.store(bucket).read("large") == file.read_bytes()
    gateway.store(bucket).put("large", file, count)  # it is there: not a byte more
    assert again[0] == LARGE - 2 * PART
    assert gateway.store(bucket).abandon("") == 0


@pytest.mark.slow
def test_a_server_that_dies_and_comes_back_is_gone_on_with(gateway: Gateway, tmp_path: Path) -> None:
    bucket = gateway.make_bucket()
    file = written(tmp_path / "file", LARGE)
    store = gateway.store(bucket)
    sent = [0]

    def kill_the_server(size: int) -> None:
        sent[0] += size
        if "radosgw" in gateway.processes and sent[0] > PART + 100_000:
            gateway.stop_gateway()

    try:
        with pytest.raises(StorageError, match="cannot be reached"):
            store.put("large", file, kill_the_server)
        with pytest.raises(StorageError, match="cannot be reached"):
            store.put("large", file)
    finally:
        gateway.start_gateway()
    sent[0] = 0
    store.put("large", file, lambda size: sent.__setitem__(0, sent[0] + size))
    assert sent[0] == LARGE - PART
    assert store.read("large") == file.read_bytes()


_UPLOADS = """
import sys
from pathlib import Path
from edgewright.object_store import open_store
sent = 0
def tell(size):
    global sent
    sent += size
    print(sent, flush=True)
open_store(sys.argv[1]).put("large", Path(sys.argv[2]), tell)
"""


@pytest.mark.slow
def test_kill_9_at_any_byte_costs_one_part_at_most(gateway: Gateway, tmp_path: Path) -> None:
    file = written(tmp_path / "file", LARGE)
    environment = os.environ | {
        "AWS_ACCESS_KEY_ID": CREDENTIALS.access_key,
        "AWS_SECRET_ACCESS_KEY": CREDENTIALS.secret_key,
    }
    for kill_at in (1, PART // 2, PART + 1, 3 * PART + 1):
        bucket = gateway.make_bucket()
        command = [sys.executable, "-c", _UPLOADS, gateway.url(bucket), str(file)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert child.stdout is not None
        reached = next((int(line) for line in child.stdout if int(line) >= kill_at), 0)
        child.send_signal(signal.SIGKILL)
        reached = max([reached, *(int(line) for line in child.stdout.read().split())])
        child.wait()
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True)
        again = max((int(line) for line in done.stdout.split()), default=0)
        assert again <= LARGE - (reached // PART) * PART + PART
        if reached < PART:
            assert again == LARGE
        assert gateway.store(bucket).read("large") == file.read_bytes()


@pytest.mark.slow
def test_a_device_that_may_only_write_uploads_all_the_same(gateway: Gateway, tmp_path: Path) -> None:
    """The rights that the README of the agent names, and no other."""
    bucket, writer = gateway.make_bucket(), Credentials("writer-access", "writer-secret")
    gateway.make_user("writer", writer)
    rights = {
        "writer": ["PutObject", "ListMultipartUploadParts", "ListBucketMultipartUploads"],
        "device": ["GetObject"],  # the fleet: who uploads an object owns it, also in a bucket of another
    }
    policy = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"AWS": [f"arn:aws:iam:::user/{user}"]},
                "Action": [f"s3:{action}" for action in actions],
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
            }
            for user, actions in rights.items()
        ],
    }
    address = Address.of(bucket, "", gateway.endpoint, "us-east-1")
    Requests(address, CREDENTIALS).call(
        "PUT", None, {"policy": ""}, body=json.dumps(policy).encode(), accept=(200, 204)
    )
    store = S3Store(address, writer)
    small, large = written(tmp_path / "small", 100), written(tmp_path / "large", LARGE)

    def break_in_second_part(size: int, sent: list[int] = [0]) -> None:  # noqa: B006 - it counts over calls
        sent[0] += size
        if sent[0] > PART + 100_000:
            raise _LinkBrokenError

    with pytest.raises(_LinkBrokenError):
        store.put("large", large, break_in_second_part)
    again = [0]
    store.put("large", large, lambda size: again.__setitem__(0, again[0] + size))
    assert again[0] == LARGE - PART
    for _ in range(2):
        store.put("small", small)
    gateway.store(bucket).put("of another device", small)
    with pytest.raises(StorageError, match="AccessDenied"):
        store.read("of another device")
    with pytest.raises(StorageError, match="AccessDenied"):
        list(store.objects())
    assert gateway.store(bucket).read("large") == large.read_bytes()
    assert gateway.store(bucket).read("small") == small.read_bytes()


@pytest.mark.slow
def test_a_server_is_believed_only_with_a_certificate_that_somebody_known_vouches_for(
    gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = gateway.make_bucket()
    address = Address.of(bucket, "", gateway.tls_endpoint, "us-east-1")
    file = written(tmp_path / "file", 1000)
    with pytest.raises(StorageError, match="certificate verify failed") as caught:
        S3Store(address, CREDENTIALS).put("key", file)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("SSL_CERT_FILE", str(gateway.certificate))
    store = S3Store(address, CREDENTIALS)
    store.put("key", file)
    assert store.read("key") == file.read_bytes()


@pytest.mark.slow
def test_what_is_refused_is_said_in_one_line_without_the_secret(gateway: Gateway, tmp_path: Path) -> None:
    file = written(tmp_path / "file", 10)
    bucket = gateway.make_bucket()
    wrong = Credentials(CREDENTIALS.access_key, "a-wrong-secret")
    cases = {
        "SignatureDoesNotMatch": S3Store(Address.of(bucket, "", gateway.endpoint, "us-east-1"), wrong),
        "InvalidAccessKeyId": S3Store(
            Address.of(bucket, "", gateway.endpoint, "us-east-1"), Credentials("nobody", "a-wrong-secret")
        ),
        "NoSuchBucket": gateway.store("nowhere-at-all"),
    }
    for code, store in cases.items():
        with pytest.raises(StorageError, match=code) as caught:
            store.put("key", file)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value).replace("credentials", "")
    with pytest.raises(StorageError, match="NoSuchKey"):
        gateway.store(bucket).read("not-there")


def test_a_store_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    store = S3Store(Address.of("bucket", "", "http://127.0.0.1:9", "us-east-1"), CREDENTIALS)
    with pytest.raises(StorageError, match=r"s3://bucket/ at 127.0.0.1:9: the store cannot be reached"):
        store.put("key", written(tmp_path / "file", 10))


def test_a_file_of_credentials_that_others_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "s3.toml"
    file.write_text('access_key = "who"\nsecret_key = "hush"\n')
    file.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_credentials(file)
    file.chmod(0o600)
    assert load_credentials(file) == Credentials("who", "hush")
    for text in ('secret_key = "hush"\n', "hush", 'access_key = "who"\nsecret_key = "hush"\nmore = 1'):
        file.write_text(text)
        with pytest.raises(ConfigError) as caught:
            load_credentials(file)
        assert "hush" not in str(caught.value)


def test_credentials_come_from_the_environment_where_no_file_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(ConfigError, match="AWS_ACCESS_KEY_ID"):
        open_store("s3://bucket")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "who")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    assert load_credentials(None) == Credentials("who", "hush")


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3://bucket?endpiont=https://x",
        "s3://who:hush@bucket/x",
        "s3://bucket?endpoint=ftp://host",
        "s3://bucket?endpoint=http://who:hush@host",
        "https://bucket",
        "file://server/share",
    ],
)
def test_an_address_that_is_none_is_refused_without_showing_a_password(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "who")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)
