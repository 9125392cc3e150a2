"""Models and what runs them: bundles, compiled engines and the inspector that measures frames."""

from engines import bundle
from engines.bundle import Bundle
from engines.classes import CLASSES
from engines.errors import BundleError, EngineBuildError, EngineError, EngineFaultError, GoldenGateError
from engines.inspector import Inspection, Inspector, Measurement
from engines.openvino import Precision
from engines.regions import Region

__all__ = [
    "CLASSES",
    "Bundle",
    "BundleError",
    "EngineBuildError",
    "EngineError",
    "EngineFaultError",
    "GoldenGateError",
    "Inspection",
    "Inspector",
    "Measurement",
    "Precision",
    "Region",
    "bundle",
]
