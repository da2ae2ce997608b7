/* What call_probe.c is, for WebAssembly: calls functions of a module with arrays and numbers from
 * standard input. The last array ends where memory ends; the bytes before every array, and after the
 * others, must stay as they are. */
import fs from 'node:fs';

const CANARY = 0x5a, AROUND = 64;

const read = (n) => {
  const bytes = Buffer.alloc(n);
  for (let done = 0; done < n; ) {
    const got = fs.readSync(0, bytes, done, n - done);
    if (got === 0) process.exit(0);
    done += got;
  }
  return bytes;
};
const number = () => Number(read(8).readBigInt64LE());
const write = (bytes) => {
  for (let done = 0; done < bytes.length; ) done += fs.writeSync(1, bytes, done);
};

const { exports } = new WebAssembly.Instance(new WebAssembly.Module(fs.readFileSync(process.argv[2])));
const { memory, __heap_base } = exports;
for (;;) {
  const name = read(number()).toString();
  const given = Array.from({ length: number() }, () => {
    const isArray = number() === 1, n = number();
    return isArray ? read(n) : n;
  });
  const arrays = given.filter(Buffer.isBuffer);
  let at = __heap_base.value + AROUND;
  const need = arrays.reduce((sum, a) => sum + a.length + 3 * AROUND, at);
  const missing = need - memory.buffer.byteLength;
  if (missing > 0) memory.grow(Math.ceil(missing / 65536));
  const all = new Uint8Array(memory.buffer);
  all.fill(CANARY, __heap_base.value);
  const places = arrays.map((a, i) => {
    const from = i + 1 === arrays.length ? all.length - a.length : at;
    all.set(a, from);
    at = Math.ceil((from + a.length + 2 * AROUND) / AROUND) * AROUND;
    return from;
  });
  const rest = [...places];
  const result = exports[name](...given.map((a) => (Buffer.isBuffer(a) ? rest.shift() : a)));
  places.forEach((from, i) => {
    const { length } = arrays[i];
    const around = [all.subarray(from - AROUND, from), all.subarray(from + length, from + length + AROUND)];
    for (const bytes of around)
      if (!bytes.every((b) => b === CANARY)) throw new Error(`${name} wrote beside array ${i}`);
  });
  const answer = Buffer.alloc(8);
  answer.writeBigInt64LE(BigInt(result ?? 0));
  write(Buffer.concat([answer, ...places.map((from, i) => all.subarray(from, from + arrays[i].length))]));
}
