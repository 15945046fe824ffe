// The page's end of the worker: questions out, promises of answers back.

export class Engine {
  waiting = new Map();
  asked = 0;
  loaded = undefined;

  /** `onProgress` hears of bytes while the weights come; `onFail` if they do not. */
  constructor({ onProgress = () => {}, onFail = () => {} } = {}) {
    Object.assign(this, { onProgress, onFail });
  }

  /** Fetch the model, once; after a failure, the next call tries again. */
  load() {
    if (this.loaded) return this.loaded;
    this.worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
    this.worker.onmessage = ({ data }) => {
      if (data.progress) return this.onProgress(data.progress);
      const { resolve, reject } = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if (data.error === undefined) resolve(data.result);
      else reject(Object.assign(new Error(data.error), { expected: data.expected }));
    };
    this.worker.onerror = () => {
      for (const { reject } of this.waiting.values()) reject(new Error("the engine did not start"));
      this.waiting.clear();
    };
    this.loaded = this.ask("load");
    this.loaded.catch(() => {
      this.loaded = undefined;
      this.worker.terminate();
      this.onFail();
    });
    return this.loaded;
  }

  /** The worker's answer to a question. */
  ask(what, of) {
    const id = (this.asked += 1);
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject });
      this.worker.postMessage({ id, what, of });
    });
  }
}

/** How much of the model has come, in words, and as a share if the server tells. */
export function progressOf({ loaded, total }) {
  const size = (n) => (n / 1e6).toFixed(1);
  const words = total ? `${size(total)} MB, once` : `${size(loaded)} MB so far`;
  return { text: `Loading the model, ${words}`, share: total ? loaded / total : null };
}
