"""The errors of the engines floor: bundles and engines that must not be used."""

from __future__ import annotations


class EngineError(Exception):
    """Base of every error raised by this floor; refuses to start unless said otherwise."""


class BundleError(EngineError):
    """A bundle is missing, damaged or of another format."""


class EngineBuildError(EngineError):
    """An engine cannot be built for this device or precision."""


class EngineUnavailableError(EngineError):
    """This machine lacks what an engine needs: a package, a driver or a GPU; says which and what to do."""


class GoldenGateError(EngineError):
    """An engine does not give the golden measurements that its bundle promises."""


class EngineFaultError(EngineError):
    """An engine failed while running: stop, so that the service is started anew and the frames stay pending."""


class TrainingError(EngineError, ValueError):
    """A data set, a start or a checkpoint that a training cannot use."""
