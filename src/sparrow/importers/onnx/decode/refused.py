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
_SEQUENCE = _refuse(
    "sequences have no static type",
    "export the model with tensors; unroll or stack the sequence",
)
_TEXT = _refuse("n-grams are counted outside the model", "feed the feature vector")
_OPTIONAL = _refuse("optional values have no static type", "export the model with plain tensors")
_STRING = _refuse("strings do not exist on the device", "do this step outside the model")
_IMAGE = _refuse("image files are decoded outside the model", "feed decoded pixels")
_TRAINING = _refuse("training operators are not compiled", "export the model for inference")
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
    "SequenceAt": _SEQUENCE,
    "SequenceConstruct": _SEQUENCE,
    "SequenceEmpty": _SEQUENCE,
    "SequenceErase": _SEQUENCE,
    "SequenceInsert": _SEQUENCE,
    "SequenceLength": _SEQUENCE,
    "SequenceMap": _SEQUENCE,
    "SplitToSequence": _SEQUENCE,
    "ConcatFromSequence": _SEQUENCE,
    "Optional": _OPTIONAL,
    "StringConcat": _STRING,
    "StringNormalizer": _STRING,
    "StringSplit": _STRING,
    "RegexFullMatch": _STRING,
    "TfIdfVectorizer": _TEXT,
    "ImageDecoder": _IMAGE,
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
