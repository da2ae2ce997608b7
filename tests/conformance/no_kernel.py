"""ONNX node tests that import, with everything constant that may be, but that are not compiled as
they stand, by reason; they are refused.
"""

from __future__ import annotations

NO_KERNEL: dict[str, tuple[str, ...]] = {
    "attention is computed in float32": ("test_flexattention_double*",),
    "the axis of a cumulative sum or product must be constant": (
        "test_cumsum_2d_*",
        "test_cumprod_2d_*",
    ),
    "the region that Resize reads must be constant": ("test_resize_tf_crop_and_resize*",),
    "a filter bank must be constant": ("test_melweightmatrix",),
    "the condition of a loop must be constant": ("test_loop11",),
    "dropout in training mode, its ratio known at run time": ("test_training_dropout_zero_*",),
}
