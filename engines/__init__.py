"""Models and what runs them: bundles, compiled engines and the inspector that measures frames."""

from engines import bundle
from engines.bundle import Bundle
from engines.choice import EngineChoice, Precision, Target
from engines.classes import CLASSES
from engines.cpu_inspector import CpuInspector
from engines.errors import BundleError, EngineBuildError, EngineError, EngineFaultError, GoldenGateError
from engines.inspector import Inspection, Inspector, Measurement, fault_of, inspect, worth_together
from engines.openvino import OpenVinoEngines
from engines.regions import Region, find_objects

__all__ = [
    "CLASSES",
    "Bundle",
    "BundleError",
    "CpuInspector",
    "EngineBuildError",
    "EngineChoice",
    "EngineError",
    "EngineFaultError",
    "GoldenGateError",
    "Inspection",
    "Inspector",
    "Measurement",
    "OpenVinoEngines",
    "Precision",
    "Region",
    "Target",
    "bundle",
    "fault_of",
    "find_objects",
    "inspect",
    "worth_together",
]
