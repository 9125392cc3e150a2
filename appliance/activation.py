"""Which bundle is active: those at hand, the one before, and the writing down of another; command line and HTTP alike."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

from appliance import log as events
from appliance.errors import RefusedError
from appliance.station import Station
from appliance.switch import check_identity
from appliance.verdict_log import VerdictLog
from engines import Bundle, BundleError, bundle


@dataclass(frozen=True, slots=True)
class AtHand:
    """A bundle's folder, shipped or brought to the station.

    Attributes:
        name: of the folder, by which it is activated.
        identity: name and hash; None where it cannot be used.
        wrong: why not, or None.
    """

    name: str
    identity: str | None
    wrong: str | None


def at_hand(place: Station) -> list[AtHand]:
    """Every bundle that the station could use."""
    found = []
    for folder in bundle.listed(place.bundles):
        try:
            found.append(AtHand(folder.name, bundle.load(folder).identity, None))
        except (BundleError, OSError) as error:
            found.append(AtHand(folder.name, None, str(error)))
    return found


def the_one_before(place: Station) -> Bundle:
    """The bundle that was active before the present one.

    Raises:
        RefusedError: none was ever activated here.
        BundleError: it is not there any more, or is another one now.
    """
    with closing(VerdictLog(place.database, readonly=True)) as log:
        before = log.activation_before()
        first = log.activation() if before is None else None
    if before is None and first is None:
        raise RefusedError(f"station {place.root.name}: no bundle was ever activated here")
    # Before the first activation the station ran the bundle of its settings.
    chosen = place.load_bundle(before["folder"] if before else None)
    if before is not None:
        check_identity(chosen, before)
    return chosen


def refuse(place: Station, chosen: Bundle, reason: str) -> None:
    """Write down that a bundle did not pass the golden gate."""
    with closing(VerdictLog(place.database)) as log:
        log.add_event(events.BUNDLE_REFUSED, identity=chosen.identity, reason=reason)


def write_down(place: Station, chosen: Bundle, who: str) -> int:
    """Make a bundle the active one; a running screener lets it through the golden gate first. The activation's number."""
    with closing(VerdictLog(place.database)) as log:
        return log.add_bundle(chosen.identity, place.reference_of(chosen), who=who)
