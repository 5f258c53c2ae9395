"""Does a prior fit the measurements? Divergence, ranking and adaptation without clean images."""

from .adaptation import Adaptation
from .coordinates import combined
from .divergence import Curve, Divergence
from .ranking import Rank, ranked

__all__ = ["Adaptation", "Curve", "Divergence", "Rank", "combined", "ranked"]
