/* Times several engines on one network, interleaved, in Node or in a page: see bench/web.py. */

const makers = {
  async sparrow({ base, path }, { input, threads }) {
    const root = new URL(base, import.meta.url);
    const { load } = await import(new URL('model.mjs', root).href);
    const model = await load({ base: root, path, threads });
    return async (x) => Object.values(await model.run({ [input]: x }));
  },
  async ort({ module, wasm, model }, { input, shape, threads, read }) {
    const ort = await import(module);
    ort.env.wasm.numThreads = threads;
    ort.env.wasm.wasmPaths = wasm;
    ort.env.logLevel = 'error';
    const session = await ort.InferenceSession.create(await read(model), {
      executionProviders: ['wasm'],
      graphOptimizationLevel: 'all',
    });
    return async (x) => {
      const found = await session.run({ [input]: new ort.Tensor('float32', x, shape) });
      return session.outputNames.map((n) => found[n].data);
    };
  },
  async tfjs({ module, backend, wasm, graph, weights }, { threads, read }) {
    // a page has it from its script tags
    const tf = globalThis.tf ?? (await import(module));
    const { setWasmPaths, setThreadsCount, getThreadsCount } = tf.wasm ?? (await import(backend));
    // it takes half of the cores at most, and asks the page for their number
    const cores = { value: 2 * threads, configurable: true };
    if (threads > 1) Object.defineProperty(navigator, 'hardwareConcurrency', cores);
    setThreadsCount(threads);
    setWasmPaths(wasm);
    await tf.setBackend('wasm');
    await tf.ready();
    if (threads > 1) delete navigator.hardwareConcurrency;
    if (getThreadsCount() !== threads) throw new Error(`tfjs has ${getThreadsCount()} threads`);
    const nodes = JSON.parse(new TextDecoder().decode(await read(graph)));
    const blob = await read(weights);
    const constant = ({ at, shape }) => {
      const n = shape.reduce((a, b) => a * b, 1);
      return tf.tensor(new Float32Array(blob.buffer, blob.byteOffset + at, n).slice(), shape);
    };
    const kept = new Map();
    for (const { constants } of nodes)
      for (const c of constants) kept.set(c.at, constant(c));
    return async (x) => {
      const outputs = tf.tidy(() => evaluate(tf, nodes, kept, x));
      const found = await Promise.all(outputs.map((y) => y.data()));
      outputs.forEach((y) => y.dispose());
      return found;
    };
  },
};

/* The network's operators by those of tfjs, channels last. */
function evaluate(tf, nodes, kept, x) {
  const values = new Map();
  const outputs = [];
  for (const { op, inputs, output, constants, attributes: a } of nodes) {
    const [p, q] = inputs.map((i) => values.get(i)), [w, bias] = constants.map((c) => kept.get(c.at));
    let y;
    if (op === 'input') y = tf.transpose(tf.tensor(x, a.shape), a.order);
    else if (op === 'conv') {
      const padded = a.pad.some((b) => b.some(Boolean)) && a.mode === 'explicit';
      const from = padded ? tf.pad(p, a.pad) : p;
      const pad = padded ? 'valid' : a.mode;
      const conv = a.depthwise ? tf.fused.depthwiseConv2d : tf.fused.conv2d;
      y = conv({ x: from, filter: w, bias, strides: a.strides, dilations: a.dilations, pad,
        dataFormat: 'NHWC', activation: a.activation });
    } else if (op === 'add') y = tf.add(p, q);
    else if (op === 'relu') y = tf.relu(p);
    else if (op === 'maxpool') y = tf.maxPool(a.pad ? tf.pad(p, a.pad) : p, a.kernel, a.strides, 'valid');
    else if (op === 'mean') y = tf.mean(p, [1, 2]);
    else if (op === 'matmul') y = tf.fused.matMul({ a: p, b: w, bias });
    else if (op === 'reshape') y = tf.reshape(p, a.shape);
    else if (op === 'concat') y = tf.concat(inputs.map((i) => values.get(i)), a.axis);
    else if (op === 'softmax') y = tf.softmax(p);
    else throw new Error(`no tfjs for ${op}`);
    values.set(output, y);
    if (a?.result) outputs.push(y);
  }
  return outputs;
}

/** Median-ready times: ms per call of each engine in every round, and each one's first outputs. */
export async function race(config, read) {
  const { engines, rounds, blockMs, seed } = config;
  const x = new Float32Array((await read(config.data)).slice().buffer);
  const context = { ...config, read };
  const runs = {}, outputs = {}, calls = {}, ms = {}, ready = {};
  for (const [name, engine] of Object.entries(engines)) {
    const began = performance.now();
    runs[name] = await makers[engine.kind](engine, context);
    outputs[name] = (await runs[name](x)).map((y) => Array.from(y, Number));
    ready[name] = performance.now() - began;
    // long enough for the engine's best compiler to have replaced its first code
    const until = performance.now() + 10 * blockMs;
    let n = 0;
    const start = performance.now();
    while (performance.now() < until || n < 5) {
      await runs[name](x);
      ++n;
    }
    calls[name] = Math.max(1, Math.round((blockMs * n) / (performance.now() - start)));
    ms[name] = [];
  }
  let state = seed;
  const random = () => (state = (state * 1664525 + 1013904223) % 4294967296) / 4294967296;
  for (let round = 0; round < rounds; ++round) {
    const order = Object.keys(runs).map((k) => [random(), k]).sort();
    for (const [, name] of order) {
      await runs[name](x);
      const start = performance.now();
      for (let i = 0; i < calls[name]; ++i) await runs[name](x);
      ms[name].push((performance.now() - start) / calls[name]);
    }
  }
  return { ms, outputs, calls, ready };
}

if (typeof process !== 'undefined' && process.argv?.[2]) {
  const { readFile, writeFile } = await import('node:fs/promises');
  const config = JSON.parse(await readFile(process.argv[2], 'utf8'));
  const read = async (path) => new Uint8Array(await readFile(path));
  await writeFile(config.answer, JSON.stringify(await race(config, read)));
  process.exit(0);
}
