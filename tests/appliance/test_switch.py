"""Bundles change under a running screener: no frame is lost, none is judged twice, a bad bundle changes nothing."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import NotNowError
from appliance.log import BUNDLE_REFUSED
from appliance.station import Station
from appliance.switch import BundleSwitch
from appliance.verdict_log import VerdictLog
from engines import Bundle
from engines.bundle import file_sha256, load
from tests.appliance.running import Daemon, drop, outbox, wait_until
from tests.appliance.test_cli import umbra


@pytest.fixture
def other(station: Station, starter: Bundle) -> str:
    """Another bundle of the same networks, brought to the station; its identity."""
    folder = station.bundles / "other"
    shutil.copytree(starter.folder, folder)
    toml = folder / "bundle.toml"
    toml.write_text(toml.read_text().replace('name = "starter"', 'name = "other"'))
    return load(folder).identity


def bundles_of(station: Station) -> dict[str, str]:
    return {name: verdict["bundle"] for name, verdict in outbox(station).items()}


def test_every_frame_has_one_verdict_while_bundles_change(station: Station, daemon: Daemon, other: str) -> None:
    count, dropped = 30, threading.Event()

    def feed() -> None:
        for number in range(count):
            drop(station, f"f{number}", seed=number)
            if number == 4:
                dropped.set()

    feeder = threading.Thread(target=feed)
    feeder.start()
    dropped.wait()
    assert "the running screener uses it" in umbra("bundle", "activate", "other", "--station", station.root).stdout
    drop(station, "after", seed=99)
    assert "the running screener uses it" in umbra("bundle", "rollback", "--station", station.root).stdout
    drop(station, "last", seed=100)
    feeder.join()
    wait_until(lambda: len(outbox(station)) == count + 2, "all verdicts")
    judged = bundles_of(station)
    assert judged["P/L/after.json"] == other
    assert judged["P/L/last.json"].startswith("starter@")
    rows = VerdictLog(station.database, readonly=True).verdicts()
    assert set(Counter(row["path"] for row in rows).values()) == {1}
    assert len(rows) == count + 2
    wait_until(lambda: not list(station.inbox.rglob("*.tif")), "the last one is put away, too")


def another_network(folder: Path) -> None:
    """A file that is not the one that was hashed."""
    model = folder / "regressor.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"!")


def other_measurements(folder: Path) -> None:
    """Whole and hashed, but its networks do not measure what it promises: only the golden gate can tell."""
    golden, toml = folder / "golden.json", folder / "bundle.toml"
    before = file_sha256(golden)
    expected = json.loads(golden.read_text())
    for row in expected.values():
        row["score"] = 1 - row["score"]
    golden.write_text(json.dumps(expected))
    toml.write_text(toml.read_text().replace(before, file_sha256(golden)))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [(another_network, "regressor.onnx has SHA-256"), (other_measurements, "golden scores differ")],
)
def test_a_bundle_that_is_not_fit_changes_nothing(
    station: Station, daemon: Daemon, other: str, damage: Callable[[Path], None], reason: str
) -> None:
    folder = station.bundles / "other"
    damage(folder)
    identity = load(folder).identity if damage is other_measurements else other
    VerdictLog(station.database).add_bundle(identity, "other", who="somebody who went round the gate")

    def refused() -> object:
        state = station.read_state()
        return state and state["activation"]["refused"]

    wait_until(refused, "the screener says why")
    assert reason in str(refused())
    drop(station, "still", seed=1)
    wait_until(lambda: outbox(station), "a verdict")
    assert bundles_of(station)["P/L/still.json"].startswith("starter@")
    kinds = [row["kind"] for row in VerdictLog(station.database, readonly=True).table("events")]
    assert "bundle.refused" in kinds
    assert reason in " ".join(umbra("bundle", "activate", "other", "--station", station.root, expect=1).stderr.split())
    assert daemon.stop() == 0
    again = Daemon(station, api=False)  # it does not begin with what was refused
    again.wait_ready()
    assert again.stop() == 0


def test_a_bundle_repacked_under_the_same_name_is_not_the_one_to_go_back_to(station: Station, other: str) -> None:
    umbra("bundle", "activate", "other", "--station", station.root)
    umbra("bundle", "activate", "starter", "--station", station.root)
    toml = station.bundles / "other" / "bundle.toml"
    toml.write_text(toml.read_text() + "# packed anew\n")
    refused = umbra("bundle", "rollback", "--station", station.root, expect=1).stderr
    assert f"{other} was activated" in " ".join(refused.split())


def test_nobody_goes_back_to_a_bundle_that_was_refused(station: Station) -> None:
    log = VerdictLog(station.database)
    log.add_bundle("a@1", "a", who="jo")
    log.add_bundle("b@1", "b", who="jo")
    refused = log.add_bundle("c@1", "c", who="jo")
    log.add_event(BUNDLE_REFUSED, activation=refused, identity="c@1", reason="golden scores differ")
    log.add_bundle("b@1", "b", who="the screener")
    before = log.activation_before()
    assert before is not None
    assert before["identity"] == "a@1"


def test_a_refusal_that_cannot_be_written_down_is_written_down_later(
    station: Station, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_network(station.bundles / "other")
    log = VerdictLog(station.database)
    log.add_bundle("starter@1", "starter", who="jo")
    switch = BundleSwitch(station, log.activation())
    log.add_bundle(other, "other", who="somebody who went round the gate")

    def held(*_: object) -> None:
        raise NotNowError("another process holds the log")

    with monkeypatch.context() as patched, pytest.raises(NotNowError):
        patched.setattr(log, "refuse_bundle", held)
        wait_until(lambda: switch.poll(log), "the refusal")
    assert log.active_bundle() == "other"
    assert switch.poll(log) is None
    assert log.active_bundle() == "starter"
    [event] = log.events(BUNDLE_REFUSED)
    assert (event["detail"]["activation"], event["detail"]["identity"]) == (2, other)
    assert switch.poll(log) is None  # and once
    assert len(log.events(BUNDLE_REFUSED)) == 1
    switch.close()


def test_a_refusal_leaves_what_was_activated_meanwhile(
    station: Station, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_network(station.bundles / "other")
    log = VerdictLog(station.database)
    log.add_bundle("starter@1", "starter", who="jo")
    switch = BundleSwitch(station, log.activation())
    log.add_bundle(other, "other", who="somebody who went round the gate")
    starter = station.load_bundle("starter")
    activated: list[int] = []
    refuse = log.refuse_bundle

    def after_another(*arguments: Any) -> int | None:
        activated.append(log.add_bundle(starter.identity, "starter", who="ann"))
        return refuse(*arguments)

    monkeypatch.setattr(log, "refuse_bundle", after_another)
    wait_until(lambda: switch.poll(log) or activated, "the refusal")
    newest = log.activation()
    assert newest is not None
    assert newest["who"] == "ann"
    assert log.events(BUNDLE_REFUSED)[0]["detail"]["activation"] == 2
    built: list[Any] = []

    def is_built() -> bool:
        built.append(switch.poll(log))
        return built[-1] is not None

    wait_until(is_built, "the engines of what ann activated")
    assert switch.state() == {"id": activated[0], "building": False, "refused": None}
    built[-1].close()
    switch.close()


def test_a_screener_does_not_begin_with_another_bundle_of_the_name(station: Station, other: str) -> None:
    umbra("bundle", "activate", "other", "--station", station.root)
    toml = station.bundles / "other" / "bundle.toml"
    toml.write_text(toml.read_text() + "# packed anew\n")
    assert f"{other} was activated" in " ".join(umbra("doctor", "--station", station.root, expect=1).stdout.split())
    started = Daemon(station, api=False)
    assert started.wait_ended() == 1
    told = started.log.read_text()
    assert f"{other} was activated; `umbra bundle activate other` lets the one that is there" in told


def test_a_frame_whose_screener_died_before_moving_it_keeps_its_verdict(
    station: Station, starter: Bundle, other: str
) -> None:
    first = Daemon(station, api=False)
    first.wait_ready()
    drop(station, "f", seed=1)
    wait_until(lambda: outbox(station) and not list(station.inbox.rglob("*.tif")), "the frame is put away")
    first.stop()
    log = VerdictLog(station.database)
    [moved] = station.done.rglob("*.tif")  # as if the process had died between commit and move
    shutil.move(moved, station.inbox / "P" / "L" / "f.tif")
    log.set_cursor("outbox", 0)
    assert "no screener is running" in umbra("bundle", "activate", "other", "--station", station.root).stdout
    second = Daemon(station, api=False)
    second.wait_ready()
    drop(station, "g", seed=2)
    wait_until(lambda: not list(station.inbox.rglob("*.tif")), "both are put away")
    second.stop()
    rows = VerdictLog(station.database, readonly=True).verdicts()
    assert [(row["name"], row["bundle"]) for row in rows] == [("f.tif", starter.identity), ("g.tif", other)]


def test_a_screener_started_with_a_bundle_keeps_it(station: Station, other: str) -> None:
    del other
    running = Daemon(station, api=False, bundle="starter")
    running.wait_ready()
    told = umbra("bundle", "activate", "other", "--station", station.root).stdout
    running.stop()
    assert "keeps starter@" in told


def test_there_is_nothing_to_go_back_to(station: Station) -> None:
    VerdictLog(station.database)
    assert (
        "no bundle was ever activated here" in umbra("bundle", "rollback", "--station", station.root, expect=1).stderr
    )


def test_before_the_first_activation_stood_the_bundle_of_the_settings(station: Station, other: str) -> None:
    umbra("bundle", "activate", "other", "--station", station.root)
    assert "starter@" in umbra("bundle", "rollback", "--station", station.root).stdout
    log = VerdictLog(station.database, readonly=True)
    assert log.active_bundle() == "starter"
    assert "other@" in umbra("bundle", "rollback", "--station", station.root).stdout
    assert other.startswith("other@")
