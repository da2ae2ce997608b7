"""Image networks, NCHW, spelled as PyTorch exports them."""

from dataclasses import replace

import numpy as np
import onnx

from nets.build import POWER, Net, Value


def mobilenet_v1() -> onnx.ModelProto:
    """MobileNet 1.0, 224x224. Howard et al., arXiv:1704.04861."""
    net = Net("mobilenet_v1")
    x = net.conv_bn(Value(net.input("input", [1, 3, 224, 224]), 3), 32, 3, 2, act="Relu6")
    plan = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5)
    for out, stride in (*plan, (1024, 2), (1024, 1)):
        x = net.conv_bn(x, x.channels, 3, stride, groups=x.channels, act="Relu6")
        x = net.conv_bn(x, out, 1, act="Relu6")
    return net.finish(probabilities=net.node("Softmax", net.classify(x, 1001), axis=-1))


def inverted_residual(
    net: Net, x: Value, out: int, kernel: int, stride: int, hidden: int, act: str, squeeze: int = 0
) -> Value:
    """MobileNetV2/V3 block: expand, depthwise, squeeze-and-excite if asked, project, add."""
    y = net.conv_bn(x, hidden, 1, act=act) if hidden != x.channels else x
    y = net.conv_bn(y, hidden, kernel, stride, groups=hidden, act=act)
    if squeeze:
        pooled = net.global_pool(y)
        gate = net.act(net.conv(pooled, squeeze, 1, bias=True), "Relu")
        gate = net.act(net.conv(gate, hidden, 1, bias=True), "HardSigmoid")
        y = Value(net.node("Mul", gate.name, y.name), hidden, y.power * POWER["HardSigmoid"])
    y = net.conv_bn(y, out, 1, act="")
    return net.add(x, y) if stride == 1 and out == x.channels else y


