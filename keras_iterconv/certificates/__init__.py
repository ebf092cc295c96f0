"""Certificates: for each block, whether the trained weights satisfy the papers' guarantee."""

from keras_iterconv.certificates.certification import certify
from keras_iterconv.certificates.stability_report import StabilityReport

__all__ = ["StabilityReport", "certify"]
