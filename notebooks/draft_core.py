import nbformat, json, sys
from nbformat.v4 import new_notebook, new_code_cell, new_markdown_cell
cells=[]
def md(id, text): cells.append(new_markdown_cell(text.strip("\n"), id=id))
def code(id, text, tags=(), alt=None, hide_input=False, hidden_output=False):
    m={}
    t=list(tags)
    if hide_input: t=["hide-input"]+t; m["jupyter"]={"source_hidden":True}
    if alt: m["mystnb"]={"image":{"alt":alt}}
    if hidden_output: t=t+["hide-output"]; m["jupyter"]={"outputs_hidden":True}
    if t: m["tags"]=t
    cells.append(new_code_cell(text.strip("\n"), id=id, metadata=m))
OUT=["nbval-ignore-output"]

md("title", r'''
# 20 Speed and scale

| Question | Where do the seconds of training go, and what is a fixed amount of compute best spent on? |
| :-- | :-- |
| **In the paper** | §5.2 (8 GPUs, 12 hours), Table 2 (training cost in operations) of "Attention Is All You Need", [arXiv:1706.03762](https://arxiv.org/abs/1706.03762) |
| **Know first** | Chapter 04 (heads), 08 (parameters), 09 (batches, accumulation), 11 (the smoothed loss) |
| **Words and symbols** | [glossary](../book/glossary.md), [notation](../book/notation.md) |
| **Read** | about 35 minutes; the exercises take 48 more |
| **Run** | about 30 seconds on a laptop |

**Where you are.** Part IV, from the paper to today: 18 When training goes wrong → 19 Variations → **20 Speed and scale** → 21 Three families.

The paper's claim is also one of cost. How fast *could* it be? After this chapter you can

1. count the operations of a step by hand, and say which part of your machine's peak it reaches;
2. climb from a loop over positions to fused kernels, and measure each rung;
3. train in several processes that end with the weights of one;
4. fit how large a model should be for a fixed budget, with an error bar, and test the fit.
''')
code("imports", r'''
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from annotated_transformer import ladder, parallel
from annotated_transformer.attention import attention
from annotated_transformer.batches import Batch, collate
from annotated_transformer.config import BASE, BIG, TransformerConfig
from annotated_transformer.decoding import greedy_search
from annotated_transformer.files import read_json
from annotated_transformer.grammar import grammar_corpus
from annotated_transformer.ladder import Heads, Mask, epoch, standing_on
from annotated_transformer.lessons import check, seeded
from annotated_transformer.plots import panels, use_style
from annotated_transformer.processes import Processes, launch
from annotated_transformer.speed import interleave, product_speed, training_flops
from annotated_transformer.studies import processor, results, scaling
from annotated_transformer.training import cut, train_step
from annotated_transformer.transformer import Transformer
from annotated_transformer.translator import Translator

use_style()
torch.set_num_threads(1)  # seconds of one core; more cores come in section 3
''')
code("fig-1", r'''
from annotated_transformer.pictures import progress

progress(20)
''', alt="The paper's Figure 1, small. Every part of it is lit.", hide_input=True)
md("fig-1-caption", r'''
**Fig. 20.1** **Today: every part, as work to be done.**
''')
md("operations", r'''
## 1. Operations, by hand

Nearly all the work of a Transformer is matrix products. To multiply (2, 3) by (3, 4), each of the 2 · 4 outputs needs 3 multiplications and 3 additions:
2 · 2 · 3 · 4 = 48 **operations** (floating-point operations, FLOPs). PyTorch has a counter to hold against the pencil.
''')
code("by-hand", r'''
def counted(function, *inputs):
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    return counter.get_total_flops()


print("by hand:", 2 * 2 * 3 * 4)
print("counted:", counted(torch.mm, torch.ones(2, 3), torch.ones(3, 4)))
''')
md("peak-text", r'''
How many a second can *this* machine do? The time of a product depends on its size: a small one is over before the processor's units are full. The fastest that we
find is the machine's own **peak**.
''')
code("peak", r'''
sizes = (16, 64, 256, 1024)
speeds = {n: product_speed(n) for n in sizes}
peak = max(speeds.values())
print(processor(), "with one thread")
for n, speed in speeds.items():
    print(f"({n:4}, {n:4}) @ ({n:4}, {n:4}): {speed / peak:7.1%} of the peak")
print(f"the peak: {peak / 1e9:.0f} billion operations a second")
''', OUT)
md("turn-flops", r'''
### Your turn (10 minutes): the operations of a forward pass

A model reads one pair: `src` source tokens, `tgt` target tokens. Add up the operations of all its matrix products, 2 for each multiplication with its addition.

- Each **attention** has four (d_model, d_model) matrices: queries and output for the tokens that look, keys and values for the tokens looked at. Then come two products without weights: the scores,
  and the mixing of the values. All heads together are as wide as d_model.
- A **feed-forward** layer has two matrices, d_model to d_ff and back.
- An encoder layer has one attention; a decoder layer has two. The output layer scores `vocab_size` words at each target token.

<details><summary>Hint</summary>

One attention: 2 · (2 · query · d² + 2 · key · d² + 2 · query · key · d), where the first 2 is for multiplication and addition.

</details>
''')
code("turn-flops-stub", r'''
def my_flops(src, tgt, d_model, d_ff, n_layers, vocab_size):
    # your code
    ...
''', ["exercise"])
code("turn-flops-check", r'''
from annotated_transformer.checks import check_flops

print(check_flops(my_flops))
''', ["check"])
md("flops-text", r'''
The package's own count, and the counter's for a real model:
''')
code("flops", r'''
# annotated_transformer/speed.py
def pair_flops(): ...
''')
code("flops-oracle", r'''
SIZES = TransformerConfig(
    vocab_size=4_000, d_model=128, d_ff=512, n_heads=4, n_layers=2, dropout=0.0
)
model, plain = Transformer(SIZES), ladder.ladder()["heads packed"]
src, tgt = torch.ones(1, 16).long(), torch.ones(1, 14).long()
with standing_on(plain, model):
    real = counted(model, src, tgt)
print(f"by formula {pair_flops(SIZES, 16, 14):,}, counted {real:,}")
check(pair_flops(SIZES, 16, 14) == real, "the formula is what the counter counts")
''')
md("six-n-d", r'''
The backward pass takes each product's gradient with respect to both factors, so it costs twice the forward pass; a training step costs three times `pair_flops`. This is the origin of the rule **C ≈ 6ND**: 6 operations for each
parameter (N) and each token (D) that meets it. Which parameters? Embeddings are looked up, not multiplied. We return to this in section 4.

The paper's own price is in Table 2: 3.3 · 10¹⁸ operations for the base model, 2.3 · 10¹⁹ for the big one. A note below the table says how it was found: training time, times GPUs, times 9.5 · 10¹² operations a second, which a P100
can sustain. So it is the *capacity* that was rented. The work we can count, with sentences of 25 tokens (§5.1: about 25,000 tokens on each side of a batch):
''')
code("paper-cost", r'''
for name, c, steps, days in (("base", BASE, 100_000, 0.5), ("big", BIG, 300_000, 3.5)):
    work = steps * training_flops(c, 1_000, 25)
    rented = days * 86_400 * 8 * 9.5e12
    print(f"{name:4} rented {rented:.1e}, work {work:.1e}: {work / rented:.0%}")
''')
md("paper-cost-look", r'''
By this count, less than half of the capacity became products of matrices. How does a step get there?
''')
md("ladder-text", r'''
## 2. The ladder

One training step, written slowly, then faster. Each rung changes one thing:

| rung | what changes | where you know it from |
| :-- | :-- | :-- |
| loop over positions | nothing yet: one query of one head at a time | 02, by hand |
| matrices | all queries of a head at once | 02, Eq. 1 |
| heads packed | all heads as one more axis of a batch | 04 |
| fused attention | `scaled_dot_product_attention`, one call | 02 |
| fused loss | label smoothing without a distribution per label, logits in chunks | 11 |
| fused optimizer | one call for all parameters, not a loop over them | 10 |
| fast products | another library for products, perhaps rounding their factors | here |
| length buckets | batches of like lengths: less padding | 09 |

The bottom one (the next takes `i` away: all queries of a head in one product):
''')
code("rungs", r'''
# annotated_transformer/ladder.py
def one_by_one(): ...
''')
code("same-gradient", r'''
translator = Translator.pretrained()
tokenizer = translator.tokenizer
texts = grammar_corpus(64)["train"]
pairs = [(translator.encode(s), tokenizer.encode_target(t)) for s, t in texts]
rungs, gradients, batch = ladder.ladder(), {}, collate(pairs[:16])
for name, rung in rungs.items():
    with standing_on(rung, model):
        loss = rung.loss(model, batch)
        found = torch.autograd.grad(loss, list(model.parameters()))
    gradients[name] = torch.cat([g.flatten() for g in found])
first = gradients["loop over positions"]
for name in ("matrices", "heads packed", "fused attention", "fused loss"):
    assert_close(gradients[name], first, rtol=1e-3, atol=1e-3)
fast = torch.cosine_similarity(gradients["fast products"], first, dim=0)
check(fast > 0.999, "fast products: nearly its direction, perhaps rounded")
''')
md("predict-ladder", r'''
Equal gradients: all rungs learn the same. Now the race: 64 sentences in batches of 32, tokens a second (target tokens, as in the paper), and the share of the peak that goes into
operations on real tokens. All rungs take turns in one run, so that whatever else your machine does hits them alike.

> **Predict first.** Which rung will help most, and which hardly? How much of the peak will the last one reach: above 80 %, or below?
>
> <details><summary>Answer</summary>
>
> Leaving the loop helps most by far: its products are tiny, and Python's calls cost more than the arithmetic. Far below 80 %: this model's matrices are small (128 wide), and norms, softmax and the optimizer are not products.
> Fused attention does little for sentences of 20 tokens; it is made for long ones. Rungs that don't help on your processor are no mistake of yours: see which.
>
> </details>
''')
code("race", r'''
models = {name: Transformer(SIZES) for name in rungs}
tasks = {name: epoch(rung, models[name], pairs, 32) for name, rung in rungs.items()}
times = {name: median(t) for name, t in interleave(tasks, rounds=2).items()}
tokens = sum(len(tgt) for _, tgt in pairs)
work = 3 * sum(pair_flops(SIZES, len(src), len(tgt)) for src, tgt in pairs)
slowest = times["loop over positions"]
print(processor())
for name, seconds in times.items():
    share = work / seconds / peak
    speed, ratio = tokens / seconds, slowest / seconds
    print(f"{name:20} {speed:6,.0f} tokens/s, {share:5.1%} of peak, {ratio:4.1f} x")
''', OUT, hidden_output=True)
code("fig-ladder", r'''
figure, axes = panels(width=7, height=3.4)
shares = [100 * work / seconds / peak for seconds in times.values()]
axes.barh(list(times), shares, color="C0")
axes.invert_yaxis()
axes.set(xlabel="share of the machine's peak (%)")
figure
''', OUT, alt="A horizontal bar for each rung of the ladder, its share of the machine's matrix peak. The loop is shortest by far; the bars grow, with steps of different sizes, and all stay far below 100 percent.", hide_input=True)
md("fig-ladder-caption", r'''
**Fig. 20.2** **The same gradient, at very different speeds.** Each bar: the median of two rounds in one run, one thread.
''')
md("ladder-look", r'''
A step to the next rung can be within the noise of two rounds; the whole climb is not. **Few large calls beat many small ones**: loop to matrices, heads to a batch, parameters to one optimizer call. And **don't compute what
nobody needs**: no distribution per label, little padding.

On a GPU, two more rungs belong on top: bfloat16 and `torch.compile`. `python -m benchmarks.ladder --device cuda` climbs it there; no figures of it are stored, since no GPU was at hand.

> **Known trap.** A GPU works while Python goes on. Who stops the clock before `torch.cuda.synchronize()` measures how fast work is *ordered*, and finds wonders. Another: the first call of anything compiles, allocates, and warms up; it must not count.
''')
md("processes", r'''
## 3. Several processes, one gradient

The paper's base model trained on 8 GPUs (§5.2). In **data parallel** training each process has the whole model and a part of each batch. After the backward pass their gradients are combined by an **all-reduce**: afterwards
every process holds the same sum.

By hand: two processes get 3 and 1 of four labels. Their *mean* losses have the gradients 2 and 6. The mean of these is 4, and wrong: the mean over all labels has the gradient (3 · 2 + 1 · 6) / 4 = 3.
''')
md("turn-combine", r'''
### Your turn (5 minutes): combine

`gradients` is a list of tensors, one for each process: the gradient of the *mean* loss over its labels. `tokens` says how many labels each had. Return the gradient of the mean loss over all labels. (Graded problem 4.3 goes on.)
''')
code("turn-combine-stub", r'''
def my_combine(gradients, tokens):
    # your code
    ...
''', ["exercise"])
code("turn-combine-check", r'''
from annotated_transformer.checks import check_combine

print(check_combine(my_combine))
''', ["check"])
md("combine-text", r'''
Simpler: each process divides its *summed* loss by the labels of the *whole* batch. Then a plain sum is exact. The package does that:
''')
code("step-by-hand", r'''
# annotated_transformer/parallel.py
def step_by_hand(): ...
''')
md("three-ways", r'''
`dist.all_reduce` is the message; **gloo** is the library that carries it between processes on CPUs (NCCL does between GPUs). Two libraries do it for you:

- **DDP** (`DistributedDataParallel`) sends the gradients in buckets, while the backward pass is still busy with earlier layers.
- **FSDP2** (`fully_shard`) also gives each process only a slice of weights, gradients and optimizer state. Layers are gathered when they are needed.

Both *average*, so the loss is multiplied by the number of processes first. Two real processes now train three steps each way, on parts with unequal numbers of labels; one process trains on whole batches.

> **Predict first.** Will the weights be equal to the last bit?
>
> <details><summary>Answer</summary>
>
> No: the sum is the same, but its order isn't, so the last digits may differ. They are equal within rounding.
>
> </details>
''')
code("two-processes", r'''
alone, _ = parallel.learn("one process", Processes())
with tempfile.TemporaryDirectory() as folder:
    launch(parallel.compare, Path(folder), processes=2)
    ends = {w: load_file(Path(folder) / f"{w}.safetensors") for w in parallel.WAYS}
    measured = read_json(Path(folder) / "processes.json")
start, _ = parallel.learn("one process", Processes(), steps=0)
moved = max((alone[name] - start[name]).abs().max().item() for name in alone)
check(moved > 0.01, "three steps move the weights")
for way, weights in ends.items():
    assert_close(weights, alone)
    print(f"{way}: two processes end with the weights of one, within rounding")
for way, held in measured["held"].items():
    print(f"{way:8} weights held by each process: {held}")
''', hidden_output=True)
md("one-file", r'''
The functions stand in a module: a new process imports what it runs, and can't import a cell. `torchrun` starts the same file as a program ([deeper](deeper/20_speed_and_scale.ipynb)).

Is it faster? One step on 128 pairs, by one process with one thread, with two, and by two processes:
''')
code("two-processes-race", r'''
base = median(measured["seconds"]["one process"])
for name, seconds in measured["seconds"].items():
    print(f"{name:24} {base / median(seconds):.2f} times the speed of one")
''', OUT)
md("eight-gpus", r'''
At most twice, and usually less: the products are divided, the optimizer's step is not, and the messages are new. On a machine with one free core it can even be slower.

**The paper's 8 GPUs** shared about 25,000 source and 25,000 target tokens a step (§5.1), so each GPU had roughly an eighth, some 3,000 of each. On one GPU the same update takes 8 pieces, one after another: **accumulation** (chapter 09). The sum of gradients does not know who computed it. Below,
a batch in 8 pieces on one process; the package's `cut` and `train_step` do the same on 8.
''')
code("accumulate", r'''
ways = {}
for pieces in (1, 8):
    objective = parallel.new_objective(parallel.SMALL)
    some = parallel.random_pairs(parallel.SMALL, 40, seed=5)
    labels = sum(len(tgt) for _, tgt in some)
    optimizer = torch.optim.SGD(objective.parameters(), 0.1)
    train_step(objective, optimizer, cut(some, pieces), n_tokens=labels)
    ways[pieces] = list(objective.parameters())
assert_close(ways[8], ways[1])
print("8 pieces, one update: the weights of the whole batch")
''')
md("scale", r'''
## 4. A budget: a larger model, or more text?

Speed is a price per operation. With a budget of operations C, a model twice as large sees half as many tokens. Hoffmann et al. ([arXiv:2203.15556](https://arxiv.org/abs/2203.15556), "Chinchilla") found that both should **grow alike**: the best size N and
the best number of tokens D go with about C^0.5 each. Does that hold here, and how sure can we be?

A study in the package repeats their *IsoFLOP* curves in small: language models (two layers, widths 6 to 96) on the sentences of the grammar, each sentence read once. For each of four budgets, five widths and three seeds. A tiny budget, live:
''')
code("live", r'''
tiny = {
    width: scaling.measure({"budget": 2e9, "width": width, "seed": 0}, pairs=8_000)
    for width in (4, 8, 16)
}
for width, run in tiny.items():
    size, read, loss = run["all"], run["tokens"], run["loss"]
    print(f"width {width:2}: {size:6,} parameters, {read:7,} tokens, loss {loss:.2f}")
''', OUT)
md("predict-iso", r'''
> **Predict first.** At one budget, the loss against the size of the model: falling, rising, or what?
>
> <details><summary>Answer</summary>
>
> A valley. Too small a model has learned all it can hold; too large a model has seen too few tokens. With more compute the valley moves down and to the right.
>
> </details>
''')
code("sweep", r'''
study = results("scaling")
print(study.command)
print(study.budget())
BUDGETS = torch.tensor(list(scaling.SWEEP))


def grid(what, budget, widths):
    rows = [study.values(what, budget=budget, width=w) for w in widths]
    return torch.stack(rows, -1).double()  # (seed, width)


def valley(budget, widths):
    sizes, losses = (grid(w, budget, widths) for w in ("without_embeddings", "loss"))
    return scaling.lowest(sizes[0], losses.mean(0))


for budget, widths in scaling.SWEEP.items():
    size, loss = valley(budget, widths)
    print(f"{budget:.0e}: lowest at {size / 1000:.1f} thousand, loss {loss:.2f}")
''', hidden_output=True)
code("fig-iso", r'''
figure, axes = panels(width=7, height=4)
for i, (budget, widths) in enumerate(scaling.SWEEP.items()):
    sizes, losses = (grid(w, budget, widths) for w in ("without_embeddings", "loss"))
    x, mean = sizes[0], losses.mean(0)
    spread = torch.stack([mean - losses.amin(0), losses.amax(0) - mean])
    axes.errorbar(x, mean, spread, fmt="o", color=f"C{i}", markersize=4, capsize=3)
    curve = torch.linspace(x[0].log(), x[-1].log(), 50).double()
    factors = scaling.parabola(x, mean)
    values = sum(f * curve**power for power, f in enumerate(factors))
    axes.plot(curve.exp(), values, color=f"C{i}", label=f"{budget:.0e}")
    axes.plot(*valley(budget, widths), "*", color=f"C{i}", markersize=12)
axes.set(
    xscale="log",
    xlabel="parameters, without input embeddings",
    ylabel="loss (nats per token)",
)
axes.legend(title="operations")
figure
''', alt="Four valleys, one for each budget: loss against parameters on a log scale. With more operations they lie lower and further right; a star marks the bottom of each.", hide_input=True)
md("fig-iso-caption", r'''
**Fig. 20.3** **At each budget one size is best, and it grows with the budget.** Points: mean of three seeds, with their range. Curves: a parabola in log N for each budget; stars: its lowest point. Some points are further from their curve than their range: the parabola is an approximation.
''')
md("exponent-text", r'''
A power law is a line in log–log, and its slope through the four stars is the exponent. At every point we draw three of the three seeds *with replacement*, and fit anew, 2,000 times (the bootstrap of chapter 16). Parameters are counted in three ways; the last row is the number of tokens:
''')
code("exponents", r'''
def draws(what, sweep=scaling.SWEEP, number=2_000):
    generator, optima = seeded(0), []
    for budget, widths in sweep.items():
        sizes, losses = grid(what, budget, widths)[0], grid("loss", budget, widths)
        rows = torch.randint(3, (number, 3, len(widths)), generator=generator)
        means = losses.expand(number, -1, -1).gather(1, rows).mean(1)
        optima.append(scaling.lowest(sizes, means)[0])
    return torch.stack(optima, -1)  # (draw, budget)


def middle(values):
    return values.quantile(torch.tensor([0.025, 0.975]).double()).tolist()


COUNTS = ("all", "without_embeddings", "layers", "tokens")
exponents = {what: scaling.power(BUDGETS, draws(what))[0] for what in COUNTS}
for what, values in exponents.items():
    low, high = middle(values)
    print(f"{what:18} C^{values.mean():.2f}, 95 %: {low:.2f} to {high:.2f}")
for what in COUNTS[:3]:
    low, high = middle(exponents[what] - exponents["tokens"])
    print(f"{what:18} minus tokens: {low:+.2f} to {high:+.2f}")
''')
md("counting", r'''
The same runs, the same lowest losses: yet the exponent of N depends on **what we call a parameter**. Embeddings grow with the width, layers with its square; the smaller the model, the more of it is embeddings, so counting them flattens the line. Tokens were fitted by themselves: nobody doubts what a token is.

It is no peculiarity of toys. The log of nanochat (Karpathy, [dev/LOG.md](https://github.com/karpathy/nanochat/blob/master/dev/LOG.md), January 27, 2026), at 10¹⁸ to 10¹⁹ operations, has for N and D: .37 and .50 with all parameters, .54 and .49 with all projections and the output layer but without
embeddings, .70 and .41 with the layers' projections alone. Whoever quotes an exponent should say what was counted.
''')
md("alike-look", r'''
No interval of a difference (last three rows) holds 0: here text should grow faster than the model, however we count. That is a finding on this toy, not on theirs: our budgets are more than ten million times smaller. And the interval knows the *seeds* only. It doesn't know that one batch size and one rule for the rate (0.5 / width) served all runs, or that
a parabola and a line are our own idea.

### A prediction, and the larger run

A law is tested where it was not fitted. Lines in log–log through the four budgets predict the best size and the lowest loss at 10¹² operations, more than three times the largest. First the prediction:
''')
code("predict-larger", r'''
((larger, widths),) = scaling.LARGER.items()


def extrapolate(optima):
    exponent, factor = scaling.power(BUDGETS, optima)
    return (factor + exponent * torch.tensor(larger).log()).exp()


low, high = middle(extrapolate(draws("without_embeddings")))
bottoms = torch.stack([valley(b, w)[1] for b, w in scaling.SWEEP.items()])
print(f"best size: {low / 1000:.0f} to {high / 1000:.0f} thousand")
print(f"lowest loss: {extrapolate(bottoms):.2f}")
''')
md("predict-larger-box", r'''
> **Predict first.** Which of the two will hold? Think of what the loss can't fall below.
>
> <details><summary>Answer</summary>
>
> Neither does. A line in log–log for the loss goes on to 0, and text has an entropy: the next word is not decided by the words before it. So the real loss lies above the line. The best size is smaller than predicted, too.
>
> </details>
''')
code("larger", r'''
size, loss = valley(larger, widths)
low, high = middle(draws("without_embeddings", {larger: widths})[:, 0])
print(f"best size: {size / 1000:.0f} thousand ({low / 1000:.0f} to {high / 1000:.0f})")
print(f"lowest loss: {loss:.2f}, predicted {extrapolate(bottoms):.2f}")
every = scaling.SWEEP | scaling.LARGER
best = torch.stack([valley(b, w)[0] for b, w in every.items()])
steps = best.log().diff() / torch.tensor(list(every)).double().log().diff()
print("exponent of N from budget to budget:", *(f"{e:.2f}" for e in steps))
''', hidden_output=True)
md("larger-look", r'''
The last line shows why: the exponent falls as the budget grows, so the line was never quite a line. A grammar with some 500 words is soon learned, and what is left is entropy, which no size reduces. The interval for the best size missed, since it answered "what if we ran the same again?", not "what if the law has another form?" So: fit, predict, *then* look.
''')
md("follow", r'''
## Follow the sentence

"Ein Mann, der einen roten Hut trägt, spielt Gitarre." How many operations does its translation take, and how much of the peak do they reach?
''')
code("follow-flops", r'''
german = "Ein Mann, der einen roten Hut trägt, spielt Gitarre."
ids = torch.tensor([translator.encode(german)])
(output,) = greedy_search(translator.model, ids)
c = translator.model.config
needed = pair_flops(c, ids.size(1), len(output) + 1)
print(translator.translate([german])[0])
print(f"{ids.size(1)} tokens in, {len(output) + 1} out (with the end token)")
print(f"about {needed / 1e6:.0f} million operations")
''')
code("follow-seconds", r'''
def search(n):
    return lambda: greedy_search(translator.model, ids.expand(n, -1))


for n, seconds in interleave({1: search(1), 64: search(64)}, rounds=3).items():
    each = median(seconds) / n
    share = needed / each / peak
    print(f"{n:2} at once: {1000 * each:5.2f} ms each, {share:.1%} of peak")
''', OUT)
md("follow-look", r'''
One token at a time makes products of a matrix with a *vector*: each weight is fetched for two operations, so memory sets the pace, not arithmetic. A batch uses each weight for all its sentences. (With the cache of chapter 15, decoding repeats nothing, so one pass is the count.)
''')
md("exercises", r'''
## Exercises

### Exercise 1 ★ With a pencil (8 minutes)

(a) How many operations has a product of (5, 8) with (8, 3)? (b) A model has 10 million parameters besides its embeddings. About how many operations does training on 200 million tokens take by C ≈ 6ND? (c) At 10¹¹ operations a second and 40 % of the peak, how many hours?

### Exercise 2 ★★ Change one thing (10 minutes)

Double `d_model` and `d_ff` in `SIZES`, and run the ladder again without its lowest rung. Predict: which share of the peak will the top rung reach, more or less than before? Why?

### Exercise 3 ★★★ An open question (15 minutes)

Fit the exponent of N from three budgets instead of four, leaving each out in turn. Does the interval from the seeds cover what you find? What does that say about the interval?
''')
md("recap", r'''
## Recap

| what | in one line |
| :-- | :-- |
| operations | 2 for each multiplication with its addition; a step is three forward passes |
| C ≈ 6ND | parameters that multiply, times tokens, times 6 |
| share of the peak | counted operations per second, over what a large product reaches on the same machine |
| the ladder | few large calls instead of many small ones; nothing that nobody needs; the same gradient |
| all-reduce | every process gets the sum; divide by the labels of the whole batch |
| DDP, FSDP2 | all weights in each process, or a slice; both equal one process |
| accumulation | the same update, one piece after another |
| IsoFLOP | one budget, several sizes, a valley; its bottom moves as a power of C |
| exponents | depend on what is counted, and have an interval |

**Where you are.** 20 Speed and scale, done. Next: 21 Three families, where the same layers write, read and reason.
''')
md("solutions", "## Solutions")
SOL=["solution","hide-cell"]
def sol(id,text,extra=()):
    cells.append(new_code_cell(text.strip("\n"), id=id, metadata={"jupyter":{"outputs_hidden":True,"source_hidden":True},"tags":["solution",*extra,"hide-cell"]}))
