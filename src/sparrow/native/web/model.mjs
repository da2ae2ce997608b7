/* Runs an emitted model in a browser or in Node: `const model = await load(); await model.run(x)`.
 *
 * Picks the fastest build that the engine runs: threads (needs a cross-origin isolated page), relaxed
 * SIMD, SIMD, or plain. Beside this file lie model.<path>.wasm and the weights; of each kind one file is
 * fetched. Offsets below are those of the structures of sparrow.h with pointers of 4 bytes. */

export class SparrowError extends Error {
  constructor(message) {
    super(message);
    this.name = 'SparrowError';
  }
}

/* The builds beside this file, the fastest first. */
const BUILDS = {};

const inNode = typeof process !== 'undefined' && process.versions?.node !== undefined;
/* An import that bundlers do not follow: a page has no such modules. */
const ofNode = (name) => process.getBuiltinModule(`node:${name}`);
/* Service workers and shared ones start no workers. */
const startsWorkers = () => inNode || (typeof Worker === 'function' && !!URL.createObjectURL);
const ABI_VERSION = 1;
const ALIGN = 64;
const PAGE = 65536;
const STACK = 65536;
const MAX_THREADS = 256;
const I32 = 0x7f;
const STATUS = [
  'ok',
  'no such entry point',
  'a buffer is missing',
  'a buffer is misaligned',
  'an index in an input is out of range',
  'a value in an input is one the model does not define',
];
/* In the order of sparrow_dtype; half types as their bits. */
const DTYPES = [
  null,
  ['float32', Float32Array],
  ['float16', Uint16Array],
  ['bfloat16', Uint16Array],
  ['float64', Float64Array],
  ['int2', Int8Array],
  ['int4', Int8Array],
  ['uint4', Uint8Array],
  ['int8', Int8Array],
  ['uint8', Uint8Array],
  ['int16', Int16Array],
  ['uint16', Uint16Array],
  ['int32', Int32Array],
  ['uint32', Uint32Array],
  ['int64', BigInt64Array],
  ['uint64', BigUint64Array],
  ['bool', Uint8Array],
];

/* The smallest modules that validate only where the engine has a feature. */
const PROBES = {
  simd: [1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11],
  relaxed: [
    1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 1, 253, 15, 65, 2, 253, 15, 253, 128,
    2, 11,
  ],
  threads: [
    1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 5, 4, 1, 3, 1, 1, 10, 11, 1, 9, 0, 65, 0, 254, 16, 2, 0, 26, 11,
  ],
};
const MAGIC = [0, 97, 115, 109, 1, 0, 0, 0];

/* f(a, b): as many products of bytes by a relaxed dot product. */
const DOT = {
  4: [
    ...[1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0],
    ...[10, 22, 1, 20, 0, 32, 0, 253, 15, 32, 1, 253, 15, 65, 0, 253, 17],
    ...[253, 147, 2, 253, 27, 0, 11],
  ],
  2: [
    ...[1, 7, 1, 96, 2, 127, 127, 1, 127, 3, 2, 1, 0, 7, 5, 1, 1, 102, 0, 0],
    ...[10, 18, 1, 16, 0, 32, 0, 253, 15, 32, 1, 253, 15, 253, 146, 2, 253, 24, 0, 11],
  ],
};
/* Products, and operands that a build needs to be exact: of two products -128 the sum leaves 16 bits,
 * which those of `maddubs` are chosen for. */
const DOTS = {
  usdot: [4, [-128, -1, 127], [1, 127, 128, 255]],
  sdot: [4, [-128, -1, 127], [-127, -1, 1, 127]],
  maddubs: [2, [-64, -1, 64], [1, 127, 128, 255]],
};
const asked = {}; // what dot products do

function dots([n, firsts, seconds]) {
  const module = new WebAssembly.Module(Uint8Array.from([...MAGIC, ...DOT[n]]));
  const { f } = new WebAssembly.Instance(module).exports;
  return firsts.every((a) => seconds.every((b) => f(a, b) === n * a * b));
}

/**
 * Whether the engine has a feature: `simd`, `relaxed`, `threads` (shared memory and workers), or relaxed dot
 * products of signed with unsigned (`usdot`; by twos `maddubs`) or signed bytes (`sdot`), which the standard
 * leaves open.
 */
export function has(feature) {
  if (feature === 'threads' && (typeof SharedArrayBuffer === 'undefined' || !startsWorkers()))
    return false;
  if (feature in DOTS) return (asked[feature] ??= has('relaxed') && dots(DOTS[feature]));
  return WebAssembly.validate(Uint8Array.from([...MAGIC, ...PROBES[feature]]));
}

