"""Named starting points for training: one frozen value each."""

from .base import Recipe, train_recipe
from .flows import (
    FlowRecipe,
    UnfoldedFlowRecipe,
    flow_color,
    flow_deblur,
    flow_denoise,
    flow_inpaint,
)
from .latent import AutoencoderRecipe, LatentRecipe, autoencoder_color, latent_color
from .priors import (
    PriorRecipe,
    ct_body,
    faces_64,
    faces_128,
    kernels_32,
    kernels_64,
    mri_brain,
    natural_color,
    natural_gray,
)
from .unfolded import UnfoldedRecipe, unfold_brain, unfold_color, unfold_color_full

__all__ = [
    "AutoencoderRecipe",
    "FlowRecipe",
    "LatentRecipe",
    "PriorRecipe",
    "Recipe",
    "UnfoldedFlowRecipe",
    "UnfoldedRecipe",
    "autoencoder_color",
    "ct_body",
    "faces_64",
    "faces_128",
    "flow_color",
    "flow_deblur",
    "flow_denoise",
    "flow_inpaint",
    "kernels_32",
    "kernels_64",
    "latent_color",
    "mri_brain",
    "natural_color",
    "natural_gray",
    "train_recipe",
    "unfold_brain",
    "unfold_color",
    "unfold_color_full",
]