sol("turn-flops-solution", r'''
# Solution
def one_attention(query, key, d):
    return 2 * (2 * query * d**2 + 2 * key * d**2 + 2 * query * key * d)


def flops(src, tgt, d_model, d_ff, n_layers, vocab_size):
    d, wide = d_model, 2 * 2 * d_model * d_ff
    encoder = one_attention(src, src, d) + src * wide
    decoder = one_attention(tgt, tgt, d) + one_attention(tgt, src, d) + tgt * wide
    return n_layers * (encoder + decoder) + 2 * tgt * d * vocab_size


print("Your turn, operations:", check_flops(flops))
assert check_flops(flops) == "correct"
print("a mistake:", check_flops(lambda *sizes: flops(*sizes) / 2))
''')
sol("turn-combine-solution", r'''
# Solution
def combine(gradients, tokens):
    weighted = [n * g for n, g in zip(tokens, gradients, strict=True)]
    return sum(weighted) / sum(tokens)


print("Your turn, combine:", check_combine(combine))
assert check_combine(combine) == "correct"
print("a mistake:", check_combine(lambda gs, ns: torch.stack(gs).mean(0)))
''')
sol("ex1-solution", r'''
# Solution of exercise 1
operations = 6 * 10e6 * 200e6
print("(a)", 2 * 5 * 8 * 3, f"(b) {operations:.1e}", end=" ")
print(f"(c) {operations / (0.4 * 1e11) / 3600:.0f} hours")
''')
sol("ex2-solution", r'''
# Solution of exercise 2
wider = replace(SIZES, d_model=256, d_ff=1024)
upper = [name for name in rungs if name != "loop over positions"]
tasks = {n: epoch(rungs[n], Transformer(wider), pairs, 32) for n in upper[-2:]}
for name, seconds in interleave(tasks, rounds=1).items():
    amount = 3 * sum(pair_flops(wider, len(src), len(tgt)) for src, tgt in pairs)
    print(f"{name}: {amount / median(seconds) / peak:.1%} of the peak")
# More, as a rule: wider products fill the processor better, and norms, softmax and
# Python's calls grow with the width or not at all, while products grow with its square.
''', OUT)
sol("ex3-solution", r'''
# Solution of exercise 3
stars = best[:4]
print(f"all four: {scaling.power(BUDGETS, stars)[0]:.2f}")
for out in range(4):
    left = [i for i in range(4) if i != out]
    slope = scaling.power(BUDGETS[left], stars[left])[0]
    print(f"without {BUDGETS[out]:.0e}: {slope:.2f}")
low, high = middle(exponents["without_embeddings"])
print(f"the interval from seeds: {low:.2f} to {high:.2f}")
# If it does not cover them, the line is not quite a line: the seeds' interval knows
# nothing of that, so the real uncertainty is larger.
''')
nb=new_notebook(cells=cells, metadata={"kernelspec":{"display_name":"Python 3 (ipykernel)","language":"python","name":"python3"},"language_info":{"file_extension":".py","mimetype":"text/x-python","name":"python","pygments_lexer":"ipython3"}})
nbformat.write(nb, sys.argv[1])
