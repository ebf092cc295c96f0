"""Operator norms of convolutions, the folding of batch normalisation, and the Lipschitz cap.

The norm is that of the convolution as a linear operator on padded images. The norm of the kernel,
reshaped to a matrix, is not a bound of it.

Reference:
    Lippl et al. 2024, Eq. 3 and "Upper bound on the Lipschitz constant".
"""

from keras_iterconv.spectral.cap_scales import cap_divisor, fold_scales
from keras_iterconv.spectral.conv_norms import (
    circular_conv_norm,
    conv_operator_norm,
    reshaped_norm_bound,
)
from keras_iterconv.spectral.conv_operator import ConvOperator
from keras_iterconv.spectral.power_iteration import converged_norm, power_step, start_vectors

__all__ = [
    "ConvOperator",
    "cap_divisor",
    "circular_conv_norm",
    "conv_operator_norm",
    "converged_norm",
    "fold_scales",
    "power_step",
    "reshaped_norm_bound",
    "start_vectors",
]
