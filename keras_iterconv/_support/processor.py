"""What the processor computes fast."""

from pathlib import Path

import tensorflow as tf

# Names of the Linux kernel: products of bfloat16 in vector registers, and in tiles.
_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}


def computes_half_precision_fast(cpuinfo: str | Path = "/proc/cpuinfo") -> bool:
    """Return whether half precision is faster than float32: on a GPU, or by bfloat16 on the CPU.

    Without instructions for it, a processor computes bfloat16 slower than float32. A processor
    whose instructions are unknown, as on other systems than Linux, counts as one without.

    Args:
        cpuinfo: The file in which Linux describes the processor.
    """
    if tf.config.list_physical_devices("GPU"):
        return True
    try:
        text = Path(cpuinfo).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(
        line.split(":")[0].strip() in ("flags", "Features")
        and not _BFLOAT16.isdisjoint(line.split(":", 1)[-1].split())
        for line in text.splitlines()
    )
