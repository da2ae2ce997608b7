/* A response whose line breaks on the way. */
const broken = (bytes) => {
  const pull = (c) => c.error(new TypeError('network error'));
  return new Response(new ReadableStream({ start: (c) => c.enqueue(bytes.slice(0, 8)), pull }));
};

/* What a page does with a model's folder, for Node and browsers alike: answers facts and outputs. */
export async function check({ load, paths, SparrowError }, base, wasm, weights) {
  const found = { paths: paths(), runs: {}, errors: [] };
  const input = (model) => {
    const [{ shape }] = model.inputs;
    return Float32Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => Math.sin(i));
  };
  for (const path of found.paths) {
    const bytes = [];
    const model = await load({ base, path, progress: (done, all) => bytes.push(done / all) });
    const x = input(model);
    const first = await model.run(x), [name] = Object.keys(first);
    const again = await model.run({ [model.inputs[0].name]: x });
    const steps = await model.profile(x, { runs: 3 });
    found.runs[path] = {
      path: model.path,
      threads: model.threads,
      arrived: bytes.at(-1),
      same: first[name].every((v, i) => v === again[name][i]),
      timed: steps.length > 0 && steps.every((s) => s.ms >= 0 && s.name !== ''),
      output: Array.from(first[name]),
      inputs: model.inputs,
      outputs: model.outputs,
    };
    model.close();
  }
  const model = await load({ base, path: 'simd', wasm, weights });
  found.fromBytes = Array.from(Object.values(await model.run(input(model)))[0]);
  const x = input(model), { name } = model.inputs[0];
  const aborted = load({ base, signal: AbortSignal.abort('left') });
  found.aborted = await aborted.catch((e) => e);
  const refused = [
    () => model.run(x.subarray(1)),
    () => model.run(new Float64Array(x)),
    () => model.run({ wrong: x }),
    () => model.run({}),
    () => model.run(null),
    () => model.run({ [name]: x }, 'no such entry'),
    () => load({ base, path: 'quick' }),
    () => load({ base, weights: weights.slice(8) }),
    () => load({ base, weights: 'missing.bin' }),
    () => load({ base, wasm: 'missing.wasm' }),
    () => load({ base, threads: 1.5 }),
    () => load({ base: 'http://[' }),
    () => load({ base, wasm: new TextEncoder().encode('<!doctype html>') }),
    () => load({ base, wasm: Uint8Array.from([0, 97, 115, 109, 1, 0, 0, 0]) }),
    () => load({ base, path: 'simd', weights: broken(weights) }),
    () => load({ base, path: found.paths[0], weights: weights.slice(8) }),
  ];
  for (const call of refused) {
    try {
      await call();
      found.errors.push('not refused');
    } catch (e) {
      found.errors.push(e instanceof SparrowError ? e.message : `a bare ${e}`);
    }
  }
  return found;
}
