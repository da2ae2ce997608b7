"""Several entry points over one weight blob, and states carried between calls, on real models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import sparrow
from data import data
from sparrow.evidence.gate import Gate


def test_prefill_and_step_share_weights_and_step_carries_its_cache(tmp_path: Path) -> None:
    models = {
        "prefill": data("models/onnx/stories260K_prefill64.onnx"),
        "step": data("models/onnx/stories260K_step_kv128.onnx"),
    }
    states = {"k_cache": "k_cache_out", "v_cache": "v_cache_out"}
    both = sparrow.build(models, states=states, out=tmp_path / "both")
    step = np.load(data("refs/onnx__stories260K_step_kv128__onnx.npz"))
    prefill = np.load(data("refs/onnx__stories260K_prefill64__onnx.npz"))
    y = both.run({"tokens": prefill["in0"][0]}, entry="prefill")
    np.testing.assert_allclose(y["logits"], prefill["out0"][0], atol=2e-4)
    for _ in range(2):
        both.reset()
        for t in range(len(step["in0"])):
            feeds = {"tokens": step["in0"][t], "pos": step["in1"][t]}
            y = both.run(feeds, entry="step")
            assert set(y) == {"logits"}
            np.testing.assert_allclose(y["logits"], step["out0"][t], atol=2e-4)
    alone = sparrow.build(models["step"], out=tmp_path / "step")
    sizes = [(tmp_path / n / "weights.bin").stat().st_size for n in ("both", "step")]
    model_bytes = models["step"].stat().st_size
    assert sizes[0] < sizes[1] + 0.2 * model_bytes, sizes
    del alone


def test_prefill_and_step_on_codes_keep_the_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    # a busy machine decides races
    won = Gate("not slower than float32", "", "", True)
    monkeypatch.setattr("sparrow.assemble.race", lambda *_: (won, {}))
    models = {
        "prefill": data("models/onnx/stories260K_prefill64.onnx"),
        "step": data("models/onnx/stories260K_step_kv128.onnx"),
    }
    step = np.load(data("refs/onnx__stories260K_step_kv128__onnx.npz"))
    prefill = np.load(data("refs/onnx__stories260K_prefill64__onnx.npz"))
    calib = {
        "prefill": [{"tokens": prefill["in0"][0]}],
        "step": [
            {"tokens": t, "pos": p} for t, p in zip(step["in0"][:4], step["in1"][:4], strict=True)
        ],
    }
    states = {"k_cache": "k_cache_out", "v_cache": "v_cache_out"}
    both = sparrow.build(models, states=states, calib=calib, precision="int8")
    assert both.receipt.quantization is not None
    assert [q.entry for q in both.receipt.quantization] == ["prefill", "step"]
    assert {s.dtype for s in both.plan.states} == {"float32"}
    for t in range(len(step["in0"])):
        y = both.run({"tokens": step["in0"][t], "pos": step["in1"][t]}, entry="step")["logits"]
        assert np.argmax(y) == np.argmax(step["out0"][t])
    y = both.run({"tokens": prefill["in0"][0]}, entry="prefill")["logits"]
    same = np.argmax(y, -1) == np.argmax(prefill["out0"][0], -1)
    assert same.mean() > 0.95


def test_streaming_speech_enhancement_carries_its_caches() -> None:
    states = {f"{n}_cache": f"{n}_cache_out" for n in ("conv", "tra", "inter")}
    bundle = sparrow.build(data("models/onnx/gtcrn_stream_simple.onnx"), states=states)
    ref = np.load(data("refs/onnx__gtcrn_stream_simple__onnx.npz"))
    for _ in range(2):
        bundle.reset()
        for t in range(len(ref["in0"])):
            y = bundle.run({"mix": ref["in0"][t]})
            assert list(y) == ["enh"]
            np.testing.assert_allclose(y["enh"], ref["out0"][t], atol=5e-5)
