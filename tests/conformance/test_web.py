"""The folder of a page: every build in Node.js and in Chromium, its types, its errors, its demo."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

import native_harness as harness
import sparrow
from page_server import in_chromium
from small_models import accumulator, classifier, embedding
from sparrow.bundle import Bundle
from sparrow.device.build import NATIVE
from sparrow.device.remote import RemoteLibrary
from sparrow.device.runners import Runner
from sparrow.folder import load_evidence
from sparrow.rendering.page import page_gates

# Large enough for threads to share a layer.
SHAPE = (1, 3, 24, 24)
CHECKS = Path(__file__).parent.parent / "native" / "web_checks.mjs"
IN_NODE = """
import {{ readFileSync }} from 'node:fs';
import * as model from '{folder}/model.mjs';
import {{ check }} from '{checks}';
const [wasm, weights] = ['model.simd.wasm', 'weights.bin'].map((f) => readFileSync('{path}/' + f));
console.log(JSON.stringify(await check(model, '{folder}/', wasm, weights)));
"""
IN_PAGE = """<!doctype html><title>test</title><script type="module">
import * as model from './model.mjs';
import { check } from './web_checks.mjs';
const bytes = async (f) => new Uint8Array(await (await fetch(f)).arrayBuffer());
try {
  const files = [await bytes('model.simd.wasm'), await bytes('weights.bin')];
  const found = await check(model, location.href, ...files);
  await fetch('/done', { method: 'POST', body: JSON.stringify(found) });
} catch (e) {
  await fetch('/done', { method: 'POST', body: JSON.stringify({ failed: String(e) }) });
}
</script>"""
EVERY_PATH = """
import {{ readFileSync }} from 'node:fs';
import {{ has, load, paths }} from '{folder}/model.mjs';
const x = Float32Array.from({{ length: 1728 }}, (_, i) => Math.sin(i)), found = {{}};
for (const path of paths()) {{
  const model = await load({{ path }});
  found[path] = Array.from((await model.run(x)).y);
  model.close();
}}
const dots = ['usdot', 'sdot', 'maddubs'], kinds = dots.filter(has), refused = [];
for (const kind of dots)
  await load({{ path: 'relaxed', wasm: `model.${{kind}}.wasm`, weights: `weights.${{kind}}.bin` }})
    .catch((e) => refused.push(e.message));
console.log(JSON.stringify({{ kinds, found, refused }}));
"""
OLDER = "--no-enable-avx-vnni"  # V8's relaxed dot product is another then
# What a page of a strict policy does: all of it in files of its own, one beside the folder.
STRICT = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'"
LOADS = """
import { load } from './model.mjs';
const x = Float32Array.from({ length: 1728 }, (_, i) => Math.sin(i));
export const facts = async (options) => {
  try {
    const model = await load(options), { y } = await model.run(x);
    model.close();
    return [model.path, model.threads, ...y];
  } catch (e) {
    return [e.name, e.message];
  }
};
"""
IN_SCOPES = """
import { facts } from './loads.mjs';
const ask = (start) => new Promise((resolve) => start(({ data }) => resolve(data)));
const found = { page: await facts(), asked: await facts({ path: 'threads' }) };
found.worker = await ask((answer) => {
  new Worker('./worker.mjs', { type: 'module' }).onmessage = answer;
});
found.shared = await ask((answer) => {
  new SharedWorker('./shared.mjs', { type: 'module' }).port.onmessage = answer;
});
const { installing } = await navigator.serviceWorker.register('./service.mjs', { type: 'module' });
const { port1, port2 } = new MessageChannel();
found.service = await ask((answer) => {
  port1.onmessage = answer;
  installing.postMessage('', [port2]);
});
await fetch('/done', { method: 'POST', body: JSON.stringify(found) });
"""
SCOPES = {
    "/loads.mjs": LOADS.encode(),
    "/scopes.mjs": IN_SCOPES.encode(),
    "/worker.mjs": b"import { facts } from './loads.mjs'; facts().then((f) => postMessage(f));",
    "/shared.mjs": b"""import { facts } from './loads.mjs';
onconnect = ({ ports: [port] }) => facts().then((f) => port.postMessage(f));""",
    "/service.mjs": b"""import { facts } from './loads.mjs';
onmessage = ({ ports: [port] }) => facts().then((f) => port.postMessage(f));""",
    "/scopes.html": b'<!doctype html><script type="module" src="scopes.mjs"></script>',
}
DEMO = """<script type="module">
for (;;) {
  const { done, failed } = document.body.dataset;
  if (done || failed) {
    const facts = document.getElementById('facts').textContent;
    const rows = document.querySelectorAll('#table tr').length;
    await fetch('/done', { method: 'POST', body: JSON.stringify({ done, failed, facts, rows }) });
    break;
  }
  await new Promise((go) => setTimeout(go, 20));
}
</script>"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    harness.node()
    return sparrow.build(classifier(shape=SHAPE), "web", tmp_path_factory.mktemp("web") / "out")


