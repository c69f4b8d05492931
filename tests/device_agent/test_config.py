from __future__ import annotations

import re
from pathlib import Path

import pytest

from edgewright.errors import ConfigError
from edgewright_agent.config import ServingConfig, load_config, tomllib
from edgewright_agent.feed_config import SinkConfig, SourceConfig
from edgewright_agent.sampling_config import SamplingConfig

REPOSITORY = Path(__file__).parents[2]
MINIMAL = """
fleet = "plant"
device = "line-3"
profile = "x86-64-gateway"
registry = "registry"
state_dir = "/var/lib/state"
"""


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "agent.toml"
    file.write_text(text)
    return file


def test_relative_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = MINIMAL.replace("x86-64-gateway", "mine.toml")
    text += (
        "[broker]\nca_file = 'ca.pem'\n[source]\nkind = 'npz'\npath = 'x.npz'\n[serving]\nsocket = 'api'\n"
    )
    config = load_config(written(tmp_path, text))
    assert config.registry == tmp_path / "registry"
    assert config.state_dir == Path("/var/lib/state")
    assert config.profile == str(tmp_path / "mine.toml")
    assert config.broker.ca_file == tmp_path / "ca.pem"
    assert config.source.path == tmp_path / "x.npz"
    assert config.serving is not None
    assert config.serving.socket == tmp_path / "api"


def test_a_store_that_is_a_folder_is_relative_to_the_file_and_an_address_is_not(tmp_path: Path) -> None:
    for url, meant in (("store", str(tmp_path / "store")), ("file:///mnt/x", "file:///mnt/x")):
        config = load_config(written(tmp_path, f"{MINIMAL}[sampling]\nstore = 'input'\nurl = '{url}'\n"))
        assert config.sampling is not None
        assert config.sampling.url == meant
    text = f"{MINIMAL}[sampling]\nstore = 'input'\nurl = 's3://b'\ncredentials_file = 's3.toml'\n"
    sampling = load_config(written(tmp_path, text)).sampling
    assert sampling is not None
    assert sampling.credentials_file == tmp_path / "s3.toml"
    assert load_config(written(tmp_path, MINIMAL)).sampling is None


def test_paths_of_sources_and_sinks_are_relative_to_the_file_and_addresses_are_not(tmp_path: Path) -> None:
    sink = "[sink]\nkind = 'jsonl'\npath = 'predictions.jsonl'\n"
    for camera, meant in (
        ("clip.mp4", str(tmp_path / "clip.mp4")),
        ("/dev/video0", "/dev/video0"),
        ("rtsp://host/stream", "rtsp://host/stream"),
    ):
        text = f"{MINIMAL}[source]\nkind = 'camera'\ncamera = '{camera}'\n{sink}"
        config = load_config(written(tmp_path, text))
        assert (config.source.camera, config.sink.path) == (meant, tmp_path / "predictions.jsonl")
    text = f"{MINIMAL}[source]\nkind = 'images'\npath = 'in/*/cam?.jpg'\n"
    assert load_config(written(tmp_path, text)).source.path == tmp_path / "in/*/cam?.jpg"
    text = f"{MINIMAL}[source]\nkind = 'mqtt'\ntopic = 'x'\n[source.broker]\nca_file = 'ca.pem'\n"
    broker = load_config(written(tmp_path, text)).source.broker
    assert broker is not None
    assert broker.ca_file == tmp_path / "ca.pem"


def test_a_short_file_is_enough_and_has_sensible_defaults(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, MINIMAL))
    assert (config.profile, config.source.kind, config.source.rate_hz) == ("x86-64-gateway", "golden", 1.0)
    assert (config.telemetry_period_s, config.watch_s, config.watch_max_error_share) == (60, 10, 0.05)
    assert config.serving is None


