/* Serves a model module to a program at the other end of a byte stream: the requests and answers of
 * runtime/serve.h. `node runner.mjs model.wasm` speaks over its standard input and output. */
import { Native, sharedMemory } from './model.mjs';

const INFO = 1, WEIGHTS = 2, RESET = 3, STATE = 4, RUN = 5, TIME = 6, CALLS = 7;
const TAPS = 1, REVERSED = 2, STACK = 8;
const STACK_BYTES = 65536, PAINT = 0xa5; // the stack is what memory begins with
const I32 = 0x7f, I64 = 0x7e;

/**
 * Answers requests until the stream ends.
 *
 * `read(n)` gives n bytes, or null at the end; `write(bytes)` sends some. Both may be async.
 */
export async function serve(module, { read, write }) {
  const shared = WebAssembly.Module.imports(module).length > 0;
  const memory = shared ? sharedMemory() : undefined;
  const imports = shared ? { env: { memory } } : {};
  const native = new Native(await WebAssembly.instantiate(module, imports), memory);
  let parts = [];
  const number = (n) => parts.push(new Uint8Array(BigInt64Array.of(BigInt(n)).buffer));
  const data = (bytes) => parts.push(bytes.slice());
  const text = (s) => {
    const bytes = new TextEncoder().encode(s);
    number(bytes.length);
    parts.push(bytes);
  };
  const receive = async () => {
    const bytes = await read(8);
    return bytes && Number(new DataView(bytes.buffer, bytes.byteOffset).getBigInt64(0, true));
  };
  const tensor = (t) => {
    text(t.name);
    [t.code, t.shape.length, ...t.shape, t.bytes, t.offset, t.axis, t.block].forEach(number);
    [t.countOf, t.countAxis, t.scales.length].forEach(number);
    parts.push(new Uint8Array(Float32Array.from(t.scales).buffer));
    t.zeroPoints.forEach(number);
  };
  const info = () => {
    number(1);
    text(native.name);
    text(native.isa);
    const { weights, workspace, state } = native.bytes;
    [native.hooks ? 1 : 0, 0, weights, workspace, state, ...native.align].forEach(number);
    number(native.entries.length);
    for (const e of native.entries) {
      text(e.name);
      for (const tensors of [e.inputs, e.outputs]) {
        number(tensors.length);
        tensors.forEach(tensor);
      }
      number(e.nSteps);
      number(e.steps.length ? 1 : 0);
      e.steps.forEach(text);
    }
    number(native.states.length);
    native.states.forEach(tensor);
  };
  const table = native.exports.__indirect_function_table;
  const parallel = native.hook([I32, I32, I32, I32], (_, fn, arg, n) => {
    const task = table.get(fn);
    while (n-- > 0) task(arg, n);
  });
  const tap = native.hook([I32, I32, I32, I32, I64], (_, step, output, at, bytes) => {
    [1, step, output, bytes].forEach(number);
    data(native.bytesAt(at, Number(bytes)));
  });
  let stamps = [];
  const profile = native.hook([I32, I32, I32], () => stamps.push(performance.now()));
  const fill = async (at, n) => native.bytesAt(at, n).set(await read(n));

  for (;;) {
    const request = await receive();
    if (request === null) return;
    parts = [];
    if (request === INFO) info();
    else if (request === WEIGHTS) await fill(native.weights, native.bytes.weights);
    else if (request === RESET) number(native.reset());
    else if (request === STATE) data(native.bytesAt(native.state, native.bytes.state));
    else if (request === RUN) {
      const e = await receive(), flags = await receive(), { inputs, outputs } = native.entries[e];
      for (const t of inputs) await fill(t.at, t.bytes);
      const hooks = { tap: flags & TAPS ? tap : 0, parallel: flags & REVERSED ? parallel : 0 };
      const stack = flags & STACK ? native.bytesAt(0, STACK_BYTES).fill(PAINT) : undefined;
      const status = native.run(e, hooks);
      if (stack) [2, STACK_BYTES - stack.findIndex((byte) => byte !== PAINT)].forEach(number);
      [0, status].forEach(number);
      if (status === 0) outputs.forEach((t) => data(native.bytesAt(t.at, t.bytes)));
    } else if (request === TIME || request === CALLS) {
      const e = await receive(), runs = await receive();
      for (const t of native.entries[e].inputs) await fill(t.at, t.bytes);
      for (let i = 0, status = 0; i < runs && status === 0; ++i) {
        stamps = [];
        const start = performance.now();
        status = native.run(e, request === TIME ? { profile } : {});
        const took = performance.now() - start;
        number(status);
        if (status === 0) (request === TIME ? stamps : [took]).forEach((ms) => number(Math.round(1e6 * ms)));
      }
    } else throw new Error(`unknown request ${request}`);
    if (parts.length) await write(parts);
  }
}

async function main(path) {
  const fs = await import('node:fs');
  const again = (f) => {
    for (;;) {
      try {
        return f();
      } catch (e) {
        if (e.code !== 'EAGAIN') throw e;
      }
    }
  };
  const read = (n) => {
    const bytes = Buffer.alloc(n);
    for (let done = 0; done < n; ) {
      const got = again(() => fs.readSync(0, bytes, done, n - done));
      if (got === 0) return null;
      done += got;
    }
    return bytes;
  };
  const write = (parts) => {
    const bytes = Buffer.concat(parts);
    for (let done = 0; done < bytes.length; )
      done += again(() => fs.writeSync(1, bytes, done, bytes.length - done));
  };
  await serve(await WebAssembly.compile(fs.readFileSync(path)), { read, write });
}

if (typeof process !== 'undefined' && process.argv?.[2]) {
  try {
    await main(process.argv[2]);
  } catch (e) {
    process.stderr.write(`${e.message}\n`);
    process.exit(2);
  }
}