@pytest.fixture(scope="module")
def codes(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same network in int8; of normal weights none would be taken by twos."""
    harness.node()
    samples = np.random.default_rng(1).standard_normal((8, *SHAPE), np.float32)
    network = classifier(shape=SHAPE)
    for t in network.graph.initializer:
        if t.name == "w1":
            t.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(t) ** 3, t.name))
    model = sparrow.quantize(network, list(samples))
    return sparrow.build(model, "web", tmp_path_factory.mktemp("codes") / "out")


def in_node(script: str, folder: Path, *flags: str) -> Any:
    path = folder / "script.mjs"
    path.write_text(script)
    command = [harness.node(), *flags, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0 and done.stdout, done.stderr
    return json.loads(done.stdout)


def judge(found: Any, bundle: Bundle, threads: bool = True) -> None:
    assert "failed" not in found, found
    wanted = ["relaxed", "simd", "plain"]
    assert found["paths"][-3:] == wanted and len(found["paths"]) == 3 + threads
    x = np.sin(np.arange(np.prod(SHAPE))).astype(np.float32).reshape(SHAPE)
    want = bundle.run(x)["y"].ravel()
    for path, run in found["runs"].items():
        assert run["path"] == path and run["same"] and run["timed"] and run["arrived"] == 1
        np.testing.assert_allclose(run["output"], want, atol=1e-5)
        assert [t["name"] for t in run["inputs"]] == ["x"]
        assert run["inputs"][0]["shape"] == list(SHAPE)
        assert run["outputs"][0]["dtype"] == "float32"
    np.testing.assert_array_equal(found["fromBytes"], found["runs"]["simd"]["output"])
    if threads:
        runs = found["runs"]
        assert runs["threads"]["threads"] > 1
        assert runs["threads"]["output"] == runs["relaxed"]["output"]
    texts = (
        "expected Float32Array of 1728 (float32, shape 1x3x24x24), found Float32Array of 1727",
        "found Float64Array of 1728",
        "input 'wrong' is unknown; there are x",
        "found nothing",
        "expected an object of inputs: x",
        "entry 'no such entry' is unknown",
        "path 'quick' cannot run here; possible are",
        "of another build?",
        "missing.bin cannot be",
        "missing.wasm cannot be",
        "threads: expected 1 to 256, found 1.5",
        "in 'http://[' is no URL",
        "wasm is no module, or cut short: ",
        "the module is no model",
        "the weights ended after",
        "of another build?",
    )
    assert found["aborted"] == "left"
    for error, text in zip(found["errors"], texts, strict=True):
        assert text in error and "\n" not in error


def test_every_build_runs_in_node(bundle: Bundle, tmp_path: Path) -> None:
    folder = bundle.folder
    script = IN_NODE.format(folder=folder.as_uri(), checks=CHECKS.as_uri(), path=folder)
    judge(in_node(script, tmp_path), bundle)


@pytest.mark.parametrize("isolated", [True, False])
def test_every_build_runs_in_chromium(bundle: Bundle, tmp_path: Path, isolated: bool) -> None:
    pages = {"/test.html": IN_PAGE.encode(), "/web_checks.mjs": CHECKS.read_bytes()}
    found = in_chromium(bundle.folder, tmp_path, pages, "/test.html", isolated)
    judge(found, bundle, threads=isolated)


@pytest.mark.parametrize("policy", ["", STRICT, f"{STRICT}; worker-src 'self' blob:"])
def test_workers_of_all_kinds_and_policies_load_what_they_can(
    bundle: Bundle, tmp_path: Path, policy: str
) -> None:
    """Where none starts that shares the memory, a build of one thread runs."""
    found = in_chromium(bundle.folder, tmp_path, SCOPES, "/scopes.html", True, policy)
    alone = policy == STRICT
    for scope in ("page", "worker", "shared", "service"):
        one = alone or scope in ("shared", "service")
        assert found[scope][0] == ("relaxed" if one else "threads"), found[scope]
        assert (found[scope][1] == 1) == one
        assert found[scope][2:] == found["page"][2:] and len(found[scope]) == 7
    if alone:  # who names the build learns why it cannot be
        assert found["asked"][0] == "SparrowError"
        assert found["asked"][1] == "no worker starts here: does worker-src allow blob:?"
    else:
        assert found["asked"] == found["page"]


@pytest.mark.parametrize("flags", [(), (OLDER,)])
def test_integers_are_the_same_in_every_build(
    codes: Bundle, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    answer = in_node(EVERY_PATH.format(folder=codes.folder.as_uri()), tmp_path, *flags)
    found = answer["found"]
    kinds = answer["kinds"]
    threaded = [f"{k}_threads" for k in kinds]
    assert list(found) == [*threaded, "threads", *kinds, "relaxed", "simd", "plain"]
    assert all(y == found["plain"] for y in found.values())
    lacking = [k for k in harness.DOTS if k not in kinds]
    assert answer["refused"] == [f"the engine lacks {k}" for k in lacking]
    assert not (flags and "usdot" in kinds)


def test_both_compilers_of_an_engine_multiply_bytes_alike() -> None:
    for kind in harness.DOTS:
        tiers = {harness.engine_has(kind, flag) for flag in ("--liftoff-only", "--no-liftoff")}
        assert tiers == {harness.engine_has(kind)}


def test_what_the_engine_cannot_run_is_named(codes: Bundle) -> None:
    runner = NATIVE / "web" / "runner.mjs"
    graphs, golden = load_evidence(codes.folder, codes.plan)

    def older(path: Path) -> RemoteLibrary:
        return RemoteLibrary(path, (harness.node(), OLDER, str(runner), str(path)))

    gates = {g.name: g for g in page_gates(codes.folder, graphs, golden, Runner("node", older))}
    assert all(g.ok for g in gates.values()) and len(gates) == 10
    for path in ("usdot", "usdot_threads"):
        assert "the engine lacks usdot" in gates[f"model.{path}.wasm: not run"].found


def test_a_network_of_floats_has_no_builds_for_bytes(bundle: Bundle, codes: Bundle) -> None:
    assert not [p for k in harness.DOTS for p in bundle.folder.glob(f"*{k}*")]
    names = {f"model.{k}{t}.wasm" for k in harness.DOTS for t in ("", "_threads")}
    names |= {f"weights.{k}.bin" for k in harness.DOTS}
    assert names <= codes.receipt.files.keys() and codes.verify().ok
    text = (codes.folder / "model.mjs").read_text()
    assert "new URL('weights.usdot.bin', import.meta.url)" in text


def test_the_demo_runs(bundle: Bundle, tmp_path: Path) -> None:
    page = (bundle.folder / "index.html").read_text() + DEMO
    found = in_chromium(bundle.folder, tmp_path, {"/": page.encode()}, "/", isolated=False)
    assert found["done"] == "relaxed" and "failed" not in found
    assert "path relaxed, 1 thread(s)" in found["facts"] and found["rows"] > 1


def test_the_receipt_holds_every_build(bundle: Bundle) -> None:
    builds = {f"model.{p}.wasm" for p in ("threads", "relaxed", "simd", "plain")}
    names = {*builds, "model.mjs", "model.d.mts", "index.html", "weights.bin"}
    assert names <= bundle.receipt.files.keys()
    proof = bundle.verify()
    assert proof.ok
    assert builds == {g.name.split(":")[0] for g in proof.gates if g.name.startswith("model.")}
    assert (bundle.folder / "model.mjs").stat().st_size < 30_000


def test_where_no_layer_is_shared_no_build_has_threads(tmp_path: Path) -> None:
    small = sparrow.build(classifier(), "web", tmp_path / "out")
    builds = {f"model.{p}.wasm" for p in ("relaxed", "simd", "plain")}
    assert builds == {p.name for p in (tmp_path / "out").glob("model.*.wasm")}
    assert builds == set(
        re.findall(r"'(model\.\w+\.wasm)'", small.folder.joinpath("model.mjs").read_text())
    )


def test_a_build_of_other_weights_is_no_bundle(bundle: Bundle, tmp_path: Path) -> None:
    module = (bundle.folder / "model.relaxed.wasm").read_bytes()
    assert len(module) < 60_000
    for p in bundle.folder.iterdir():
        (tmp_path / p.name).write_bytes(p.read_bytes())
    (tmp_path / "model.relaxed.wasm").write_bytes(module + b"\0")
    assert not sparrow.load_bundle(tmp_path).verify().ok


@pytest.fixture
def declarations(bundle: Bundle) -> Iterator[str]:
    yield (bundle.folder / "model.d.mts").read_text()


def test_the_types_are_typescript_and_name_the_tensors(declarations: str, tmp_path: Path) -> None:
    assert '"x": Float32Array;' in declarations and '"y": Float32Array;' in declarations
    text = tmp_path / "model.ts"
    text.write_text(declarations)
    # Node's own parser of TypeScript; what is left of declarations is nothing
    script = f"""
import {{ readFileSync }} from 'node:fs';
import {{ stripTypeScriptTypes }} from 'node:module';
const text = readFileSync('{text}', 'utf8').replace(/^export (class|function)/gm, 'declare $1');
console.log(JSON.stringify(stripTypeScriptTypes(text).trim()));
"""
    left = in_node(script, tmp_path)
    assert left == "" or left.startswith("/*")


def test_other_tensors_and_states(tmp_path: Path) -> None:
    harness.node()
    ids = sparrow.build(embedding(), "web", tmp_path / "ids")
    assert "BigInt64Array" in (ids.folder / "model.d.mts").read_text()
    total = sparrow.build(accumulator(), "web", tmp_path / "total", states={"total": "total_out"})
    script = f"""
import {{ load }} from '{total.folder.as_uri()}/model.mjs';
const model = await load(), found = [];
for (const _ of [1, 2]) found.push(Array.from((await model.run(new Float32Array(4).fill(1))).y));
model.reset();
found.push(Array.from((await model.run(new Float32Array(4).fill(1))).y));
model.close();
console.log(JSON.stringify(found));
"""
    assert in_node(script, tmp_path) == [[2] * 4, [4] * 4, [2] * 4]