const NEEDS = {
  usdot_threads: ['relaxed', 'threads', 'usdot'],
  usdot: ['relaxed', 'usdot'],
  sdot_threads: ['relaxed', 'threads', 'sdot'],
  sdot: ['relaxed', 'sdot'],
  maddubs_threads: ['relaxed', 'threads', 'maddubs'],
  maddubs: ['relaxed', 'maddubs'],
  threads: ['relaxed', 'threads'],
  relaxed: ['relaxed'],
  simd: ['simd'],
  plain: [],
};

/** The paths that the model has and this engine runs, the fastest first. */
export function paths() {
  return Object.keys(BUILDS).filter((path) => NEEDS[path].every(has));
}

/* A WebAssembly function that calls a JavaScript one, to be put into a table. */
function callback(types, f) {
  const n = types.length;
  const module = new WebAssembly.Module(
    Uint8Array.from([
      ...MAGIC,
      ...[1, 4 + n, 1, 0x60, n, ...types, 0],
      ...[2, 7, 1, 1, 101, 1, 102, 0, 0],
      ...[7, 5, 1, 1, 102, 0, 0],
    ]),
  );
  return new WebAssembly.Instance(module, { e: { f } }).exports.f;
}

/** The memory that a threaded module imports; its linker allows no larger one. */
export function sharedMemory() {
  return new WebAssembly.Memory({ initial: 64, maximum: 16384, shared: true });
}

/** A module over its memory: what it says of itself, and calls with arrays already in place. */
export class Native {
  constructor(instance, memory = instance.exports.memory) {
    const { model_info, __heap_base } = instance.exports;
    if (!model_info || !__heap_base || !memory) throw new SparrowError('the module is no model');
    this.exports = instance.exports;
    this.memory = memory;
    this.top = __heap_base.value;
    const at = model_info();
    if (this.u32(at) !== ABI_VERSION)
      throw new SparrowError(`the module has ABI version ${this.u32(at)}, expected ${ABI_VERSION}`);
    const list = (start, n, size, read) =>
      Array.from({ length: n }, (_, i) => read.call(this, start + i * size));
    this.hooks = (this.u32(at + 4) & 1) === 1;
    this.name = this.text(this.u32(at + 8));
    this.isa = this.text(this.u32(at + 12));
    const kind = this.isa.replace('wasm_', '');
    if (kind in DOTS && !has(kind)) throw new SparrowError(`the engine lacks ${kind}`);
    this.bytes = { weights: this.u64(at + 32), workspace: this.u64(at + 40), state: this.u64(at + 48) };
    this.align = [56, 60, 64].map((k) => this.u32(at + k));
    this.entries = list(this.u32(at + 20), this.u32(at + 68), 32, this.readEntry);
    this.states = list(this.u32(at + 24), this.u32(at + 72), 64, this.readTensor);
    this.weights = this.allocate(this.bytes.weights);
    this.workspace = this.allocate(this.bytes.workspace);
    this.state = this.allocate(this.bytes.state);
    this.call = this.allocate(44);
    for (const e of this.entries) {
      e.calls = [e.inputs, e.outputs].map((tensors) => {
        const pointers = this.allocate(4 * tensors.length);
        tensors.forEach((t, i) => this.put32(pointers + 4 * i, (t.at = this.allocate(t.bytes))));
        return pointers;
      });
    }
  }

  get view() {
    return new DataView(this.memory.buffer);
  }
  u32(at) {
    return this.view.getUint32(at, true);
  }
  i32(at) {
    return this.view.getInt32(at, true);
  }
  u64(at) {
    return Number(this.view.getBigUint64(at, true));
  }
  put32(at, value) {
    this.view.setUint32(at, value, true);
  }
  bytesAt(at, n) {
    return new Uint8Array(this.memory.buffer, at, n);
  }
  text(at) {
    const bytes = new Uint8Array(this.memory.buffer);
    // a copy: decoders refuse shared memory
    return new TextDecoder().decode(bytes.slice(at, bytes.indexOf(0, at)));
  }