@pytest.mark.parametrize(
    ("extra", "problem"),
    [
        ("watch = 3", "watch: no such key"),
        ("threads = 0", "threads: Input should be greater than 0"),
        ("prove_runs = -1", "prove_runs: Input should be greater than or equal to 0"),
        ("prove_max_p99_s = 0", "prove_max_p99_s: Input should be greater than 0"),
        ("watch_hang_s = 0", "watch_hang_s: Input should be greater than 0"),
        ("watch_max_slowdown = -1", "watch_max_slowdown: Input should be greater than or equal to 0"),
        ("watch_max_error_share = 1.5", "watch_max_error_share: Input should be less than 1"),
        ("telemetry_period_s = nan", "telemetry_period_s: Input should be"),
        ("broker = 7", "broker: must be keys with values"),
        ("[broker]\nprot = 1883", "broker.prot: no such key"),
        ("[source]\nkind = 'npz'", "source: kind 'npz' needs a path"),
        ("[source]\npath = 'x.npz'", "source: kind 'golden' takes no path"),
        ("[source]\nkind = 'images'", "source: kind 'images' needs a path"),
        (
            "[source]\nkind = 'camera'\ncamera = '/dev/video0'\ntopic = 'x'",
            "source: kind 'camera' takes no topic",
        ),
        ("[source]\nkind = 'mqtt'\ntopic = 'a/#'", "source.topic: String should match pattern"),
        ("[source]\nkind = 'mqtt'\ntopic = 'a'\npayload = 'pickle'", "source.payload: Input should be"),
        ("[source]\nkind = 'mqtt'\ntopic = 'a'\nmax_bytes = 0", "source.max_bytes: Input should be greater"),
        ("[source]\nfps = 3", "source.fps: no such key"),
        ("[sink]\nkind = 'jsonl'", "sink: kind 'jsonl' needs a path"),
        ("[sink]\nkind = 'none'\ntopic = 'a'", "sink: kind 'none' takes no topic"),
        ("[sink]\nformat = 'csv'", "sink.format: no such key"),
        ("[source]\nrate_hz = 0", "source.rate_hz: Input should be greater than 0"),
        ("time_zone = 'CET or so'", "time_zone: is no IANA time zone"),
        ("[labels]\nsite = 3", "labels.site"),
        ("[labels]\nsite = 'a b'", "labels.site"),
        ("[serving]", "serving: needs a socket, a port or both"),
        ("[serving]\nport = 0", "serving.port: Input should be greater than or equal to 1"),
        ("[serving]\nport = 1\naddress = 'eth0'", "serving.address"),
        (f"[serving]\nsocket = '/{'s' * 107}'", "serving: the path of the socket is longer than 107 bytes"),
        ("fleet", "cannot be read (Expected '='"),
    ],
)
def test_a_mistake_is_one_line_with_the_file_and_the_key(tmp_path: Path, extra: str, problem: str) -> None:
    file = written(tmp_path, f"{MINIMAL}{extra}\n")
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert str(caught.value).startswith(f"{file}: {problem}")
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device: Field required"):
        load_config(written(tmp_path, MINIMAL.replace('device = "line-3"', "")))


def test_a_missing_file_and_a_folder_are_errors_of_the_family(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "agent.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path)


def test_the_template_for_devices_is_accepted_as_it_is() -> None:
    config = load_config(REPOSITORY / "firmware_images" / "agent.toml")
    assert config.state_dir == Path("/var/lib/edgewright/state")


def test_every_kind_that_the_template_describes_is_accepted_with_the_values_it_shows() -> None:
    """They are the defaults where the key has one."""
    text = (REPOSITORY / "firmware_images" / "agent.toml").read_text()
    kinds = 0
    for section, model in (("[source]", SourceConfig), ("[sink]", SinkConfig)):
        for line in text.partition(section)[2].partition("\n[")[0].splitlines():
            found = re.match(r'#   "(\w+)", with (.*)', line)
            if found:
                shown = dict(re.findall(r'(\w+)=("[^"]*"|[\w.]+)', found[2]))
                values = {key: tomllib.loads(f"v = {value}")["v"] for key, value in shown.items()}
                config = model.model_validate({"kind": found[1], **values})
                for key in values:
                    default = model.model_fields[key].default
                    assert default is None or getattr(config, key) == default
                kinds += 1
    assert kinds == 6


def test_every_value_that_the_template_comments_out_is_accepted_too(tmp_path: Path) -> None:
    template = (REPOSITORY / "firmware_images" / "agent.toml").read_text()
    keys = (" = ", "# [trust]")
    lines = [
        line.removeprefix("# ") if any(key in line for key in keys) else line
        for line in template.splitlines()
    ]
    shown, bare = load_config(written(tmp_path, "\n".join(lines))), load_config(written(tmp_path, MINIMAL))
    for key in (
        "threads",
        "telemetry_period_s",
        "watch_s",
        "watch_inferences",
        "watch_max_s",
        "watch_max_error_share",
        "watch_hang_s",
        "watch_max_slowdown",
        "watch_max_heating_c",
        "prove_runs",
        "prove_budgets",
        "prove_timeout_s",
        "accept_failed_artifacts",
    ):
        assert getattr(shown, key) == getattr(bare, key)
    assert (shown.labels, shown.time_zone) == ({"site": "lab", "cluster": "berlin"}, "Europe/Berlin")
    assert shown.serving is not None
    for key in ("address", "max_request_bytes", "queue", "deadline_s"):
        assert getattr(shown.serving, key) == ServingConfig.model_fields[key].default
    assert shown.trust is not None and bare.trust is None
    assert shown.sampling is not None
    assert shown.sampling.credentials_file == Path("/etc/edgewright/s3.toml")
    for key in (
        "confidence_below",
        "margin_below",
        "drifted_above",
        "uniform_share",
        "samples_per_hour",
        "bytes_per_day",
        "bytes_on_disk",
    ):
        assert getattr(shown.sampling, key) == SamplingConfig.model_fields[key].default
