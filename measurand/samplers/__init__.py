"""Samplers: draws of the posterior by diffusion priors."""

from .blind import BlindPnPDM, PluginBlindPnPDM
from .blind_dps import BlindDPS
from .blind_summary import BlindSummary, summary
from .daps import DAPS
from .diffpir import DiffPIR
from .dps import DPS
from .pigdm import PiGDM
from .pnpdm import PnPDM
from .reverse import EulerFlow, EulerSDE, HeunFlow, HeunSDE, Reverse, ReverseSDE, transition
from .unfolding import DiffUnfolding

__all__ = [
    "BlindDPS",
    "BlindPnPDM",
    "BlindSummary",
    "DAPS",
    "DPS",
    "DiffPIR",
    "DiffUnfolding",
    "EulerFlow",
    "EulerSDE",
    "HeunFlow",
    "HeunSDE",
    "PiGDM",
    "PluginBlindPnPDM",
    "PnPDM",
    "Reverse",
    "ReverseSDE",
    "summary",
    "transition",
]
