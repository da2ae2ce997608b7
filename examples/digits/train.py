"""Train the bundled digit classifier on scikit-learn's 1,797 scanned digits and export it to ONNX.

    pip install "torch==2.13.0" numpy onnx scikit-learn onnxscript
    python examples/digits/train.py

Deterministic (fixed seeds, one thread). The last 500 samples are held out: a harder test than a
shuffled split, which puts digits of every writer into both parts. They are used neither for
training nor for choosing anything, and are scored once, on the exported file. Writes `digits.onnx`
and `digits.json`.
"""

import json
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx.reference import ReferenceEvaluator
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).resolve().parent
SEED = 0
TEST_SAMPLES = 500
EPOCHS = 60
BATCH = 64
OPSET = 17


def conv_bn(
    cin: int, cout: int, kernel: int, stride: int, groups: int, act: nn.Module | None
) -> nn.Sequential:
    """Convolution without bias, batch norm and, where given, an activation; "same" padding."""
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), *([] if act is None else [act]))


class Separable(nn.Module):
    """Depthwise 3x3, pointwise 1x1; `residual` adds the input back before the last activation."""

    def __init__(
        self, cin: int, cout: int, stride: int, act: nn.Module, residual: bool = False
    ) -> None:
        super().__init__()
        self.depthwise = conv_bn(cin, cin, 3, stride, cin, act)
        self.pointwise = conv_bn(cin, cout, 1, 1, 1, None)
        self.act = act
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(x))
        return self.act(y + x if self.residual else y)


class DigitNet(nn.Module):
    """[N, 1, 8, 8] grey levels in [0, 1] -> [N, 10] logits: 12 layers with weights."""

    def __init__(self) -> None:
        super().__init__()
        relu6, hardswish = nn.ReLU6(), nn.Hardswish()
        self.stem = conv_bn(1, 16, 3, 1, 1, hardswish)
        self.blocks = nn.Sequential(
            Separable(16, 32, 2, relu6),
            Separable(32, 32, 1, relu6, residual=True),
            Separable(32, 48, 1, relu6),
            Separable(48, 64, 2, hardswish),
            Separable(64, 64, 1, hardswish),
        )
        self.dense = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.dense(functional.adaptive_avg_pool2d(self.blocks(self.stem(x)), 1).flatten(1))


class Deployed(nn.Module):
    """The classifier as it ships: probabilities instead of logits."""

    def __init__(self, net: DigitNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x).softmax(dim=1)


def jitter(x: Tensor, rng: torch.Generator) -> Tensor:
    """Rotate (10 degrees), scale (10 %) and shift (half a pixel) [N, 1, 8, 8] at random."""
    n = x.shape[0]
    u = torch.rand((4, n), generator=rng) * 2 - 1
    angle, scale = u[0] * 0.175, 1 + 0.1 * u[1]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = (torch.stack([cos, -sin, u[2] / 8], 1), torch.stack([sin, cos, u[3] / 8], 1))
    grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
    return functional.grid_sample(
        x, grid, mode="bilinear", padding_mode="zeros", align_corners=False
    )


def fit(images: Tensor, labels: Tensor) -> DigitNet:
    """Train with AdamW and a one-cycle schedule for a fixed number of epochs."""
    torch.manual_seed(SEED)
    rng = torch.Generator().manual_seed(SEED)
    net = DigitNet()
    steps = EPOCHS * (len(images) // BATCH)
    optimizer = torch.optim.AdamW(net.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    for epoch in range(EPOCHS):
        order = torch.randperm(len(images), generator=rng)
        for i in range(len(images) // BATCH):
            pick = order[i * BATCH : (i + 1) * BATCH]
            loss = functional.cross_entropy(
                net(jitter(images[pick], rng)), labels[pick], label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if (epoch + 1) % 10 == 0:
            print(f"epoch {epoch + 1:3d}  loss of the last batch {loss.item():.4f}", flush=True)
    return net.eval()


def export(net: DigitNet, path: Path) -> None:
    """Write what PyTorch's TorchScript exporter gives, batch norms not yet folded."""
    torch.onnx.export(
        Deployed(net).eval(),
        (torch.zeros(1, 1, 8, 8),),
        path,
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["probabilities"],
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )
    onnx.checker.check_model(onnx.load(path), full_check=True)


def main() -> None:
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    digits = load_digits()
    images = (digits.images / 16.0).astype(np.float32)[:, None]
    train, test = np.split(np.arange(len(images)), [len(images) - TEST_SAMPLES])
    net = fit(torch.from_numpy(images[train]), torch.from_numpy(digits.target[train]))
    export(net, HERE / "digits.onnx")

    session = ReferenceEvaluator(str(HERE / "digits.onnx"))
    guesses = [int(session.run(None, {"image": images[i : i + 1]})[0].argmax()) for i in test]
    accuracy = float(np.mean(guesses == digits.target[test]))
    facts = {
        "dataset": "sklearn.datasets.load_digits",
        "input": "float32 [1, 1, 8, 8] = digits.images[i] / 16",
        "parameters": sum(p.numel() for p in net.parameters()),
        "test_accuracy": accuracy,
        "test": test.tolist(),
    }
    (HERE / "digits.json").write_text(json.dumps(facts) + "\n", encoding="utf-8")
    print(
        f"test accuracy {accuracy:.4f} on {TEST_SAMPLES} held-out samples, "
        f"{facts['parameters']} parameters"
    )


if __name__ == "__main__":
    main()
