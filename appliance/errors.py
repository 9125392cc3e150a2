"""The errors of the appliance floor. Their class decides a frame's or the process's fate."""

from __future__ import annotations


class ApplianceError(Exception):
    """Base of every error raised by this floor."""


class FrameError(ApplianceError):
    """Retest: this frame cannot be read. The message says why, without the frame's path."""


class FrameVanishedError(ApplianceError):
    """The file is no longer there, or changed while it was read: look again later."""


class OutboxBlockedError(ApplianceError):
    """A verdict file cannot have its name; the verdict itself is committed."""


class RefusedError(ApplianceError):
    """Refuse to start: settings, station, database or bundle are not fit for use."""


class StationBusyError(RefusedError):
    """Another daemon screens this station."""


class OutOfServiceError(ApplianceError):
    """Stop, so that the service is started anew: disk or engine gone. Frames stay pending."""


class NotNowError(OutOfServiceError):
    """Nothing can be stored for now: no room, or another process holds the log. Frames stay pending until it can."""
