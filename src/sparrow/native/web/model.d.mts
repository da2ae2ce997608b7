/** What the model takes and gives, by entry point. */
export interface Entries {
  // ENTRIES
}
// FIRST

/** A build of the model, the fastest first. */
export type Path =
  | 'usdot_threads'
  | 'sdot_threads'
  | 'maddubs_threads'
  | 'threads'
  | 'usdot'
  | 'sdot'
  | 'maddubs'
  | 'relaxed'
  | 'simd'
  | 'plain';

/** An input or output: dense, row-major. Quantized ones say what a code means. */
export interface TensorInfo {
  readonly name: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly scales?: readonly number[];
  readonly zeroPoints?: readonly number[];
  readonly axis?: number;
}

/** Median time of a step. */
export interface StepTime {
  readonly step: number;
  readonly name: string;
  readonly ms: number;
}

export interface LoadOptions {
  /** Folder of the files; this module's own by default. */
  base?: string | URL;
  /** Build to use; the fastest that runs by default. */
  path?: Path;
  /** Threads of paths with workers; 1 excludes these. At most 4 by default. */
  threads?: number;
  /** The module, when it is not `model.<path>.wasm` in `base`. */
  wasm?: string | URL | Response | ArrayBuffer | Uint8Array;
  /** The weights, when they are not those of the build in `base`. */
  weights?: string | URL | Response | ArrayBuffer | Uint8Array;
  /** Called as weights arrive, in bytes. */
  progress?: (done: number, total: number) => void;
  /** Of an AbortController: `load` then ends with its reason. */
  signal?: AbortSignal;
}

/** What went wrong, in one line. */
export class SparrowError extends Error {}

/** A loaded model. One instance runs one call at a time; load again for more. */
export class Model {
  private constructor();
  /** The build that runs. */
  readonly path: Path;
  readonly threads: number;
  readonly name: string;
  readonly entries: readonly string[];
  /** Tensors of the first entry point. */
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
  /** Tensors of an entry point. */
  describe(entry?: keyof Entries): {
    readonly inputs: readonly TensorInfo[];
    readonly outputs: readonly TensorInfo[];
  };
  /** One inference; a model of one input takes its array as well. */
  run<E extends keyof Entries = First>(
    feeds: Entries[E]['feeds'] | Entries[E]['only'],
    entry?: E,
  ): Promise<Entries[E]['outputs']>;
  /** Median milliseconds of every step. */
  profile<E extends keyof Entries = First>(
    feeds: Entries[E]['feeds'] | Entries[E]['only'],
    options?: { runs?: number; entry?: E },
  ): Promise<StepTime[]>;
  /** Put the state back to its initial values. */
  reset(): void;
  /** End the workers of the threaded path. */
  close(): void;
}

/** The paths that the model has and this engine runs, the fastest first. */
export function paths(): Path[];

/** Whether the engine has a feature. */
export function has(
  feature: 'simd' | 'relaxed' | 'threads' | 'usdot' | 'sdot' | 'maddubs',
): boolean;

/** Load the model. */
export function load(options?: LoadOptions): Promise<Model>;
