"""What a person types: keys, signatures, renewal, rotation; and one line where it cannot be."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from conftest import put_tiny
from edgewright.artifact.layout import Layout
from edgewright.errors import EdgewrightError
from edgewright_cli.main import edgewright


def run(*arguments: object, code: int = 0) -> str:
    """The command's output; an error of the family is raised, as it is for `main` to print."""
    done = CliRunner().invoke(
        edgewright, [str(a) for a in arguments], catch_exceptions=False, standalone_mode=False
    )
    assert (done.return_value or 0) == code, done.output
    return done.output


def test_from_keys_to_a_signed_release_to_renewal_and_rotation(registry: Layout, tmp_path: Path) -> None:
    root, keys = registry.root, tmp_path / "keys"
    assert "not signed" in run("inspect", root)
    said = run("trust", "init", root, "--keys", keys)
    assert f"Copy {keys / 'root.json'} to each device" in said
    put_tiny(registry, "1.1.0")
    said = run("trust", "sign", f"oci:{root}:tiny:1.0.0", "--keys", keys)
    assert said == f"tiny:1.0.0 is signed, {registry.names()['tiny:1.0.0'].digest}\n"

    found = json.loads(run("trust", "status", root, "--json"))
    (targets,) = found["roles"]["targets"]["keys"]
    assert found["releases"] == {"tiny:1.0.0": [targets], "tiny:1.1.0": []}
    table = run("trust", "status", root, "--root", keys / "root.json")
    assert targets[:8] in table and "nobody" in table

    assert f"tiny:1.0.0: signed by {targets[:8]}" in run("inspect", root)
    assert "tiny:1.1.0: not signed" in run("inspect", root, "--root", keys / "root.json")
    signers = {
        entry["manifest"]["version"]: entry["signed_by"]
        for entry in json.loads(run("inspect", root, "--json"))
    }
    assert signers == {"1.0.0": [targets], "1.1.0": []}

    run("trust", "rotate", root, "targets", "--keys", keys, "--new-keys", tmp_path / "new")
    (key,) = (tmp_path / "new").iterdir()
    run("trust", "renew", root, "--keys", keys, "--days", 90)
    table = run("trust", "status", root)
    assert key.stem.removeprefix("targets-") in table and targets[:8] not in table


def test_a_status_that_devices_would_refuse_is_one_line_and_exit_code_3(signed: Any, tmp_path: Path) -> None:
    other = tmp_path / "other"
    run("trust", "init", tmp_path / "elsewhere", "--keys", other)
    assert run("trust", "status", signed.registry) != ""
    refused = run("trust", "status", signed.registry, "--root", other / "root.json", code=3)
    assert refused.startswith("refused: ") and refused.count("\n") == 1
    inspected = run("inspect", signed.registry, "--root", other / "root.json")
    assert "tiny:1.0.0: signature refused: " in inspected
    shutil.rmtree(signed.trust)
    assert (
        "holds no signatures"
        in json.loads(run("trust", "status", signed.registry, "--json", code=3))["refused"]
    )


ROTATE = ("rotate", "{registry}", "root", "--keys", "{keys}", "--new-keys", "{empty}")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("sign", "oci:{registry}:tiny:9", "--keys", "{keys}"), "no release 'tiny:9'"),
        (("sign", "{registry}", "--keys", "{keys}"), "is not a reference"),
        (("sign", "oci:{registry}:tiny:1.0.0", "--keys", "{empty}"), "holds no key"),
        (("renew", "{empty}", "--keys", "{keys}"), "is not an artifact or registry folder"),
        (("renew", "{registry}", "--keys", "{empty}/nowhere.pem"), "No such file"),
        (("renew", "{registry}", "--keys", "{keys}", "--passphrase-file", "{empty}/no"), "passphrase file cannot"),
        ((*ROTATE, "--replace", "xyz"), "'xyz' is not one of the keys of root"),
        ((*ROTATE, "--threshold", "2"), "of 1 keys, 2 cannot be wanted"),
        (("init", "{registry}", "--keys", "{empty}"), "is there already"),
        (("init", "{empty}", "--keys", "{empty}/keys"), "is in the registry, which is copied to devices"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_leaves_nothing(
    signed: Any, tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    places = {"registry": signed.registry, "keys": signed.keys, "empty": empty}
    with pytest.raises(EdgewrightError, match=problem) as caught:
        run("trust", *(each.format(**places) for each in arguments))
    assert "\n" not in str(caught.value)
    assert list(empty.iterdir()) == []
    signed.verify()


def test_no_secret_is_printed(registry: Layout, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("open sesame")
    secret.chmod(0o600)
    said = run("trust", "init", registry.root, "--keys", tmp_path / "keys", "--passphrase-file", secret)
    said += run("trust", "sign", f"oci:{registry.root}:tiny:1.0.0", "--keys", tmp_path / "keys",
                "--passphrase-file", secret)  # fmt: skip
    assert "sesame" not in said and "PRIVATE" not in said
