"""ONNX node tests that the importer refuses, by reason; every one must raise a SparrowError."""

from __future__ import annotations

REFUSED: dict[str, tuple[str, ...]] = {
    "training": (
        "test_adagrad*",
        "test_adam*",
        "test_momentum*",
        "test_nesterov_momentum",
        "test_batchnorm_*training_mode",
        "test_training_dropout",
        "test_training_dropout_default*",
        "test_training_dropout_mask",
        "test_gradient_of_*",
    ),
    "random numbers": ("test_bernoulli*",),
    "image files": ("test_image_decoder_*",),
    "n-gram counting": ("test_tfidfvectorizer_*",),
    "classical machine learning (ai.onnx.ml)": (
        "test_ai_onnx_ml_array_feature_extractor",
        "test_ai_onnx_ml_label_encoder_*",
        "test_ai_onnx_ml_tree_*",
    ),
    "opset below 6": ("test_not_[234]d",),
}
