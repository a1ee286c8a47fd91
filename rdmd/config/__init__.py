"""`params.yaml` as typed, validated, frozen objects. The only place that reads it.

Every section of the file is a class; every key is a field with its range. A wrong key or value becomes a sentence that
names the key, the value and the allowed values.
"""

from rdmd.config.baselines import CUT, DDIB, EGSDE, ILVR, Baselines, DomainClassifier, NeuralOT, SDEdit, SDEditSDE
from rdmd.config.domains import (
    Avatars,
    Digits,
    Domain,
    DomainName,
    Domains,
    ImageFolder,
    Noise,
    Points,
    Preprocess,
    Validation,
)
from rdmd.config.evaluation import (
    Champion,
    ClassifierFeatures,
    Constraints,
    EfficientNetLite0Features,
    Evaluate,
    Features,
    InceptionFeatures,
    NoFeatures,
    Register,
)
from rdmd.config.launch import Compute, Launch, LocalRunner, RayRunner
from rdmd.config.networks import (
    AUGMENTATION_LABELS,
    DiffusersNetwork,
    ImageNetwork,
    KarrasLevels,
    LogNormal,
    Network,
    NoiseDistribution,
    PointNetwork,
)
from rdmd.config.reading import EXPERIMENTS, PARAMS, load, parse
from rdmd.config.section import Count, Fraction, Lambda, Number, Positive, Section
from rdmd.config.settings import Settings
from rdmd.config.training import (
    FEATURES,
    L1,
    LPIPS,
    Cadence,
    Distill,
    Evaluated,
    FeatureCost,
    Huber,
    InputNoise,
    LambdaRange,
    Lambdas,
    LowPass,
    SquaredL2,
    Teacher,
    TransportCost,
    Varied,
)
