"""Operators that no compiled network can contain, each refused with what to do instead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sparrow.importers.onnx.call import Call, Decoder


def _refuse(what: str, hint: str) -> Decoder:
    def decode(n: Call) -> Sequence[str]:
        raise n.unsupported(what, hint)

    return decode


_RANDOM = _refuse(
    "random numbers are not reproducible across devices",
    "make the random tensor a model input",
)
_TEXT = _refuse("n-grams are counted outside the model", "feed the feature vector")
_OPTIONAL = _refuse("optional values have no static type", "export the model with plain tensors")
_STRING = _refuse("strings do not exist on the device", "do this step outside the model")
_IMAGE = _refuse("image files are decoded outside the model", "feed decoded pixels")
_TRAINING = _refuse("training operators are not compiled", "export the model for inference")
_CLASSICAL = _refuse(
    "trees, support vectors and labels of classical machine learning are not compiled",
    "compute it outside the model, or export it as tensor operators",
)
_LABELLED = _refuse(
    "maps from labels to scores do not exist on the device",
    "export the model with plain tensors: skl2onnx has the option zipmap=False",
)
_BLOCKED = _refuse(
    "ONNX Runtime laid it out for the vectors of one processor",
    "give the model it was made of, or save it at ORT_ENABLE_EXTENDED",
)

DECODERS: Mapping[str, Decoder] = {
    "RandomNormal": _RANDOM,
    "RandomNormalLike": _RANDOM,
    "RandomUniform": _RANDOM,
    "RandomUniformLike": _RANDOM,
    "Bernoulli": _RANDOM,
    "Multinomial": _RANDOM,
    "Optional": _OPTIONAL,
    "StringConcat": _STRING,
    "StringNormalizer": _STRING,
    "StringSplit": _STRING,
    "RegexFullMatch": _STRING,
    "TfIdfVectorizer": _TEXT,
    "ImageDecoder": _IMAGE,
    "ai.onnx.ml.ArrayFeatureExtractor": _CLASSICAL,
    "ai.onnx.ml.CastMap": _LABELLED,
    "ai.onnx.ml.CategoryMapper": _CLASSICAL,
    "ai.onnx.ml.DictVectorizer": _LABELLED,
    "ai.onnx.ml.LabelEncoder": _CLASSICAL,
    "ai.onnx.ml.LinearClassifier": _CLASSICAL,
    "ai.onnx.ml.OneHotEncoder": _CLASSICAL,
    "ai.onnx.ml.SVMClassifier": _CLASSICAL,
    "ai.onnx.ml.SVMRegressor": _CLASSICAL,
    "ai.onnx.ml.TreeEnsemble": _CLASSICAL,
    "ai.onnx.ml.TreeEnsembleClassifier": _CLASSICAL,
    "ai.onnx.ml.TreeEnsembleRegressor": _CLASSICAL,
    "ai.onnx.ml.ZipMap": _LABELLED,
    "ai.onnx.preview.training.Gradient": _TRAINING,
    "ai.onnx.preview.training.Adagrad": _TRAINING,
    "ai.onnx.preview.training.Adam": _TRAINING,
    "ai.onnx.preview.training.Momentum": _TRAINING,
    "com.microsoft.nchwc.AveragePool": _BLOCKED,
    "com.microsoft.nchwc.Conv": _BLOCKED,
    "com.microsoft.nchwc.GlobalAveragePool": _BLOCKED,
    "com.microsoft.nchwc.GlobalMaxPool": _BLOCKED,
    "com.microsoft.nchwc.MaxPool": _BLOCKED,
    "com.microsoft.nchwc.ReorderInput": _BLOCKED,
    "com.microsoft.nchwc.ReorderOutput": _BLOCKED,
    "com.microsoft.nchwc.Upsample": _BLOCKED,
}
