"""Certificates: which guarantee of the papers a trained net's weights meet, block by block."""

from keras_iterconv.certificates.certification import certify
from keras_iterconv.certificates.stability_report import StabilityReport

__all__ = ["StabilityReport", "certify"]
