"""The physics: linear operators, one file per kind of measurement."""

from .base import Adjoint, Composed, Identity, LinearOperator, Normal, Scaled, Stacked, Sum
from .blur import Blur, GaussianBlur, MotionBlur
from .boundaries import ReflectiveBlur, ValidBlur
from .camera import ValidGaussianBlur, ValidMotionBlur
from .defocus import UnknownDefocus
from .families import BlurFamily, OperatorFamily
from .fbp import angular_weights, fbp, hann
from .fourier import FourierMask
from .function import AutogradOperator, FunctionOperator
from .interop import ScipyOperator, to_scipy
from .kernel_blur import KernelBlur, simplex
from .kernels import disk_kernel, gaussian_kernel, motion_kernel
from .kspace import (
    bernoulli_lines,
    birdcage_maps,
    equispaced_lines,
    fft2c,
    ifft2c,
    random_lines,
    variable_density_mask,
)
from .mri import SENSE, CartesianMRI
from .pixels import Mask, box_mask, random_mask
from .resample import BicubicDownsample, BlockAverage, Downsample, GaussianDownsample
from .rotation import rotation_axis
from .sensor import ValidBicubicDownsample, ValidDownsample, ValidGaussianDownsample
from .tomography import ParallelCT, even_angles
from .transmission import attenuation, hounsfield, line_integrals
from .unknown_blur import UnknownBlur, UnknownValidBlur

__all__ = [
    "Adjoint",
    "AutogradOperator",
    "BicubicDownsample",
    "BlockAverage",
    "Blur",
    "BlurFamily",
    "CartesianMRI",
    "Composed",
    "Downsample",
    "FourierMask",
    "FunctionOperator",
    "GaussianBlur",
    "GaussianDownsample",
    "Identity",
    "KernelBlur",
    "LinearOperator",
    "Mask",
    "MotionBlur",
    "Normal",
    "OperatorFamily",
    "ParallelCT",
    "ReflectiveBlur",
    "SENSE",
    "Scaled",
    "ScipyOperator",
    "Stacked",
    "Sum",
    "UnknownBlur",
    "UnknownDefocus",
    "UnknownValidBlur",
    "ValidBicubicDownsample",
    "ValidBlur",
    "ValidDownsample",
    "ValidGaussianBlur",
    "ValidGaussianDownsample",
    "ValidMotionBlur",
    "angular_weights",
    "attenuation",
    "bernoulli_lines",
    "birdcage_maps",
    "box_mask",
    "disk_kernel",
    "equispaced_lines",
    "even_angles",
    "fbp",
    "fft2c",
    "gaussian_kernel",
    "hann",
    "hounsfield",
    "ifft2c",
    "line_integrals",
    "motion_kernel",
    "random_lines",
    "random_mask",
    "rotation_axis",
    "simplex",
    "to_scipy",
    "variable_density_mask",
]
