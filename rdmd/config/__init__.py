"""`params.yaml` as typed, validated, frozen objects. The only place that reads it.

Every section of the file is one class; every key is one field with its range. A wrong key or value becomes one
sentence that names the key, what was given and what is allowed. Inside the project nobody passes dictionaries about.
"""

from rdmd.config.base import Count, Fraction, Lambda, Number, Positive, Section
from rdmd.config.baselines import DDIB, EGSDE, ILVR, Baselines, DomainClassifier, NeuralOT, SDEdit, SDEditSDE
from rdmd.config.domains import Digits, Domain, Domains, ImageFolder, Noise, Points, Preprocess, Validation
from rdmd.config.evaluation import (
    ClassifierFeatures,
    EfficientNetLite0Features,
    Evaluate,
    Features,
    InceptionFeatures,
    NoFeatures,
)
from rdmd.config.execution import Execution
from rdmd.config.networks import ImageNetwork, KarrasLevels, LogNormal, Network, NoiseLaw, PointNetwork
from rdmd.config.reading import EXPERIMENTS, PARAMS, load, parse
from rdmd.config.register import (
    Champion,
    CheapestUnder,
    Constraints,
    Knee,
    MostFaithful,
    MostRealistic,
    MostRealisticUnder,
    Register,
)
from rdmd.config.runner import LocalRunner, RayRunner
from rdmd.config.settings import Settings
from rdmd.config.training import Cadence, Continuation, Distill, Independent, Launch, Refine, Teacher
from rdmd.config.transport import FEATURES, L1, LPIPS, FeatureCost, Huber, LowPass, SquaredL2, TransportCost

__all__ = [
    "DDIB", "EGSDE", "EXPERIMENTS", "FEATURES", "ILVR", "L1", "LPIPS", "PARAMS", "Baselines", "Cadence", "Champion",
    "CheapestUnder", "ClassifierFeatures", "Constraints", "Continuation", "Count", "Digits", "Distill", "Domain",
    "DomainClassifier", "Domains", "EfficientNetLite0Features", "Evaluate", "Execution", "FeatureCost", "Features",
    "Fraction", "Huber",
    "ImageFolder", "ImageNetwork", "InceptionFeatures", "Independent", "KarrasLevels", "Knee", "Lambda", "Launch",
    "LocalRunner", "LogNormal", "LowPass", "MostFaithful", "MostRealistic", "MostRealisticUnder", "Network", "NeuralOT",
    "NoFeatures", "Noise", "NoiseLaw", "Number", "PointNetwork", "Points", "Positive", "Preprocess", "RayRunner",
    "Refine", "Register", "SDEdit", "SDEditSDE", "Section", "Settings", "SquaredL2", "Teacher", "TransportCost",
    "Validation", "load", "parse",
]