  readTensor(at) {
    const rank = this.i32(at + 36), shape = this.u32(at + 4), n = this.i32(at + 40);
    const scales = this.u32(at + 8), zeros = this.u32(at + 12);
    return {
      name: this.text(this.u32(at)),
      dtype: DTYPES[this.u32(at + 32)][0],
      array: DTYPES[this.u32(at + 32)][1],
      code: this.u32(at + 32),
      shape: Array.from({ length: rank }, (_, i) => this.u64(shape + 8 * i)),
      bytes: this.u64(at + 16),
      offset: this.u64(at + 24),
      axis: this.i32(at + 44),
      block: this.i32(at + 48),
      countOf: this.i32(at + 52),
      countAxis: this.i32(at + 56),
      scales: Array.from({ length: n }, (_, i) => this.view.getFloat32(scales + 4 * i, true)),
      zeroPoints: Array.from({ length: n }, (_, i) => (zeros ? this.i32(zeros + 4 * i) : 0)),
    };
  }

  readEntry(at) {
    const names = this.u32(at + 12), nSteps = this.i32(at + 24);
    const tensors = (start, n) => Array.from({ length: n }, (_, i) => this.readTensor(start + 64 * i));
    return {
      name: this.text(this.u32(at)),
      inputs: tensors(this.u32(at + 4), this.i32(at + 16)),
      outputs: tensors(this.u32(at + 8), this.i32(at + 20)),
      nSteps,
      steps: Array.from({ length: names ? nSteps : 0 }, (_, i) => this.text(this.u32(names + 4 * i))),
    };
  }

  /* Bytes behind everything allocated so far; memory grows, which detaches all views. */
  allocate(n) {
    const at = Math.ceil(this.top / ALIGN) * ALIGN;
    this.top = at + n;
    const missing = this.top - this.memory.buffer.byteLength;
    if (missing > 0) {
      try {
        this.memory.grow(Math.ceil(missing / PAGE));
      } catch {
        throw new SparrowError(`the engine has no ${missing} more bytes of memory`);
      }
    }
    return at;
  }

  /* Table index of a JavaScript function whose parameters have the given types. */
  hook(types, f) {
    const table = this.exports.__indirect_function_table;
    const at = table.grow(1);
    table.set(at, callback(types, f));
    return at;
  }

  reset() {
    return this.exports.model_reset(this.state, this.weights);
  }

  /* Status of a call of entry e, whose inputs are in place; hooks are table indices. */
  run(e, { parallel = 0, tap = 0, profile = 0 } = {}) {
    const [inputs, outputs] = this.entries[e].calls;
    const { weights, workspace, state } = this;
    const fields = [e, inputs, outputs, weights, workspace, state, parallel, 0, tap, profile, 0];
    fields.forEach((value, i) => this.put32(this.call + 4 * i, value));
    return this.exports.model_run(this.call);
  }
}

function facts({ name, dtype, shape, scales, zeroPoints, axis }) {
  return { name, dtype, shape, ...(scales.length ? { scales, zeroPoints, axis } : {}) };
}

/** A loaded model. One instance runs one call at a time; load again for more. */
export class Model {
  #native;
  #profile = 0; // table index of the hook, which calls the next function
  #mark;
  #pool;

  constructor(native, path, pool) {
    this.#native = native;
    this.#pool = pool;
    this.path = path;
    this.threads = pool ? pool.threads : 1;
    this.name = native.name;
    this.entries = native.entries.map((e) => e.name);
    this.inputs = native.entries[0].inputs.map(facts);
    this.outputs = native.entries[0].outputs.map(facts);
    this.reset();
  }

  /** Tensors of an entry point. */
  describe(entry) {
    const { inputs, outputs } = this.#native.entries[this.#entry(entry)];
    return { inputs: inputs.map(facts), outputs: outputs.map(facts) };
  }

  /** Put the state back to its initial values. */
  reset() {
    this.#check(this.#native.reset());
  }

  /** One inference: typed arrays by input name in, typed arrays by output name out. */
  async run(feeds, entry) {
    const e = this.#entry(entry);
    this.#feed(e, feeds);
    this.#check(this.#native.run(e, { parallel: this.#pool?.parallel }));
    return this.#results(e);
  }

