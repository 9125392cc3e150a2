"""The API does what its OpenAPI document says, whatever it is asked; and what comes too long is not held in memory."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from appliance.api.app import LONGEST_BODY
from appliance.station import Station
from tests.appliance.running import Daemon, drop, outbox, wait_until

HERE = Path(__file__).parent / "openapi"
TOKEN = "a token for tests"  # noqa: S105


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root = tmp_path_factory.mktemp("openapi") / "station"
    root.mkdir()
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    (root / "umbra.toml").write_text(
        f'[watch]\nsettle_s = 0\nincomplete_s = 0\n[disk]\nlow_bytes = 0\n[api]\nport = 0\ntoken_sha256 = "{digest}"\n'
    )
    station = Station.open(root, create=True)
    running = Daemon(station)
    running.wait_ready()
    for seed in range(3):
        drop(station, f"a_W1_X{seed}_Y2", seed=seed)
    (station.inbox / "P" / "L" / "garbage.tif").write_bytes(b"no image")
    wait_until(lambda: len(outbox(station)) == 4, "four verdicts")
    yield running.url
    assert running.stop() == 0


@pytest.mark.timeout(600)
def test_the_openapi_document_is_kept_to(url: str) -> None:
    """All checks, all operations but the stream, which never ends."""
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(HERE / "schemathesis.toml"), "run",
        f"{url}/openapi.json", "--header", f"Authorization: Bearer {TOKEN}", "--max-examples", "20",
        "--exclude-path", "/v1/stream", "--request-timeout", "20", "--seed", "20261122", "--no-color",
    ]  # fmt: skip
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(HERE)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False, env=environment)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Tested: 26" in done.stdout


def test_a_body_beyond_the_limit_is_refused(url: str) -> None:
    authorized = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}

    def endless() -> Iterator[bytes]:
        for _ in range(64):
            yield b" " * (LONGEST_BODY // 16)

    with httpx.Client(timeout=30) as client:
        assert client.post(f"{url}/v1/specs", content=b" " * (LONGEST_BODY + 1), headers=authorized).status_code == 413
        try:
            answer = client.post(f"{url}/v1/specs", content=endless(), headers=authorized).status_code
        except httpx.WriteError:  # it hung up while we were still sending
            answer = 413
        assert answer == 413
        assert client.get(f"{url}/livez").status_code == 200


def test_clients_that_say_nothing_or_never_end_keep_nobody_waiting(url: str) -> None:
    host, port = url.removeprefix("http://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(300)]
    for connection in silent:
        connection.sendall(b"GET /v1/verdicts HTTP/1.1\r\nHost: x\r\n")  # and never the end of it
    endless = socket.create_connection((host, int(port)), timeout=10)
    with suppress(OSError):  # it hangs up
        endless.sendall(b"GET /livez HTTP/1.1\r\n")
        for number in range(20_000):
            endless.sendall(b"X-%d: %s\r\n" % (number, b"y" * 1000))
    assert httpx.get(f"{url}/livez", timeout=5).status_code == 200
    for connection in [*silent, endless]:
        connection.close()


def test_an_error_tells_no_paths_of_our_code(url: str) -> None:
    for path in ("/v1/verdicts/abc", "/v1/verdicts?limit=x", "/v1/frames/99999999/image.png", "/v1/none", "/%ff%00"):
        answer = httpx.get(f"{url}{path}")
        assert answer.status_code in (404, 422)
        assert "Traceback" not in answer.text
        assert ".py" not in answer.text


def test_the_methods_of_a_path_are_told(url: str) -> None:
    assert httpx.put(f"{url}/v1/specs").headers["Allow"] == "GET, POST"
    assert httpx.post(f"{url}/v1/status").headers["Allow"] == "GET"


def test_a_mistyped_condition_is_no_condition_and_refused(url: str) -> None:
    answer = httpx.get(f"{url}/v1/verdicts", params={"verdct": "FAIL"})
    assert answer.status_code == 422
    [problem] = answer.json()["detail"]
    assert problem["loc"] == ["query", "verdct"]
    assert problem["msg"].startswith("unknown, wanted one of ")
    assert "verdict, class" in problem["msg"]