def mobilenet_v2() -> onnx.ModelProto:
    """MobileNetV2 1.0, 224x224. Sandler et al., arXiv:1801.04381, table 2."""
    net = Net("mobilenet_v2")
    x = net.conv_bn(Value(net.input("input", [1, 3, 224, 224]), 3), 32, 3, 2, act="Relu6")
    plan = (
        (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2),
        (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
    )  # fmt: skip
    for expand, out, repeats, stride in plan:
        for i in range(repeats):
            step = stride if i == 0 else 1
            x = inverted_residual(net, x, out, 3, step, expand * x.channels, "Relu6")
    return net.finish(logits=net.classify(net.conv_bn(x, 1280, 1, act="Relu6"), 1000))


def efficientnet_lite0() -> onnx.ModelProto:
    """EfficientNet-Lite0, 224x224: B0 without squeeze-and-excite, ReLU6 instead of SiLU."""
    net = Net("efficientnet_lite0")
    x = net.conv_bn(Value(net.input("input", [1, 3, 224, 224]), 3), 32, 3, 2, act="Relu6")
    plan = (
        (1, 16, 1, 1, 3), (6, 24, 2, 2, 3), (6, 40, 2, 2, 5), (6, 80, 3, 2, 3),
        (6, 112, 3, 1, 5), (6, 192, 4, 2, 5), (6, 320, 1, 1, 3),
    )  # fmt: skip
    for expand, out, repeats, stride, kernel in plan:
        for i in range(repeats):
            step = stride if i == 0 else 1
            x = inverted_residual(net, x, out, kernel, step, expand * x.channels, "Relu6")
    return net.finish(logits=net.classify(net.conv_bn(x, 1280, 1, act="Relu6"), 1000))


def mobilenet_v3_small() -> onnx.ModelProto:
    """MobileNetV3-Small 1.0, 224x224. arXiv:1905.02244, table 2; torchvision's widths."""
    net = Net("mobilenet_v3_small")
    x = net.conv_bn(Value(net.input("input", [1, 3, 224, 224]), 3), 16, 3, 2, act="HardSwish")
    plan = (  # kernel, hidden, out, squeeze, activation, stride
        (3, 16, 16, 8, "Relu", 2), (3, 72, 24, 0, "Relu", 2), (3, 88, 24, 0, "Relu", 1),
        (5, 96, 40, 24, "HardSwish", 2), (5, 240, 40, 64, "HardSwish", 1),
        (5, 240, 40, 64, "HardSwish", 1), (5, 120, 48, 32, "HardSwish", 1),
        (5, 144, 48, 40, "HardSwish", 1), (5, 288, 96, 72, "HardSwish", 2),
        (5, 576, 96, 144, "HardSwish", 1), (5, 576, 96, 144, "HardSwish", 1),
    )  # fmt: skip
    for kernel, hidden, out, squeeze, act, stride in plan:
        x = inverted_residual(net, x, out, kernel, stride, hidden, act, squeeze)
    x = net.global_pool(net.conv_bn(x, 576, 1, act="HardSwish"))
    x = net.gemm(replace(x, name=net.node("Flatten", x.name, axis=1)), 1024)
    return net.finish(logits=net.gemm(net.act(x, "HardSwish"), 1000).name)


def squeezenet() -> onnx.ModelProto:
    """SqueezeNet 1.1, 224x224 (no batch norm, biases, pools with ceil_mode). arXiv:1602.07360."""
    net = Net("squeezenet1_1")
    x = Value(net.input("input", [1, 3, 224, 224]), 3)
    x = net.act(net.conv(x, 64, 3, 2, bias=True, pads=[0] * 4), "Relu")
    for squeeze, expand, pool in (
        (16, 64, True), (16, 64, False), (32, 128, True), (32, 128, False),
        (48, 192, True), (48, 192, False), (64, 256, False), (64, 256, False),
    ):  # fmt: skip
        if pool:
            x = net.max_pool(x, 3, 2, ceil=True)
        x = net.act(net.conv(x, squeeze, 1, bias=True), "Relu")
        one = net.act(net.conv(x, expand, 1, bias=True), "Relu")
        three = net.act(net.conv(x, expand, 3, bias=True), "Relu")
        x = net.concat(one, three)
    x = net.global_pool(net.act(net.conv(x, 1000, 1, bias=True), "Relu"))
    return net.finish(logits=net.node("Flatten", x.name, axis=1))


def join(net: Net, branch: Value, skip: Value, rectified: bool) -> Value:
    """ReLU(branch + skip); `rectified`: skip is nowhere negative, so that all of it passes."""
    y = net.node("Relu", net.node("Add", branch.name, skip.name))
    kept = skip.power if rectified else skip.power / 2
    return Value(y, branch.channels, kept + branch.power / 2)


def resnet(name: str, blocks: tuple[int, ...], bottleneck: bool) -> onnx.ModelProto:
    """ResNet v1.5 for 224x224 (stride in the 3x3 convolution). He et al., arXiv:1512.03385."""
    net = Net(name)
    x = net.conv_bn(Value(net.input("input", [1, 3, 224, 224]), 3), 64, 7, 2)
    x = net.max_pool(x, 3, 2, 1)
    for stage, repeats in enumerate(blocks):
        width = 64 << stage
        out = 4 * width if bottleneck else width
        for i in range(repeats):
            stride = 2 if i == 0 and stage > 0 else 1
            if bottleneck:
                y = net.conv_bn(net.conv_bn(x, width, 1), width, 3, stride)
                y = net.conv_bn(y, out, 1, act="")
            else:
                y = net.conv_bn(net.conv_bn(x, width, 3, stride), out, 3, act="")
            identity = stride == 1 and out == x.channels
            skip = x if identity else net.conv_bn(x, out, 1, stride, act="")
            x = join(net, y, skip, rectified=identity)
    return net.finish(logits=net.classify(x, 1000))


def resnet18() -> onnx.ModelProto:
    return resnet("resnet18", (2, 2, 2, 2), bottleneck=False)


def resnet50() -> onnx.ModelProto:
    return resnet("resnet50", (3, 4, 6, 3), bottleneck=True)


def resnet8() -> onnx.ModelProto:
    """MLPerf Tiny's CIFAR-10 ResNet: three stages of one basic block, 32x32."""
    net = Net("resnet8")
    x = net.conv_bn(Value(net.input("input", [1, 3, 32, 32]), 3), 16, 3)
    for out, stride in ((16, 1), (32, 2), (64, 2)):
        y = net.conv_bn(net.conv_bn(x, out, 3, stride), out, 3, act="")
        identity = stride == 1
        skip = x if identity else net.conv(x, out, 1, stride, bias=True, pads=[0] * 4)
        x = join(net, y, skip, rectified=identity)
    return net.finish(probabilities=net.node("Softmax", net.classify(x, 10), axis=-1))


def shuffle(net: Net, x: Value, size: int) -> Value:
    """Channel shuffle with two groups on [1, C, size, size]: Reshape, Transpose, Reshape."""
    half = x.channels // 2
    y = net.node("Reshape", x.name, net.ints(1, 2, half, size, size))
    y = net.node("Transpose", y, perm=[0, 2, 1, 3, 4])
    return replace(x, name=net.node("Reshape", y, net.ints(1, x.channels, size, size)))


def shufflenet_v2() -> onnx.ModelProto:
    """ShuffleNetV2 1.0, 224x224. Ma et al., arXiv:1807.11164, table 5."""
    net = Net("shufflenet_v2")
    x = net.conv_bn(Value(net.input("input", [1, 3, 224, 224]), 3), 24, 3, 2)
    x = net.max_pool(x, 3, 2, 1)
    size = 56
    for out, repeats in ((116, 4), (232, 8), (464, 4)):
        half = out // 2
        size //= 2
        left = net.conv_bn(x, x.channels, 3, 2, groups=x.channels, act="")
        left = net.conv_bn(left, half, 1)
        right = net.conv_bn(net.conv_bn(x, half, 1), half, 3, 2, groups=half, act="")
        x = shuffle(net, net.concat(left, net.conv_bn(right, half, 1)), size)
        for _ in range(repeats - 1):
            keep, work = net.nodes("Split", 2, x.name, net.ints(half, half), axis=1)
            y = net.conv_bn(Value(work, half, x.power), half, 1)
            y = net.conv_bn(net.conv_bn(y, half, 3, groups=half, act=""), half, 1)
            x = shuffle(net, net.concat(Value(keep, half, x.power), y), size)
    return net.finish(logits=net.classify(net.conv_bn(x, 1024, 1), 1000))


def unet() -> onnx.ModelProto:
    """A small U-Net (base 16, four levels, 128x128, one class). arXiv:1505.04597."""
    net = Net("unet")
    x = Value(net.input("input", [1, 3, 128, 128]), 3)
    skips = []
    for width in (16, 32, 64):
        x = net.conv_bn(net.conv_bn(x, width, 3), width, 3)
        skips.append(x)
        x = net.max_pool(x, 2, 2)
    x = net.conv_bn(net.conv_bn(x, 128, 3), 128, 3)
    for skip in reversed(skips):
        x = net.concat(skip, net.upconv(x, skip.channels))
        x = net.conv_bn(net.conv_bn(x, skip.channels, 3), skip.channels, 3)
    return net.finish(mask=net.act(net.conv(x, 1, 1, bias=True), "Sigmoid").name)


def csp(net: Net, x: Value, out: int, repeats: int, residual: bool = True) -> Value:
    """Cross-stage partial block with `repeats` bottlenecks (YOLOv5's C3)."""
    half = out // 2
    y = net.conv_bn(x, half, 1, act="Silu")
    for _ in range(repeats):
        z = net.conv_bn(net.conv_bn(y, half, 1, act="Silu"), half, 3, act="Silu")
        y = net.add(y, z) if residual else z
    return net.conv_bn(net.concat(y, net.conv_bn(x, half, 1, act="Silu")), out, 1, act="Silu")


def detector() -> onnx.ModelProto:
    """A YOLOv5-nano-like detector for 320x320: CSP backbone, SPPF, FPN + PAN neck, decoded boxes.

    Output [1, 6300, 85]: centre x, y, width, height in pixels, objectness, 80 class scores.
    """
    net = Net("detector_n")
    x = Value(net.input("images", [1, 3, 320, 320]), 3)
    x = net.act(net.batch_norm(net.conv(x, 16, 6, 2, pads=[2] * 4)), "Silu")
    x = net.conv_bn(x, 32, 3, 2, act="Silu")
    x = csp(net, x, 32, 1)
    p3 = csp(net, net.conv_bn(x, 64, 3, 2, act="Silu"), 64, 2)
    p4 = csp(net, net.conv_bn(p3, 128, 3, 2, act="Silu"), 128, 3)
    x = csp(net, net.conv_bn(p4, 256, 3, 2, act="Silu"), 256, 1)
    pools = [net.conv_bn(x, 128, 1, act="Silu")]
    for _ in range(3):
        pools.append(net.max_pool(pools[-1], 5, 1, 2))
    top = net.conv_bn(net.conv_bn(net.concat(*pools), 256, 1, act="Silu"), 128, 1, act="Silu")
    mid = csp(net, net.concat(upsample(net, top), p4), 128, 1, residual=False)
    mid = net.conv_bn(mid, 64, 1, act="Silu")
    small = csp(net, net.concat(upsample(net, mid), p3), 64, 1, residual=False)
    down = net.concat(net.conv_bn(small, 64, 3, 2, act="Silu"), mid)
    medium = csp(net, down, 128, 1, residual=False)
    down = net.concat(net.conv_bn(medium, 128, 3, 2, act="Silu"), top)
    large = csp(net, down, 256, 1, residual=False)
    anchors = (
        ((10, 13), (16, 30), (33, 23)),
        ((30, 61), (62, 45), (59, 119)),
        ((116, 90), (156, 198), (373, 326)),
    )
    heads = (
        decode(net, level, stride, np.array(boxes, np.float32))
        for level, stride, boxes in zip((small, medium, large), (8, 16, 32), anchors, strict=True)
    )
    return net.finish(detections=net.node("Concat", *heads, axis=1))


def upsample(net: Net, x: Value) -> Value:
    """Nearest, twice the size."""
    scales = net.const(np.array([1, 1, 2, 2], np.float32), "scales")
    y = net.node(
        "Resize", x.name, "", scales, mode="nearest", nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )  # fmt: skip
    return replace(x, name=y)


def decode(net: Net, x: Value, stride: int, anchors: np.typing.NDArray[np.float32]) -> str:
    """YOLOv5's head on one level: 1x1 conv, sigmoid, boxes (2s - 0.5 + grid) and (2s)^2 anchor."""
    size = 320 // stride
    y = net.node("Reshape", net.conv(x, 255, 1, bias=True).name, net.ints(1, 3, 85, size, size))
    y = net.node("Sigmoid", net.node("Transpose", y, perm=[0, 1, 3, 4, 2]))
    xy, wh, scores = net.nodes("Split", 3, y, net.ints(2, 2, 81), axis=4)
    rows, columns = np.mgrid[:size, :size].astype(np.float32)
    grid = np.stack([columns, rows], -1)[None, None] - np.float32(0.5)
    xy = net.node("Add", net.node("Mul", xy, net.scalar(2)), net.const(grid, "grid"))
    xy = net.node("Mul", xy, net.scalar(stride))
    wh = net.node("Pow", net.node("Mul", wh, net.scalar(2)), net.scalar(2))
    wh = net.node("Mul", wh, net.const(anchors.reshape(1, 3, 1, 1, 2), "anchors"))
    y = net.node("Concat", xy, wh, scores, axis=4)
    return net.node("Reshape", y, net.ints(1, 3 * size * size, 85))