  /** Median milliseconds of every step over some runs. */
  async profile(feeds, { runs = 20, entry } = {}) {
    const e = this.#entry(entry), { nSteps, steps } = this.#native.entries[e];
    const times = Array.from({ length: nSteps }, () => []), began = new Float64Array(nSteps);
    const now = () => performance.now();
    this.#mark = (_, step, begin) => {
      if (begin) began[step] = now();
      else times[step].push(now() - began[step]);
    };
    this.#profile ||= this.#native.hook([I32, I32, I32], (...a) => this.#mark(...a));
    this.#feed(e, feeds);
    for (let i = 0; i < runs; ++i)
      this.#check(
        this.#native.run(e, { parallel: this.#pool?.parallel, profile: this.#profile }),
      );
    const median = (list) => list.sort((a, b) => a - b)[list.length >> 1];
    return times.map((list, step) => ({ step, name: steps[step] ?? '', ms: median(list) }));
  }

  /** End the workers of the threaded path. */
  close() {
    this.#pool?.close();
    this.#pool = undefined;
  }

  #entry(name) {
    const e = name === undefined ? 0 : this.entries.indexOf(name);
    if (e < 0)
      throw new SparrowError(`entry '${name}' is unknown; there are ${this.entries.join(', ')}`);
    return e;
  }

  #check(status) {
    if (status) throw new SparrowError(STATUS[status] ?? `status ${status}`);
  }

  #feed(e, feeds) {
    const { inputs } = this.#native.entries[e];
    if (ArrayBuffer.isView(feeds) && inputs.length === 1) feeds = { [inputs[0].name]: feeds };
    const known = inputs.map((t) => t.name);
    if (feeds === null || typeof feeds !== 'object' || ArrayBuffer.isView(feeds))
      throw new SparrowError(`expected an object of inputs: ${known.join(', ')}`);
    for (const name of Object.keys(feeds))
      if (!known.includes(name))
        throw new SparrowError(`input '${name}' is unknown; there are ${known.join(', ')}`);
    for (const t of inputs) {
      const x = feeds[t.name], size = t.shape.reduce((a, b) => a * b, 1);
      if (!(x instanceof t.array) || x.length !== size) {
        const got = x === undefined ? 'nothing' : `${x?.constructor?.name} of ${x?.length}`;
        const want = `${t.array.name} of ${size} (${t.dtype}, shape ${t.shape.join('x') || 'scalar'})`;
        throw new SparrowError(`input '${t.name}': expected ${want}, found ${got}`);
      }
      new t.array(this.#native.memory.buffer, t.at, size).set(x);
    }
  }

  #results(e) {
    const { outputs } = this.#native.entries[e], { buffer } = this.#native.memory;
    const read = (t) => {
      const shape = [...t.shape];
      if (t.countOf >= 0) shape[t.countAxis] = Number(read(outputs[t.countOf])[0]);
      // slice copies out of shared memory as well
      return new t.array(buffer, t.at, shape.reduce((a, b) => a * b, 1)).slice();
    };
    return Object.fromEntries(outputs.map((t) => [t.name, read(t)]));
  }
}

/* Workers over one shared memory, each in a copy of the module. */
async function startPool(module, memory, native, threads) {
  const source = `
    const start = ({ module, memory, stack, ready }) => {
      const { exports } = new WebAssembly.Instance(module, { env: { memory } });
      exports.__stack_pointer.value = stack;
      ready();
      exports.sparrow_pool_work();
    };`;
  let make, url;
  if (inNode) {
    const { Worker: NodeWorker } = ofNode('worker_threads');
    const body = `${source} const { parentPort } = require('node:worker_threads');
      parentPort.once('message', (m) => start({ ...m, ready: () => parentPort.postMessage(0) }));`;
    make = () => new NodeWorker(body, { eval: true });
  } else {
    const body = `${source} onmessage = ({ data }) => start({ ...data, ready: () => postMessage(0) });`;
    url = URL.createObjectURL(new Blob([body], { type: 'text/javascript' }));
    make = () => new Worker(url);
  }
  const workers = [];
  const start = async () => {
    const worker = make();
    workers.push(worker);
    const stack = native.allocate(STACK) + STACK;
    await new Promise((resolve, reject) => {
      if (inNode) worker.once('message', resolve).once('error', reject);
      else [worker.onmessage, worker.onerror] = [resolve, reject];
      worker.postMessage({ module, memory, stack });
    });
    // an idle model keeps no program alive
    worker.unref?.();
  };
  const close = () => {
    native.exports.sparrow_pool_stop();
    for (const worker of workers) worker.terminate();
  };
  try {
    await Promise.all(Array.from({ length: threads - 1 }, start));
  } catch (e) {
    close();
    // of what a policy forbids there is an event without a text
    throw new SparrowError(`no worker starts here: ${e.message ?? 'does worker-src allow blob:?'}`);
  } finally {
    if (url) URL.revokeObjectURL(url);
  }
  return { threads, parallel: native.exports.sparrow_pool_function(), close };
}

