"""Which processors compute half precision fast, by the descriptions that Linux gives of them."""

import pytest
import tensorflow as tf

from keras_iterconv._support.processor import computes_half_precision_fast

on_a_gpu = bool(tf.config.list_physical_devices("GPU"))


@pytest.mark.skipif(on_a_gpu, reason="a GPU is fast in half precision")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model name\t: EPYC\nflags\t\t: fpu avx512f avx512_bf16 avx512vbmi\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx2 avx512f\n", False),
        ("bugs\t\t: avx512_bf16\n", False),
        (None, False),
    ],
)
def test_descriptions_of_processors(tmp_path, text, expected):
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    assert computes_half_precision_fast(file) == expected
