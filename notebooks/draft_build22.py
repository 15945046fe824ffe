import json, sys
cells = []
def md(id, text): cells.append(dict(cell_type="markdown", id=id, metadata={}, source=text.strip("\n").splitlines(True)))
def code(id, text, *tags, alt=None, hidden_source=False, hidden_output=False):
    meta = {}
    j = {}
    if hidden_output: j["outputs_hidden"] = True
    if hidden_source: j["source_hidden"] = True
    if j: meta["jupyter"] = j
    if alt: meta["mystnb"] = {"image": {"alt": alt}}
    tags = list(tags)
    if hidden_source and "solution" not in tags: tags.insert(0, "hide-input")
    if "solution" in tags: tags.append("hide-cell")
    elif hidden_output: tags.append("hide-output")
    if tags: meta["tags"] = tags
    cells.append(dict(cell_type="code", id=id, metadata=meta, execution_count=None, outputs=[], source=text.strip("\n").splitlines(True)))
def solution(id, text, *tags): code(id, text, "solution", *tags, hidden_source=True, hidden_output="nbval-ignore-output" not in tags)

md("title", """
# 22 Shipping it

| Question | How small and how fast can a trained model become, and what does each form change in its answers? |
| :-- | :-- |
| **In the paper** | Nothing: it ends with a trained model. The forms here came later. "Attention Is All You Need", [arXiv:1706.03762](https://arxiv.org/abs/1706.03762) |
| **Know first** | Chapter 05 (the matrices), 15 (greedy search), 16 (BLEU and its interval), 21 (the families) |
| **Words and symbols** | [glossary](../book/glossary.md), [notation](../book/notation.md) |

**Where you are.** Part IV, from the paper to today, and its end: 21 Three families → **22 Shipping it**.

The model that ships with this course is a file of numbers. Before others use it, somebody chooses how many bits each number has, which program runs it, and whether a smaller model would do. After this chapter you can

1. turn a matrix into eight-bit codes and scales by hand, and say how large the error may be;
2. explain why each row has a scale of its own, and where a zero point helps;
3. export a model to another runtime, and test what that changed;
4. read a table of forms: bytes, cold start, speed, BLEU with its interval;
5. teach a small model by a large one, and say what three seeds show.
""")
code("imports", """
import tempfile
import warnings
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor, nn
from torch.testing import assert_close

from annotated_transformer.batches import collate
from annotated_transformer.corpora import sample_captions
from annotated_transformer.decoding import greedy_search
from annotated_transformer.export import export, size
from annotated_transformer.export.to_ctranslate2 import search_with
from annotated_transformer.lessons import refuted, spread
from annotated_transformer.plots import lines, use_style
from annotated_transformer.runs import encode
from annotated_transformer.special import BOS
from annotated_transformer.studies import STORED, distillation, results
from annotated_transformer.transformer import Transformer
from annotated_transformer.translator import Translator

use_style()
torch.set_num_threads(1)  # as the stored figures were measured
torch.set_printoptions(precision=3, sci_mode=False)
""")
code("fig-1", """
from annotated_transformer.pictures import progress

progress(22)
""", hidden_source=True, alt="The paper's Figure 1, small, with every part lit.")
md("fig-1-caption", "**Fig. 22.1** **Today: all of it, as a file.**")
md("five", """
## 1. Five numbers in eight bits

A float32 has 32 bits. An *int8* is a whole number from -128 to 127. To *quantize* weights means to keep a whole number, the *code*, for each of them, and one float, the *scale*, for all: the weight is about code times scale. Take five numbers:
""")
code("by-hand", """
numbers = [-1.27, -0.5, 0.0, 0.304, 0.62]
scale = max(abs(x) for x in numbers) / 127  # the number farthest from 0 becomes 127
codes = [round(x / scale) for x in numbers]
print("scale", round(scale, 4))
for x, code in zip(numbers, codes, strict=True):
    print(f"{x:6.3f} -> {code:5} -> {code * scale:6.3f}  off by {code * scale - x:6.3f}")
""")
md("by-hand-look", """
Rounding moves a number by at most half a scale. The code 0 is the number 0: this is *symmetric* quantization, and -128 stays unused. As a matrix expression, and as PyTorch does it (it calls codes that become floats again at once *fake* quantization):
""")
code("matrix", """
x = torch.tensor(numbers)
scale = x.abs().max() / 127
restored = (x / scale).round() * scale
assert_close(restored, torch.tensor(codes) * scale)
theirs = torch.fake_quantize_per_tensor_affine(x, scale.item(), 0, -127, 127)
assert_close(restored, theirs)
print("equal to PyTorch's; off by at most", f"{(restored - x).abs().max() / scale:.2f} steps")
""")
md("zero-point", """
What leaves a ReLU is never negative: symmetric codes would waste half of the 256. With a *zero point* the codes go from 0 to 255, from the smallest number to the largest, and the zero point is the code that means 0: the number is about (code - zero point) times scale.
""")
code("zero-point-hand", """
numbers = [-0.51, 0.0, 0.1, 1.0, 2.04]
low, high = min(numbers), max(numbers)
for name, step in (("symmetric", high / 127), ("zero point", (high - low) / 255)):
    print(f"{name:10} step {step:.4f}")
zero = round(-low / step)
print("zero point", zero, "codes", [round(x / step) + zero for x in numbers])
""")
md("turn-zero", """
### Your turn (6 minutes): the zero point

`x` is a vector whose smallest number is negative and whose largest is positive. Return what 256 codes (0 to 255) with a zero point leave of it, as floats. A 0 must stay exactly 0.

<details><summary>Hint</summary>

The zero point is a whole number: round it by itself, before you add it. Codes out of range are cut to 0 or 255.

</details>
""")
code("turn-zero-stub", """
def my_shifted(x):
    # your code
    ...
""", "exercise")
code("turn-zero-check", """
from annotated_transformer.checks import check_zero_point

print(check_zero_point(my_shifted))
""", "check")
md("rows", """
## 2. One scale, or one for each row

Trained weights lie around 0, so they need no zero point. But who shares a scale? One large number makes the steps coarse for all that share it. The model that ships: how large is the rounding error of each matrix, relative to its size, with one scale for the whole matrix (*per tensor*)?
""")
code("per-tensor", """
translator = Translator.pretrained()
matrices = {n: p.detach() for n, p in translator.model.named_parameters() if p.dim() == 2}


def error(weight, scale):
    moved = (weight / scale).round() * scale - weight
    return (moved.norm() / weight.norm()).item()


whole = {n: error(w, w.abs().max() / 127) for n, w in matrices.items()}
ranked = sorted(whole, key=whole.get)
for name in (ranked[0], ranked[len(ranked) // 2], ranked[-1]):
    print(f"{whole[name]:.2%}  {name}")
""")
md("predict-rows", """
> **Predict first.** A row of a matrix makes one output number, an *output channel*. In the worst matrix above, does nearly every row have a number near the matrix's largest, or do few?
>
> <details><summary>Answer</summary>
>
> Few. The largest number of half of the rows is less than a third of the matrix's largest. Under one scale such a row uses fewer than 40 of its 127 codes on either side.
>
> </details>
""")
code("fig-rows", """
curves = {}
for name in (ranked[-1], "tgt_embeddings.weight"):
    weight = dict(translator.model.named_parameters(remove_duplicate=False))[name].detach()
    largest = weight.abs().amax(1).sort(descending=True).values / weight.abs().max()
    curves[name.removesuffix(".weight")] = largest[:: len(largest) // 190][:190]
    print(f"{name}: median row {largest.median():.2f} of the largest number")
lines(
    torch.linspace(0, 100, 190).tolist(),
    curves,
    xlabel="rows, in % (sorted)",
    ylabel="largest number of a row / of the matrix",
)
""", hidden_source=True, hidden_output=True, alt="Two falling curves: the largest number of each row, divided by that of the matrix, rows sorted. Both begin at 1, fall steeply within the first tenth of the rows, and then run flat near 0.3.")
md("fig-rows-caption", """
**Fig. 22.2** **The large numbers sit in few rows.** The largest absolute value of each row, as a fraction of the matrix's largest, sorted. All other rows pay for these few, if they share a scale.
""")
md("turn-rows", """
### Your turn (6 minutes): a scale for each row

`weight` is (out, in), and no row is all zeros. Return what int8 codes leave of it, as floats, when each row has its own scale (*per channel*): its number farthest from 0 becomes 127 or -127.

<details><summary>Hint</summary>

`amax(1, keepdim=True)` keeps the axis, so the scale fits the rows.

</details>
""")
code("turn-rows-stub", """
def my_rounded(weight):
    # your code
    ...
""", "exercise")
code("turn-rows-check", """
from annotated_transformer.checks import check_rounded_rows

print(check_rounded_rows(my_rounded))
""", "check")
md("definition-text", "The package keeps codes and scales apart, as a file would:")
code("definition", """# annotated_transformer/quantization.py
TOP = ...
Codes = ...
Scales = ...
def quantize(): ...
def dequantize(): ...
""")
code("oracle", """
weight = matrices[ranked[-1]]
codes, scale = quantize(weight)
zero = torch.zeros(len(weight), dtype=torch.int32)
theirs = torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -TOP, TOP)
off = (dequantize(codes, scale) - theirs).abs() / scale[:, None]
assert (off > 0.01).float().mean() < 1e-4 and off.max() < 1.01  # ties may fall otherwise
print("PyTorch's rounding per channel is the same, but for ties;", codes.dtype)
by_row = {n: error(w, quantize(w)[1][:, None]) for n, w in matrices.items()}
print(f"worst matrix: {whole[ranked[-1]]:.2%} per tensor, {by_row[ranked[-1]]:.2%} per row")
better = sum(by_row[n] < whole[n] for n in matrices)
print(f"per row is better in {better} of {len(matrices)} matrices")
""")
md("trap", """
> **Known trap: eight bits times eight bits.** A product of two codes needs 16 bits, a sum of them more. PyTorch's int8 arithmetic wraps around without a word; real kernels add up in int32.
""")
code("wraps", """
a = torch.tensor([100], dtype=torch.int8)
print((a * 2).item(), "in int8;", (a.int() * 2).item(), "in int32")
""")
md("whole-model", """
## 3. A translator in eight bits

`quantize_model` rounds all matrices in place. The arithmetic stays in floats: it shows what int8 costs in quality. Speed comes from runtimes that multiply codes (section 4).
""")
code("definition-model", """# annotated_transformer/quantization.py
def quantize_model(): ...
""")
code("whole", """
model = translator.model
in_int8 = Translator(deepcopy(model), translator.tokenizer)
n_bytes = quantize_model(in_int8.model)
n_floats = sum(p.numel() for p in model.parameters())
print(f"float32 {4 * n_floats / 1e6:.1f} MB, half {2 * n_floats / 1e6:.1f}, int8 {n_bytes / 1e6:.1f}")
""")
md("predict-changed", """
> **Predict first.** Of the 90 captions that come with the package, how many translations (greedy) will differ from float32's, in at least one word? With a scale per row, and with one per matrix?
>
> <details><summary>Answer</summary>
>
> Few of them, but some: an error of about 1 % in the weights is enough. One changed word can change all words after it.
>
> </details>
""")
code("changed", """
sources, references = zip(*sample_captions()["captions"], strict=True)


def greedy(translator):
    \"\"\"Without `translate`'s fast path, which rounds to bfloat16 on some processors.\"\"\"
    src = collate([(translator.encode(source), []) for source in sources]).src
    with torch.inference_mode():
        outputs = greedy_search(translator.model, src)
    return [translator.tokenizer.decode(ids) for ids in outputs]


per_tensor = Translator(deepcopy(model), translator.tokenizer)
with torch.no_grad():
    for p in per_tensor.model.parameters():
        if p.dim() == 2:
            step = p.abs().max() / TOP
            p.copy_((p / step).round() * step)
plain, ours, coarse = map(greedy, (translator, in_int8, per_tensor))
for name, texts in (("per row", ours), ("per matrix", coarse)):
    n = sum(a != b for a, b in zip(plain, texts, strict=True))
    print(f"{name}: {n} of {len(plain)} translations differ")
""", hidden_output=True)
md("differ-text", "Here are some of them. Is one worse than the other?")
code("differ", """
changed = [i for i, text in enumerate(plain) if text != ours[i]]
for i in changed[:3]:
    print(sources[i], "\\n  float32:", plain[i], "\\n  int8:   ", ours[i])
""")
md("why-differ", """
Why there? At each step greedy search takes the highest logit. Its *margin* is the distance to the second. Rounding moves logits a little: where the margin is smaller than the move, the word may change. At the word where the two part:
""")
code("margin", """
@torch.inference_mode()
def both(source):
    \"\"\"float32's output, and each model's logits on the way there.\"\"\"
    src = torch.tensor([translator.encode(source)])
    ids = greedy_search(model, src)[0]
    read = torch.tensor([[BOS, *ids]])
    return ids, model(src, read)[0], in_int8.model(src, read)[0]


def margins(logits):
    first, second = logits.topk(2).values.unbind(-1)
    return first - second


parts, others = [], []
for i in range(len(sources)):
    ids, float_logits, int8_logits = both(sources[i])
    at = (float_logits.argmax(-1) != int8_logits.argmax(-1)).nonzero()
    (parts if len(at) else others).append(
        margins(float_logits)[at[0, 0]] if len(at) else margins(float_logits).min()
    )
print(f"margin where int8 leaves float32: mean {torch.stack(parts).mean():.2f} ({len(parts)} captions)")
print(f"smallest margin of a caption that stays: mean {torch.stack(others).mean():.2f}")
""")
md("margin-look", """
Where the model was nearly undecided, rounding decides. A change there trades one doubtful word for another, so a score may stay while answers change. Test a new form by scores *and* by differences; either alone can mislead. (A margin is a matter of degree: even `translate` rounds to bfloat16 where the processor has units for it, which is a form of its own.)
""")
md("dynamic-text", """
## 4. Other programs

**PyTorch's own.** Its *dynamic* int8 keeps weights as codes, and quantizes each input when it comes. What becomes of it in the version that you have?
""")
code("dynamic", """
layer, inputs = model.encoder.layers[0].feed_forward, torch.randn(4, 192)
quantization = getattr(torch.ao, "quantization", None)
if hasattr(quantization, "quantize_dynamic"):
    with warnings.catch_warnings(record=True) as said, torch.inference_mode():
        warnings.simplefilter("always")
        dynamic = quantization.quantize_dynamic(deepcopy(layer), {nn.Linear})
        off = (dynamic(inputs) - layer(inputs)).norm() / layer(inputs).norm()
    print(f"{type(dynamic.widen).__module__}: output off by {off:.1%}")
    print(*{f"{w.category.__name__}: {str(w.message).splitlines()[0][:90]}" for w in said}, sep="\\n")
print("torch", torch.__version__.split("+")[0])
""", "nbval-ignore-output")
md("dynamic-look", """
In PyTorch 2.13, where this was run, it works and is deprecated: a removal was announced for 2.10, and a separate package, torchao, takes its place. The course doesn't build on it.

**Export.** Runtimes need neither PyTorch nor this package. Two commands write a folder with the model, its tokenizer and a short script that translates:

```sh
annotated-transformer export OUT --format ctranslate2 --quantization int8
annotated-transformer export OUT --format onnx
```

[ONNX](https://onnx.ai) is a file format for the graph of operations, which many runtimes read. [CTranslate2](https://opennmt.net/CTranslate2/) is one program for Transformers; it takes the weights and has its own search. It converts in seconds, so here it is live:
""")
code("ctranslate2", """
work = tempfile.TemporaryDirectory()
if find_spec("ctranslate2"):
    for kind in ("float32", "int8"):
        out = Path(work.name, kind)
        export(translator, out, format="ctranslate2", quantization=kind)
        search = search_with(out, translator)
        texts = translator.translate(sources, search=search)
        n = sum(a != b for a, b in zip(plain, texts, strict=True))
        print(f"{kind:8} {size(out) / 1e6:5.1f} MB, {n} of {len(texts)} translations differ")
else:
    print('CTranslate2 is missing: pip install -e ".[export]". Stored figures follow.')
""", "nbval-ignore-output")
md("may-change", """
The float32 form should change nothing, or a tie. What a runtime *may* change, and a test should look at: the order of sums, so ties fall otherwise; the longest output; which tokens are forbidden; the length penalty of beam search (CTranslate2 divides by length to the power alpha, the paper's reference by another formula, chapter 15); and the tokenizer, if it is not the same file.

All forms side by side, measured in rounds, so that a busy moment hits each alike:
""")
code("forms", """
study = results("forms") if (STORED / "forms.json").exists() else None
measures = ["megabytes", "first_word", "one", "many", "bleu", "difference", "low", "high"]
print("                        MB  first s     one    many   BLEU  difference (95 %)  changed")
for form in dict.fromkeys(row["form"] for row in study.rows) if study else ():
    mean = [study.values(m, form=form).double().mean().item() for m in measures]
    changed_mean = study.values("changed", form=form).double().mean().item()
    print(f"{form:20}", "{:5.1f} {:8.2f} {:7.1f} {:7.1f} {:6.2f} {:+6.2f} ({:+.2f} to {:+.2f})".format(*mean), f"{changed_mean:6.0f}")
if study:
    print(study.command, "|", study.budget())
else:
    print("not measured yet: python -m annotated_transformer.studies forms")
""")
md("forms-look", """
**Columns.** MB on the disk; seconds from a cold process to the first translated sentence; sentences per CPU-second with one thread, one at a time and 64 at a time; greedy BLEU on the 1,000 captions of `test_2016_flickr`; its difference from float32, with a paired bootstrap interval (chapter 16); the captions that changed. Means of three rounds.

How to read it: an interval that holds 0 says that these captions can't tell the form from float32 by BLEU. It doesn't say that the two are equal. Speeds belong to this processor: compare within a column. Cold start is a cost of its own; a service pays it once, a command each time.

**The demo has no server.** The book's landing page holds the last row, a short program in the browser that reads the same weights. What you type there stays on your machine.
""")
md("distill", """
## 5. A small model, taught by a large one

Eight bits keep all weights. *Distillation* ([Hinton et al. 2015](https://arxiv.org/abs/1503.02531)) trains a smaller model, the *student*, on what a trained one, the *teacher*, says: its probabilities for every next token, which tell more than the one token of the reference. For translation there is a second way ([Kim and Rush 2016](https://arxiv.org/abs/1606.07947)): the teacher translates the training sources, and its *translations* take the place of the references.
""")
md("turn-distilled", """
### Your turn (5 minutes): the teacher's probabilities

`student` and `teacher` are logits (labels, vocabulary). Return the mean over labels of the cross entropy: minus the sum of the teacher's probability times the logarithm of the student's. (The temperature is 1.)

<details><summary>Hint</summary>

Chapter 11 wrote it for a smoothed label. `F.cross_entropy` takes probabilities in place of labels, too.

</details>
""")
code("turn-distilled-stub", """
def my_distilled(student, teacher):
    # your code
    ...
""", "exercise")
code("turn-distilled-check", """
from annotated_transformer.checks import check_distilled

print(check_distilled(my_distilled))
""", "check")
md("live-text", "The study's own loss on a few captions, checked against PyTorch's, and twenty steps of its training:")
code("live", """
pairs = encode(sample_captions()["captions"], translator.tokenizer)
batch = collate(pairs[:8])
real = batch.labels != 0
torch.manual_seed(0)
student = Transformer(distillation.STUDENT).eval()
ours_loss = distillation.Distilled(student, model)(batch)
with torch.no_grad():
    told = model(batch.src, batch.tgt_in)[real].softmax(-1)
theirs = F.cross_entropy(student(batch.src, batch.tgt_in)[real], told, reduction="sum")
assert_close(ours_loss, theirs)
trained, _ = distillation.train_student("probabilities", 0, steps=20, train_pairs=pairs)
after = distillation.Distilled(trained, model)(batch)
print("nats per label: {:.1f}, then {:.1f}".format(*(x / real.sum() for x in (ours_loss, after))))
n_student = sum(p.numel() for p in student.parameters())
print(f"student {n_student / 1e6:.1f} million parameters, teacher {n_floats / 1e6:.1f}")
""", "nbval-ignore-output")
md("predict-distilled", """
> **Predict first.** Three students of one size, 750 updates each: one learns from the references, one from the teacher's translations, one from its probabilities. Which has the lowest loss on held-out *references*? Which has the highest BLEU?
>
> <details><summary>Answer</summary>
>
> By loss the student of translations is the worst, and yet it beats the student of references by BLEU. The student of probabilities is best by loss, and by BLEU at least near the top.
>
> </details>
""")
code("distilled", """
study = results("distillation")
bleu = {}
for lesson in distillation.LESSONS:
    bleu[lesson] = study.values("bleu", lesson=lesson)
    loss = study.values("losses", lesson=lesson)[:, -1]
    seconds = study.values("cpu_seconds", lesson=lesson).mean()
    print(f"{lesson:14} BLEU {spread(bleu[lesson].tolist(), digits=1)}, loss {spread(loss.tolist())}, {seconds:.0f} CPU-seconds")
for a, b in (("translations", "references"), ("probabilities", "references"), ("probabilities", "translations")):
    gain = bleu[a] - bleu[b]  # seed by seed
    half = 4.303 * gain.std() / len(gain) ** 0.5  # Student's t, two degrees of freedom
    print(f"{a} - {b}: {gain.mean():+.1f} BLEU, 95 % interval {gain.mean() - half:+.1f} to {gain.mean() + half:+.1f}")
print(study.command, "|", study.budget())
""", hidden_output=True)
code("fig-distilled", """
steps = study.where()[0]["steps"]
losses = {name: study.values("losses", lesson=name) for name in distillation.LESSONS}
lines(steps, losses, xlabel="update", ylabel="nats per token, held-out references")
""", hidden_source=True, alt="Held-out loss of three kinds of students against the update. All fall; the student of probabilities is lowest from the beginning, the student of translations ends highest.")
md("fig-distilled-caption", """
**Fig. 22.3** **The lower loss is not the higher BLEU.** Loss on the validation references; mean and range of three seeds. The student of translations learns one way to say each thing, and is surprised by the others that people choose; greedy search needs one way only.
""")
md("distilled-look", """
**What this shows, and what it can't.** In these 750 updates both ways of teaching beat the references, if their interval above stays over 0. Three seeds tell large differences alone. The teacher had far more training on the same captions, and BLEU among its goals (chapter 16), so a student may inherit taste for the score. Its translations cost time, too, which the seconds above leave out. Nothing here says that a longer training from references wouldn't catch up, or that it holds for other languages. The third way to a smaller model, leaving heads out, is in [chapter 17's deeper notebook](deeper/17_looking_inside.ipynb).
""")
md("follow", """
## Follow the sentence

"Ein Mann, der einen roten Hut trägt, spielt Gitarre." Word by word: float32's margin, and how far int8 moved the gap between the two best tokens.

> **Predict first.** Will any word change? Which word has the smallest margin?
>
> <details><summary>Answer</summary>
>
> None changes: every margin is larger than what int8 moves. See below where it is closest.
>
> </details>
""")
code("follow-words", """
sentence = "Ein Mann, der einen roten Hut trägt, spielt Gitarre."
ids, float_logits, int8_logits = both(sentence)
print(translator.tokenizer.decode(ids))
pieces = [*translator.tokenizer.target_pieces(ids), "</s>"]
best = float_logits.topk(2).indices
gap = int8_logits.gather(1, best)
moved = gap[:, 0] - gap[:, 1] - margins(float_logits)
for piece, margin, change in zip(pieces, margins(float_logits), moved, strict=True):
    print(f"{piece:10} margin {margin:5.1f}  moved by {change:+.2f}")
refuted((moved < -margins(float_logits)).any(), "int8 changes a word")
""", hidden_output=True)
md("follow-look", "The sentence that you followed since chapter 00 fits into a quarter of the bytes, and stays what it was.")
md("exercises", """
## Exercises

### Exercise 1 ★ With a pencil (6 minutes)

(a) The row (0.2, -0.8, 0.5) in *four* bits, codes from -7 to 7: scale, codes, and what they stand for? (b) A matrix of 768 rows and 192 columns: how many bytes in float32, and in int8 with a float32 scale for each row? (c) How far may rounding move a number of that row in (a), at most?
""")
md("ex2", """
### Exercise 2 ★★ Change one thing (8 minutes)

Quantize the model to four bits per row: codes from -7 to 7. Predict how many of the 90 captions change, then measure. Then leave the embeddings at eight bits.

### Exercise 3 ★★★ An open question (12 minutes)

Only matrices became codes here. Biases and the gains of layer norms kept their floats. Give two reasons: one in bytes, one in errors. Then: which activations would you *not* round to eight bits with one scale per tensor?
""")
md("recap", """
## Recap

| what | in one line |
| :-- | :-- |
| int8, symmetric | code = round(weight / scale), scale = largest / 127; off by half a scale at most |
| zero point | the code that means 0, for numbers that lie on one side |
| per channel | a scale for each row: a few rows hold the large numbers, and the others needn't pay |
| int8 arithmetic | products of codes add up in int32; dynamic: inputs are rounded as they come |
| what changes | words whose margin is small; look at scores and at differences |
| runtimes | ties, lengths, forbidden tokens, penalties: test each export against the original |
| distillation | a student learns a teacher's probabilities, or its translations |

**Where you are.** 22 Shipping it, done, and the course with it. You began with a sentence and a picture of boxes; now you have built every box, trained it, doubted it, measured it and shipped it, and the next model that somebody calls a Transformer is one that you can open.
""")
md("solutions", "## Solutions")
solution("turn-zero-solution", """
# Solution
def shifted(x):
    scale = (x.max() - x.min()) / 255
    zero = (-x.min() / scale).round()
    codes = ((x / scale).round() + zero).clamp(0, 255)
    return (codes - zero) * scale


print("Your turn, the zero point:", check_zero_point(shifted))
assert check_zero_point(shifted) == "correct"
print("a mistake:", check_zero_point(lambda x: (x / x.abs().max() * 127).round() * x.abs().max() / 127))
""")
solution("turn-rows-solution", """
# Solution
def rounded(weight):
    scale = weight.abs().amax(1, keepdim=True) / 127
    return (weight / scale).round() * scale


print("Your turn, a scale for each row:", check_rounded_rows(rounded))
assert check_rounded_rows(rounded) == "correct"
print("a mistake:", check_rounded_rows(lambda weight: rounded(weight.T).T))
""")
solution("turn-distilled-solution", """
# Solution
def distilled(student, teacher):
    return -(teacher.softmax(-1) * student.log_softmax(-1)).sum(-1).mean()


print("Your turn, the teacher's probabilities:", check_distilled(distilled))
assert check_distilled(distilled) == "correct"
print("a mistake:", check_distilled(lambda student, teacher: distilled(teacher, student)))
""")
solution("ex1-solution", """
# Solution of exercise 1
scale = 0.8 / 7
codes = [round(x / scale) for x in (0.2, -0.8, 0.5)]
print(f"(a) scale {scale:.3f}, codes {codes}:", [round(c * scale, 3) for c in codes])
print(f"(b) {768 * 192 * 4:,} and {768 * 192 + 768 * 4:,} bytes")
print(f"(c) {scale / 2:.3f}, half a scale")
""")
solution("ex2-solution", """
# Solution of exercise 2
def four_bits(weight):
    step = weight.abs().amax(1, keepdim=True) / 7
    return (weight / step).round() * step


for name, those in (("all", ""), ("but embeddings", "coder")):
    small = Translator(deepcopy(in_int8.model), translator.tokenizer)
    with torch.no_grad():
        for key, p in small.model.named_parameters():
            if p.dim() == 2 and those in key:
                p.copy_(four_bits(model.get_parameter(key)))
    n = sum(a != b for a, b in zip(plain, greedy(small), strict=True))
    print(f"four bits, {name}: {n} of {len(plain)} captions change")
""")
md("ex3-solution", """
**Exercise 3.** Bytes: vectors are about one number in a hundred, so there is nothing to win. Errors: a bias or a gain touches every position in the same way, and its error isn't averaged over a row of products. Activations to keep away from one scale: those with a few
large channels, such as what leaves a gain of a layer norm or runs along the residuals; there a few large numbers would make the steps coarse for all others, as in Fig. 22.2. Attention weights are bounded by 1, but tiny ones round to 0.
""")
FULL = len(sys.argv) > 2
if not FULL:
    gone = {"forms", "forms-look", "predict-distilled", "distilled", "fig-distilled", "fig-distilled-caption", "distilled-look"}
    at = [c["id"] for c in cells].index("distilled")
    md("distilled-short", """
Do students gain by it, and by which lesson? Twenty steps can't tell. `python -m annotated_transformer.studies distillation` trains nine students, three for each lesson (references, translations, probabilities), on Multi30k. Whatever comes out, keep three limits in mind. Three seeds tell large differences alone. The teacher had far more training on the same captions, and BLEU among its goals (chapter 16), so a student may inherit taste for the score. And a teacher's work costs time, too. The third way to a smaller model, leaving heads out, is in [chapter 17's deeper notebook](deeper/17_looking_inside.ipynb).
""")
    cells.insert(at, cells.pop())
    md("demo", """
Sizes and differences above come from one run of one model: they say what to look at, not which runtime is best. Speed depends on the processor, the batch and the length; measure on yours.

**The demo has no server.** The book's landing page holds one more form: a short program in the browser that reads the same weights. What you type there stays on your machine.
""")
    at = [c["id"] for c in cells].index("forms")
    cells.insert(at, cells.pop())
    cells = [c for c in cells if c["id"] not in gone]
    def swap(a, b):
        n = 0
        for c in cells:
            text = "".join(c["source"])
            if a in text: c["source"] = text.replace(a, b).splitlines(True); n += 1
        assert n == 1, (a, n)
    swap("4. read a table of forms: bytes, cold start, speed, BLEU with its interval;\n5. teach a small model by a large one, and say what three seeds show.", "4. write the loss by which a large model teaches a small one.")
    swap("\n\nAll forms side by side, measured in rounds, so that a busy moment hits each alike:", "")
    swap("import STORED, distillation, results", "import distillation")
    swap("import refuted, spread", "import refuted")
nb = dict(cells=cells, metadata=dict(kernelspec=dict(display_name="Python 3 (ipykernel)", language="python", name="python3"), language_info=dict(file_extension=".py", mimetype="text/x-python", name="python", pygments_lexer="ipython3"), seconds=20), nbformat=4, nbformat_minor=5)
json.dump(nb, open(sys.argv[1], "w"), indent=1, ensure_ascii=False); open(sys.argv[1], "a").write("\n")
