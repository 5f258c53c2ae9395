"""What the images of a prior are: where they come from, and what they become for a network."""

from .body import Body
from .brain import Brain
from .card import domain_of
from .faces import Faces
from .kernels import Kernels
from .material import Domain
from .photographs import Photographs

__all__ = ["Body", "Brain", "Domain", "Faces", "Kernels", "Photographs", "domain_of"]
