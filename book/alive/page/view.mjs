// What the panels read: this sentence's tensors, in the names of Figure 1's boxes.

const SUBLAYERS = {
  encoder: { self: ["self_attention", 0], ffn: ["feed_forward", 1] },
  decoder: { self: ["self_attention", 0], cross: ["cross_attention", 1], ffn: ["feed_forward", 2] },
};

/** "decoder.cross.norm" in its parts. */
export function parts(box) {
  const [stack, part, place] = box.split(".");
  return { stack, part, place };
}

export class View {
  constructor({ state, run, about, set, ask }) {
    Object.assign(this, { state, run, about, set, ask });
    this.d = about.config.d_model;
    this.size = this.d / about.config.n_heads; // of a head
    this.src = run.src.map((token, i) => ({ ...token, token: `src:${i}` }));
    const all = run.tgt.map((token, i) => ({ ...token, token: `tgt:${i}` }));
    this.tgt = all.slice(0, state.step + 1);
    this.allTgt = all;
    this.next = run.next.map((token, i) => ({ ...token, token: `tgt:${i + 1}` }));
  }

  /** All rows of the decoder at once, from the pass without a mask. */
  unmasked() {
    const made = new View({ ...this, run: { ...this.run, tensors: this.run.open } });
    made.tgt = made.allTgt;
    return made;
  }

  /** The tokens of a stack, up to this step. */
  rows(stack) {
    return stack === "encoder" ? this.src : this.tgt;
  }

  /** The token whose vectors are shown by themselves. */
  current(stack) {
    return stack === "encoder" ? this.state.token : this.state.step;
  }

  /** The numbers of one row of a tensor, or a part of them. */
  row(name, i, from = 0, size = undefined) {
    const { data, shape } = this.run.tensors[name], width = shape.at(-1);
    return data.subarray(i * width + from, i * width + from + (size ?? width));
  }

  /** The module of a sub-layer: "decoder.layers.1.cross_attention". */
  module(stack, part) {
    return `${stack}.layers.${this.state.layer}.${SUBLAYERS[stack][part][0]}`;
  }

  /** The sum after a sub-layer, and the sum before it. */
  residual(stack, part) {
    const { layer } = this.state, index = SUBLAYERS[stack][part][1];
    const name = `${stack}.layers.${layer}.residuals.${index}`;
    const last = Object.keys(SUBLAYERS[stack]).length - 1;
    let before = `${stack}.input`;
    if (index > 0) before = `${stack}.layers.${layer}.residuals.${index - 1}`;
    else if (layer > 0) before = `${stack}.layers.${layer - 1}.residuals.${last}`;
    return { name, before };
  }

  /** The sum that leaves a stack's last layer. */
  last(stack) {
    const layer = this.about.config.n_layers - 1;
    return `${stack}.layers.${layer}.residuals.${Object.keys(SUBLAYERS[stack]).length - 1}`;
  }

  /** The tensor that leaves a box. */
  output(box) {
    const { stack, part, place } = parts(box);
    if (box === "linear" || box === "softmax") return "logits";
    if (part === "embeddings") return `${stack}.embeddings`;
    if (part === "positions") return `${stack}.input`;
    if (part === "norm") return `${stack}.norm`;
    const { name } = this.residual(stack, part);
    if (place === "add") return name;
    return place === "norm" ? `${name}.norm` : this.module(stack, part);
  }

  /** Whether a reader has switched a name off. */
  isOff(name) {
    return this.state.off.includes(name);
  }

  /** Switch a name off, or on again. */
  toggle(name) {
    const { off } = this.state;
    this.set({ off: off.includes(name) ? off.filter((each) => each !== name) : [...off, name] });
  }
}
