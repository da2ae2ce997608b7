"""Text, audio and sensor networks, and the vision transformer."""

from dataclasses import replace
from math import sqrt

import numpy as np
import onnx
from onnx import TensorProto

from nets.build import Net, Value

TOKENS = 128
VOCABULARY = 30522
# Of the recommendation model: MovieLens-1M's highest ids, 0 is padding.
ITEMS, GENRES = 3953, 19
HISTORY, TAGS = 10, 32


def bert_mini(opset: int) -> onnx.ModelProto:
    """BERT-mini (arXiv:1908.08962): 4 layers, hidden 256, 4 heads, 128 tokens, 2 classes.

    Inputs int64 [1, 128] input_ids, attention_mask, token_type_ids. At opset 11 layer norm is
    spelled out and the mask is -10000, as older exporters do; at 17 they are LayerNormalization and
    float32's lowest.
    """
    net = Net(f"bert_mini_opset{opset}", opset)
    hidden, heads, layers = 256, 4, 4
    ids, mask, types = (
        net.input(name, [1, TOKENS], TensorProto.INT64)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    x = net.node("Gather", net.weight((VOCABULARY, hidden), 1), ids, axis=0)
    x = net.node("Add", x, net.node("Gather", net.weight((2, hidden), 1), types, axis=0))
    x = net.node("Add", x, net.weight((1, TOKENS, hidden), 1))
    bias = attention_bias(net, mask)
    y = net.layer_norm(Value(x, hidden))
    for _ in range(layers):
        q, k, v = (split_heads(net, net.matmul(y, hidden), heads) for _ in range(3))
        q, v = (net.node("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        k = net.node("Transpose", k, perm=[0, 2, 3, 1])
        mixed = net.attention(q, k, v, hidden // heads, bias)
        # Averaging over about a hundred tokens leaves little variance; the weights make up for it.
        merged = Value(merge_heads(net, mixed, hidden), hidden, 0.05)
        y = net.layer_norm(net.add(net.matmul(merged, hidden), y))
        inner = net.act(net.matmul(y, 4 * hidden), "Gelu")
        y = net.layer_norm(net.add(net.matmul(inner, hidden), y))
    first = net.node("Gather", y.name, net.const(np.array(0, np.int64)), axis=1)
    pooled = net.act(net.gemm(replace(y, name=first), hidden), "Tanh")
    return net.finish(logits=net.gemm(pooled, 2).name)


def bert_mini_opset11() -> onnx.ModelProto:
    return bert_mini(11)


def bert_mini_opset17() -> onnx.ModelProto:
    return bert_mini(17)


def mobilebert() -> onnx.ModelProto:
    """MobileBERT (arXiv:2004.02984): 24 layers, hidden 512, bottlenecks of 128, 128 tokens.

    Inputs as those of `bert_mini`. Each layer has 4 heads, four feed-forward networks, no layer
    norms (a factor and a shift per channel stand for them), and queries and keys from one
    bottleneck; tokens are embedded in 128 channels together with their neighbours.
    """
    net = Net("mobilebert")
    hidden, narrow, heads, layers = 512, 128, 4, 24
    ids, mask, types = (
        net.input(name, [1, TOKENS], TensorProto.INT64)
        for name in ("input_ids", "attention_mask", "token_type_ids")
    )
    word = net.node("Gather", net.weight((VOCABULARY, narrow), 1), ids, axis=0)
    zero = net.const(np.zeros((1, 1, narrow), np.float32), "zero")
    after = net.node("Slice", word, net.ints(1), net.ints(TOKENS), net.ints(1))
    before = net.node("Slice", word, net.ints(0), net.ints(TOKENS - 1), net.ints(1))
    three = net.node(
        "Concat",
        net.node("Concat", after, zero, axis=1),
        word,
        net.node("Concat", zero, before, axis=1),
        axis=2,
    )
    x = net.matmul(Value(three, 3 * narrow), hidden)
    x = net.add(x, Value(net.weight((1, TOKENS, hidden), 1), hidden))
    x = net.add(x, Value(net.node("Gather", net.weight((2, hidden), 1), types, axis=0), hidden))
    x, bias = no_norm(net, x), attention_bias(net, mask)
    for _ in range(layers):
        y, shared = (no_norm(net, net.matmul(x, narrow)) for _ in range(2))
        q, k, v = (split_heads(net, net.matmul(z, narrow), heads) for z in (shared, shared, x))
        q, v = (net.node("Transpose", t, perm=[0, 2, 1, 3]) for t in (q, v))
        k = net.node("Transpose", k, perm=[0, 2, 3, 1])
        mixed = net.attention(q, k, v, narrow // heads, bias)
        # without layer norms tokens become alike, and their mean has the variance of each
        merged = Value(merge_heads(net, mixed, narrow), narrow)
        y = no_norm(net, net.add(net.matmul(merged, narrow), y))
        for _ in range(4):
            inner = net.act(net.matmul(y, 4 * narrow), "Relu")
            y = no_norm(net, net.add(net.matmul(inner, narrow), y))
        x = no_norm(net, net.add(net.matmul(y, hidden), x))
    first = net.node("Gather", x.name, net.const(np.array(0, np.int64)), axis=1)
    return net.finish(logits=net.gemm(replace(x, name=first), 2).name)


def no_norm(net: Net, x: Value) -> Value:
    """MobileBERT's stand-in for a layer norm: a factor and a shift for each channel."""
    gamma = net.near(1 / sqrt(x.power), 0.2 / sqrt(x.power), x.channels, "gamma")
    beta = net.near(0, 0.1, x.channels, "beta")
    return Value(net.node("Add", net.node("Mul", x.name, gamma), beta), x.channels)


def recommender() -> onnx.ModelProto:
    """TensorFlow Lite's on-device recommendation over MovieLens-1M, its `cnn` encoder.

    Inputs int64 [1, 10] the movies seen last, float32 [1, 10] their ratings, int64 [1, 32] genres;
    id 0 is padding. Movies and ratings pass a convolution over time (4 steps by 4) and the largest
    of each channel, genres their mean; two dense layers give a vector, whose products with all
    movies' embeddings are the scores. Outputs: the five best, and which they are.
    """
    net = Net("recommender")
    label, tag, encoded = 32, 8, 64
    movies = net.input("movie_ids", [1, HISTORY], TensorProto.INT64)
    ratings = net.input("ratings", [1, HISTORY])
    genres = net.input("genre_ids", [1, TAGS], TensorProto.INT64)
    table = net.weight((ITEMS, label), 1)
    seen = net.node("Gather", table, movies, axis=0)
    rated = net.node("Concat", seen, net.node("Unsqueeze", ratings, net.ints(2)), axis=2)
    x = Value(net.node("Transpose", rated, perm=[0, 2, 1]), label + 1)
    w = net.weight((encoded, x.channels, 4), 4 * x.channels)
    b = net.near(0, 0.05, encoded, "bias")
    y = net.node("Conv", x.name, w, b, kernel_shape=[4], strides=[4], pads=[1, 1])
    steps = net.act(Value(y, encoded), "Relu")
    latest = net.node("ReduceMax", steps.name, axes=[2], keepdims=0)
    there = net.node("Not", net.node("Equal", genres, net.const(np.zeros(1, np.int64), "padding")))
    there = net.node("Unsqueeze", net.node("Cast", there, to=TensorProto.FLOAT), net.ints(2))
    told = net.node("Mul", net.node("Gather", net.weight((GENRES, tag), 1), genres, axis=0), there)
    total = net.node("ReduceSum", told, net.ints(1), keepdims=0)
    count = net.node("Max", net.node("ReduceSum", there, net.ints(1), keepdims=0), net.scalar(1))
    mean = net.node("Div", total, count)
    # of the largest of three rectified steps and of the mean of some ten embeddings
    z = net.concat(Value(latest, encoded, 1.0), Value(mean, tag, 0.1))
    z = net.act(net.gemm(z, encoded), "Relu")
    z = net.act(net.gemm(z, label), "Relu")
    near = net.node("Gemm", z.name, table, transB=1, alpha=1 / sqrt(label * z.power))
    likely = net.node("Softmax", near, axis=-1)
    best, which = net.nodes("TopK", 2, likely, net.ints(5), axis=-1)
    return net.finish(scores=best, ids=which)


def attention_bias(net: Net, mask: str) -> str:
    """Int64 mask [1, T] -> float [1, 1, 1, T]: 0 at a token, hugely negative at padding."""
    if net.opset >= 13:
        wide = net.node("Unsqueeze", mask, net.ints(1, 2))
        lowest = float(np.finfo(np.float32).min)
    else:
        wide = net.node("Unsqueeze", net.node("Unsqueeze", mask, axes=[1]), axes=[2])
        lowest = -10000.0
    absent = net.node("Sub", net.scalar(1), net.node("Cast", wide, to=TensorProto.FLOAT))
    return net.node("Mul", absent, net.scalar(lowest))


def split_heads(net: Net, x: Value, heads: int) -> str:
    """[1, T, C] -> [1, T, heads, C / heads]."""
    return net.node("Reshape", x.name, net.ints(0, 0, heads, x.channels // heads))


def merge_heads(net: Net, x: str, hidden: int) -> str:
    """[1, heads, T, C / heads] -> [1, T, C]."""
    return net.node("Reshape", net.node("Transpose", x, perm=[0, 2, 1, 3]), net.ints(0, 0, hidden))


def vit_tiny() -> onnx.ModelProto:
    """ViT-Tiny, 224x224, patch 16: 12 layers, hidden 192, 3 heads. arXiv:2012.12877."""
    net = Net("vit_tiny")
    hidden, heads, layers, tokens = 192, 3, 12, 197
    x = Value(net.input("pixels", [1, 3, 224, 224]), 3)
    x = net.conv(x, hidden, 16, 16, bias=True, pads=[0] * 4)
    flat = net.node("Reshape", x.name, net.ints(1, hidden, tokens - 1))
    patches = net.node("Transpose", flat, perm=[0, 2, 1])
    joined = net.node("Concat", net.weight((1, 1, hidden), 1), patches, axis=1)
    x = Value(net.node("Add", joined, net.weight((1, tokens, hidden), 4)), hidden, 1.25)
    for _ in range(layers):
        y = net.matmul(net.layer_norm(x), 3 * hidden)
        qkv = net.node("Reshape", y.name, net.ints(1, tokens, 3, heads, hidden // heads))
        qkv = net.node("Transpose", qkv, perm=[2, 0, 3, 1, 4])
        q, k, v = (
            net.node("Gather", qkv, net.const(np.array(i, np.int64)), axis=0) for i in range(3)
        )
        k = net.node("Transpose", k, perm=[0, 1, 3, 2])
        mixed = net.attention(q, k, v, hidden // heads)
        merged = Value(merge_heads(net, mixed, hidden), hidden, 0.05)
        x = net.add(x, net.matmul(merged, hidden))
        y = net.act(net.matmul(net.layer_norm(x), 4 * hidden), "Gelu")
        x = net.add(x, net.matmul(y, hidden))
    x = net.layer_norm(x)
    first = net.node("Gather", x.name, net.const(np.array(0, np.int64)), axis=1)
    return net.finish(logits=net.gemm(replace(x, name=first), 1000).name)


def ds_cnn() -> onnx.ModelProto:
    """MLPerf Tiny's keyword spotter: 49 frames of 10 MFCCs, 12 words. arXiv:1711.07128."""
    net = Net("ds_cnn")
    x = Value(net.input("mfcc", [1, 1, 49, 10]), 1)
    x = net.batch_norm(net.conv(x, 64, (10, 4), 2, bias=True, pads=[4, 1, 5, 1]))
    x = net.act(x, "Relu")
    for _ in range(4):
        x = net.batch_norm(net.conv(x, 64, 3, groups=64, bias=True))
        x = net.act(x, "Relu")
        x = net.act(net.batch_norm(net.conv(x, 64, 1, bias=True)), "Relu")
    return net.finish(probabilities=net.node("Softmax", net.classify(x, 12), axis=-1))


def autoencoder() -> onnx.ModelProto:
    """MLPerf Tiny's anomaly detector: dense 640-128x4-8-128x4-640 with batch norms."""
    net = Net("autoencoder")
    x = Value(net.input("frames", [1, 640]), 640)
    for out in (*[128] * 4, 8, *[128] * 4):
        x = net.act(net.batch_norm(net.gemm(x, out)), "Relu")
    return net.finish(reconstruction=net.gemm(x, 640).name)


def recurrent(op: str, gates: int) -> onnx.ModelProto:
    """One LSTM or GRU as PyTorch exports it: 100 steps of 40 features, hidden 128, 12 classes.

    Output `sequence` [100, 1, 128] and `logits` [1, 12] from the last state.
    """
    net = Net(op.lower())
    steps, features, hidden = 100, 40, 128
    x = net.input("frames", [steps, 1, features])
    w = net.weight((1, gates * hidden, features), features)
    # Hidden states have |h| < 1; doubling their share keeps the gates out of the linear region.
    r = net.weight((1, gates * hidden, hidden), hidden, 0.5)
    b = net.near(0, 0.1, 2 * gates * hidden, "bias")
    b = net.node("Unsqueeze", b, net.ints(0))
    zero = net.const(np.zeros((1, 1, hidden), np.float32), "state")
    if op == "LSTM":
        y, last, _ = net.nodes("LSTM", 3, x, w, r, b, "", zero, zero, hidden_size=hidden)
    else:
        y, last = net.nodes(
            "GRU", 2, x, w, r, b, "", zero, hidden_size=hidden, linear_before_reset=1
        )
    sequence = net.node("Squeeze", y, net.ints(1))
    state = Value(net.node("Squeeze", last, net.ints(0)), hidden, 0.2)
    return net.finish(sequence=sequence, logits=net.gemm(state, 12).name)


def lstm() -> onnx.ModelProto:
    return recurrent("LSTM", 4)


def gru() -> onnx.ModelProto:
    return recurrent("GRU", 3)
