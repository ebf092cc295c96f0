"""What a quantised file has in common with the file that it was made from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class QuantizationReport:
    """Size and number of updates of a quantised file, and of the float32 file.

    Attributes:
        bytes: Bytes of the quantised file.
        float_bytes: Bytes of the float32 file.
        samples: Number of calibration samples N.
        updates: Updates of a sample in all blocks together, mean over the calibration samples;
            None for a model without blocks.
        float_updates: The same of the float32 file.
        thresholds: The new stopping thresholds, by the name of their input; empty where the depth
            is fixed.
        float_thresholds: The thresholds of the float32 file.

    Example:
        >>> report = ki.QuantizationReport(
        ...     bytes=3000, float_bytes=10000, samples=512, updates=6.1, float_updates=6.2,
        ...     thresholds={"threshold": 0.11}, float_thresholds={"threshold": 0.1},
        ... )
        >>> report.size
        0.3

    See also:
        `quantize_onnx`, which returns it.
    """

    bytes: int
    float_bytes: int
    samples: int
    updates: float | None
    float_updates: float | None
    thresholds: dict[str, float]
    float_thresholds: dict[str, float]

    @property
    def size(self) -> float:
        """The size as a share of that of the float32 file."""
        return self.bytes / self.float_bytes

    def __str__(self) -> str:
        """Return one line."""
        text = f"int8 weights: {self.size:.1%} of {self.float_bytes:,} bytes"
        if self.updates is not None and self.float_updates is not None:
            text += (
                f"; {self.updates:.2f} updates instead of {self.float_updates:.2f}, on "
                f"{self.samples} calibration samples"
            )
        for name, threshold in self.thresholds.items():
            text += f"; {name} {threshold:g} instead of {self.float_thresholds[name]:g}"
        return text
