from . import (
    batching,
    birkhoff,
    bounds,
    calibration,
    depth,
    lab,
    layernorm,
    metrics,
    networks,
    numerics,
    parametrizations,
    presets,
    projection,
    residual,
    spectrum,
    theory,
)
from .birkhoff import center, entropy, entropy_deficit, marginal_errors, uniform
from .calibration import calibrate_depth, calibrate_epsilon, epsilon_schedule
from .calibration.sensitivity import sensitivity
from .depth import composite, effective_depth, lyapunov_exponents
from .lab.audit.run import audit
from .lab.probe.calibrate import calibrate
from .lab.probe.frontier import frontier
from .lab.probe.search import refute, tighten
from .lab.store import open_run
from .lab.sweep.run import sweep
from .lab.train.run import train
from .lab.verify.run import verify
from .metrics import mixing_metrics
from .parametrizations import PARAMETRIZATIONS
from .presets import PRESETS
from .projection.balance import balance
from .projection.factors import low_rank_logits, point_cloud_logits
from .projection.result import Status
from .projection.sinkhorn import sinkhorn
from .projection.truncated import truncated_sinkhorn
from .spectrum import detail_singular_values, lambda2, sigma2
from .spectrum.gap import contraction_gap
from .theory import CLAIMS
from .theory.claim import Verdict

__all__ = [
    "CLAIMS",
    "PARAMETRIZATIONS",
    "PRESETS",
    "Status",
    "Verdict",
    "audit",
    "balance",
    "batching",
    "birkhoff",
    "bounds",
    "calibrate",
    "calibrate_depth",
    "calibrate_epsilon",
    "calibration",
    "center",
    "composite",
    "contraction_gap",
    "depth",
    "detail_singular_values",
    "effective_depth",
    "entropy",
    "entropy_deficit",
    "epsilon_schedule",
    "frontier",
    "lab",
    "lambda2",
    "layernorm",
    "low_rank_logits",
    "lyapunov_exponents",
    "marginal_errors",
    "metrics",
    "mixing_metrics",
    "networks",
    "numerics",
    "open_run",
    "parametrizations",
    "point_cloud_logits",
    "presets",
    "projection",
    "refute",
    "residual",
    "sensitivity",
    "sigma2",
    "sinkhorn",
    "spectrum",
    "sweep",
    "theory",
    "tighten",
    "train",
    "truncated_sinkhorn",
    "uniform",
    "verify",
]

__version__: str