/* A response for a file given as bytes, a URL, or a name beside this module. */
async function open(source, { base = import.meta.url, signal }) {
  if (source instanceof Response) return source;
  if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return new Response(source);
  let url;
  try {
    // a relative base is one of the page's
    url = new URL(source, new URL(base, globalThis.document?.baseURI ?? import.meta.url));
  } catch {
    throw new SparrowError(`'${source}' in '${base}' is no URL`);
  }
  if (inNode && url.protocol === 'file:') {
    const { readFile } = ofNode('fs/promises');
    try {
      return new Response(await readFile(url), { headers: { 'Content-Type': 'application/wasm' } });
    } catch (e) {
      throw new SparrowError(`${url.pathname} cannot be read: ${e.code}`);
    }
  }
  const response = await fetch(url, { signal }).catch((e) => {
    throw new SparrowError(`${url} cannot be fetched: ${e.message}`);
  });
  if (!response.ok) throw new SparrowError(`${url} cannot be fetched: status ${response.status}`);
  return response;
}

async function compile(response) {
  try {
    // streaming wants the MIME type, which not every server knows
    const typed = response.headers.get('Content-Type')?.startsWith('application/wasm');
    if (typed && WebAssembly.compileStreaming) return await WebAssembly.compileStreaming(response);
    return await WebAssembly.compile(await response.arrayBuffer());
  } catch (e) {
    throw new SparrowError(`${response.url || 'wasm'} is no module, or cut short: ${e.message}`);
  }
}

/* The body of a response into memory as it arrives. */
async function pour(response, native, progress) {
  const total = native.bytes.weights;
  let done = 0;
  if (total > 0) {
    for (const reader = response.body.getReader(); ; ) {
      const { done: end, value } = await reader.read().catch((e) => {
        throw new SparrowError(`the weights ended after ${done} of ${total} bytes: ${e.message}`);
      });
      if (end) break;
      if (done + value.length <= total) native.bytesAt(native.weights + done, value.length).set(value);
      done += value.length;
      progress?.(done, total);
    }
  }
  if (done !== total)
    throw new SparrowError(`the weights are ${done} bytes, the model needs ${total}: of another build?`);
}

async function start(options) {
  const { base, progress } = options;
  const cores = globalThis.navigator?.hardwareConcurrency ?? 1;
  const threads = options.threads ?? Math.min(4, cores);
  if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS)
    throw new SparrowError(`threads: expected 1 to ${MAX_THREADS}, found ${threads}`);
  const possible = paths().filter((p) => threads > 1 || !NEEDS[p].includes('threads'));
  const path = options.path ?? possible[0];
  if (!possible.includes(path))
    throw new SparrowError(`path '${path}' cannot run here; possible are ${possible.join(', ')}`);
  const build = BUILDS[path];
  const wasm = options.wasm ?? (base ? `model.${path}.wasm` : build.wasm);
  const blob = open(options.weights ?? (base ? build.file : build.weights), options);
  blob.catch(() => {}); // awaited below
  const module = await compile(await open(wasm, options));
  const shared = NEEDS[path].includes('threads');
  let native, pool;
  if (shared) {
    try {
      const memory = sharedMemory();
      native = new Native(await WebAssembly.instantiate(module, { env: { memory } }), memory);
      pool = await startPool(module, memory, native, threads);
    } catch (e) {
      if (options.path || options.wasm) throw e;
      // the build of one thread takes the same weights
      return start({ ...options, threads: 1, weights: await blob });
    }
  } else native = new Native(await WebAssembly.instantiate(module, {}));
  try {
    await pour(await blob, native, progress);
    return new Model(native, path, pool);
  } catch (e) {
    pool?.close();
    throw e;
  }
}

/**
 * Load the model.
 *
 * Options: `base`, where the files are (this module's folder); `path`, one of `paths()`; `threads`;
 * `wasm` and `weights`, the two files as bytes, a URL or a Response; `progress(done, total)`; `signal`,
 * of an AbortController.
 */
export async function load(options = {}) {
  const { signal } = options;
  try {
    signal?.throwIfAborted();
    const model = await start(options);
    if (signal?.aborted) model.close();
    signal?.throwIfAborted();
    return model;
  } catch (e) {
    if (signal?.aborted) throw signal.reason;
    if (e instanceof SparrowError) throw e;
    throw new SparrowError(`the model cannot be loaded: ${e.message}`);
  }
}
