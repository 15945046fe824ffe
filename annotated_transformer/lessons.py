"""What the notebooks share: claims in words, seeded numbers, small models to watch."""

import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import islice, pairwise, product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils.rnn import pad_sequence
from torch.utils.flop_counter import FlopCounterMode

from annotated_transformer import corpora
from annotated_transformer.attention import (
    MultiHeadAttention,
    attention,
    fused_attention,
)
from annotated_transformer.batches import Batch, EncodedPair, collate, epochs
from annotated_transformer.config import TransformerConfig
from annotated_transformer.decoding import greedy_search
from annotated_transformer.devices import other_attention
from annotated_transformer.errors import InputError
from annotated_transformer.files import read_json
from annotated_transformer.grammar import (
    Noun,
    Pair,
    Phrase,
    Sampler,
    Verb,
    grammar_corpus,
)
from annotated_transformer.layers import (
    Embeddings,
    FeedForward,
    PreNorm,
    Vectors,
    sinusoids,
)
from annotated_transformer.masks import causal_mask
from annotated_transformer.objectives import Objective
from annotated_transformer.recording import record_attention
from annotated_transformer.runs import encode
from annotated_transformer.schedule import cosine
from annotated_transformer.special import BOS, EOS, PAD, SPECIALS, UNK
from annotated_transformer.tokenizers import WordTokenizer
from annotated_transformer.training import adam, set_rate, train_step, validate
from annotated_transformer.transformer import EncoderLayer, Transformer
from annotated_transformer.translator import PRETRAINED, Translator


def check(ok: bool | Tensor, what: str) -> None:
    """Print a claim, and whether it holds: `ok` or `FAIL`."""
    print("ok  " if ok else "FAIL", what)


def refuted(claim: bool | Tensor, what: str) -> None:
    """Print a claim that should be false here: what a trap makes of the truth."""
    print("NOT REFUTED:" if claim else "refuted, as expected:", what)


def seeded(seed: int) -> torch.Generator:
    """A source of random numbers that are the same every time."""
    return torch.Generator().manual_seed(seed)


def influence(
    function: Callable[[Tensor], Tensor], x: Float[Tensor, "length width"]
) -> Float[Tensor, "output input"]:
    """How strongly each position of the output depends on each position of the input.

    The largest partial derivative between two positions; exactly 0 means that nothing
    flows from one to the other.
    """
    jacobian = torch.autograd.functional.jacobian(function, x)
    return jacobian.abs().amax((1, 3))


class TrainingCaptions:
    """Counts of Multi30k's training captions, for who has them; else, ours.

    The corpus may not be passed on, but numbers about it may: they ship with the model.
    `pairs` is empty where the corpus is missing.
    """

    def __init__(self) -> None:
        at_hand = corpora.multi30k_at_hand()
        self.pairs = corpora.multi30k()["train"] if at_hand else []
        self.ours = read_json(PRETRAINED / "lesson.json")

    def count(self, *patterns: str) -> int:
        r"""How many captions have all of these German words; \b is a word's edge."""
        return sum(
            all(re.search(pattern, german) for pattern in patterns)
            for german, _ in self.pairs
        )

    def show(self, **numbers: int) -> None:
        """Print the numbers; where the corpus is missing, ours of the same names."""
        for name, number in numbers.items():
            name = name.replace("_", " ")
            print(f"{name:28}{number if self.pairs else self.ours[name]:6,}")
        if not self.pairs:
            print("(our counts: Multi30k is not on this machine)")


@torch.no_grad()
def first_heads(
    model: Transformer, ids: Sequence[int]
) -> list[Float[Tensor, "heads length size"]]:
    """Queries, keys and values of the encoder's first layer for one source sentence.

    A matrix for each head, as this model makes them: the inputs of Eq. 1 (§3.2.1).
    """
    seen: list[tuple[Tensor, ...]] = []

    def attend(*arguments: Tensor, dropout: float) -> Tensor:
        seen.append(arguments[:3])
        return fused_attention(*arguments, dropout=dropout)

    with other_attention(model, lambda _: attend):
        model.encode(torch.tensor([ids]))
    return [tensor[0] for tensor in seen[0]]


def random_layers(
    n_layers: int, *, width: int = 8, seed: int = 0
) -> Float[Tensor, "n_layers 3 width width"]:
    """Matrices of queries, keys and values, untrained, for `attention_stack`."""
    size = n_layers, 3, width, width
    return torch.randn(size, generator=seeded(seed)) / math.sqrt(width)


def attention_stack(
    x: Float[Tensor, "*batch length width"],
    mask: Tensor | None,
    layers: Float[Tensor, "n_layers 3 width width"],
    attend: Callable[..., tuple[Tensor, Any]] = attention,
) -> Float[Tensor, "*batch length width"]:
    """Masked self-attention, layer upon layer; each adds what it finds to its input."""
    for query, key, value in layers:
        x = x + attend(x @ query, x @ key, x @ value, mask)[0]
    return x


class Sorter(nn.Module):
    """An encoder that learns to sort digits: embeddings, positions, stack, logits."""

    def __init__(self, config: TransformerConfig, **changes: str | int):
        super().__init__()
        model = Transformer(replace(config, **changes))  # type: ignore[arg-type]
        self.embeddings, self.positions = model.src_embeddings, model.positions
        self.encoder = model.encoder

    def forward(
        self, digits: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length vocab"]:
        """Logits of the digit at each position of the sorted row."""
        x = self.encoder(self.positions(self.embeddings(digits)), None)
        return F.linear(x, self.embeddings.weight)


class History(NamedTuple):
    """What training side by side leaves behind, a row for each model."""

    losses: Float[Tensor, "model step"]  # nats per digit
    lengths: Float[Tensor, "model step"]  # root mean square of a step, in rates


Stack = dict[str, Tensor]  # the parameters of equal models, one axis more in front


def stack_of(models: Sequence[nn.Module]) -> Stack:
    """The parameters of equal models by name, each with an axis "model" in front.

    Raises InputError for models that differ in their layers or sizes.
    """
    shapes = [{n: p.shape for n, p in model.named_parameters()} for model in models]
    if any(other != shapes[0] for other in shapes):
        raise InputError("models side by side need equal layers of equal sizes")
    return stack_module_state(list(models))[0]


def side_by_side(
    model: nn.Module, weights: Stack, inputs: Int[Tensor, "model batch length"]
) -> Float[Tensor, "model batch length vocab"]:
    """What each model of a stack says of its own inputs, all in one pass.

    `model` lends its code. `vmap` runs it with the weights and inputs of each.
    """

    def one(weights: Stack, inputs: Tensor) -> Tensor:
        return functional_call(model, weights, (inputs,))  # type: ignore[no-any-return]

    with sdpa_kernel(SDPBackend.MATH):  # attention by its formula: vmap can batch that
        return vmap(one)(weights, inputs)  # type: ignore[no-any-return]


def sorting_losses(
    logits: Float[Tensor, "model batch length vocab"],
    digits: Int[Tensor, "model batch length"],
) -> Float[Tensor, " model"]:
    """Each model's cross entropy in nats per digit; the answer is its sorted row."""
    answers = digits.sort(-1)[0]
    losses = F.cross_entropy(logits.movedim(-1, 1), answers, reduction="none")
    return losses.mean((1, 2))


def adam_step(
    weight: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: int,
    rate: Tensor,
) -> Tensor:
    """Adam with the paper's settings (§5.3), in place; returns the step in rates."""
    mean.lerp_(gradient, 1 - 0.9)
    square.lerp_(gradient.square(), 1 - 0.98)
    direction = mean / (1 - 0.9**step)
    direction /= (square / (1 - 0.98**step)).sqrt() + 1e-9
    weight -= rate * direction
    return direction


def clip_each(
    gradients: Sequence[Tensor], limits: Float[Tensor, " model"]
) -> list[Tensor]:
    """Gradients of models side by side, each model's total norm cut to its limit.

    A limit of infinity leaves a model's gradients as they are.
    """
    total = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()
    factor = (limits / total).clamp(max=1)
    return [g * factor.view(-1, *[1] * (g.dim() - 1)) for g in gradients]


def train_sorters(
    models: Sequence[Sorter],
    rates: Float[Tensor, "model step"],
    seeds: Sequence[int],
    *,
    update: Callable[..., Tensor] = adam_step,
    treat: Callable[[Sequence[Tensor], int], Sequence[Tensor]] | None = None,
) -> History:
    """Train equal models side by side to sort eight digits, each with its own rates.

    Model i reads the lists of `seeds[i]`, 16 a step: equal seeds, equal lists. `update`
    takes what `adam_step` takes; `treat` gets all gradients and the step before it, and
    may clip. The trained weights are written into the models.
    """
    weights, history = stack_of(models), []
    memories = {
        name: (w.new_zeros(w.shape), w.new_zeros(w.shape))
        for name, w in weights.items()
    }
    generators = {seed: seeded(seed) for seed in seeds}
    for step, now in enumerate(rates.T, start=1):
        lists = {
            seed: torch.randint(10, (16, 8), generator=g)
            for seed, g in generators.items()
        }
        digits = torch.stack([lists[seed] for seed in seeds])
        losses = sorting_losses(side_by_side(models[0], weights, digits), digits)
        gradients = torch.autograd.grad(losses.sum(), list(weights.values()))
        gradients = treat(gradients, step) if treat else gradients
        moved = []
        with torch.no_grad():
            for (name, w), gradient in zip(weights.items(), gradients, strict=True):
                rate = now.view(-1, *[1] * (w.dim() - 1))  # each model has its own
                moved.append(
                    update(w, gradient, *memories[name], step, rate).flatten(1)
                )
        lengths = torch.cat(moved, 1).square().mean(1).sqrt()
        history.append(torch.stack([losses.detach(), lengths]))
    _write_back(weights, models)
    return History(*torch.stack(history, -1))


@torch.no_grad()
def _write_back(weights: Stack, models: Sequence[nn.Module]) -> None:
    for i, model in enumerate(models):
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name][i])


def spread(values: Sequence[float], *, digits: int = 2) -> str:
    """Mean and range over seeds, as in "0.42 (0.40 to 0.45)"."""
    mean, low, high = sum(values) / len(values), min(values), max(values)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


# --- Words in, words out (chapter 05) ---


def english_sentences(
    size: int = 3000,
) -> tuple[list[str], Int[Tensor, "sentence position"]]:
    """The words of the grammar's English (chapter 14), and its sentences as ids.

    Word 0 is padding; word 1 begins each sentence.
    """
    texts = [
        english.lower().rstrip(".").replace(",", "").split()
        for _, english in grammar_corpus(size)["train"]
    ]
    words = ["<pad>", "<s>", *sorted({word for text in texts for word in text})]
    index = {word: i for i, word in enumerate(words)}
    rows = [torch.tensor([1, *(index[word] for word in text)]) for text in texts]
    return words, pad_sequence(rows, batch_first=True)


class Reader(nn.Module):
    """Guesses each next word: embeddings, positions, one layer, and the same matrix.

    The words are multiplied by `factor`, and the sinusoids by `positions`.
    """

    def __init__(
        self, n_words: int, *, factor: float, positions: float = 1.0, d_model: int = 32
    ):
        super().__init__()
        self.embeddings, self.positions = Embeddings(n_words, d_model), positions
        nn.init.normal_(self.embeddings.weight, std=d_model**-0.5)
        self.embeddings.scale = factor
        self.query_key_value = nn.Linear(d_model, 3 * d_model)
        self.feed_forward = FeedForward(d_model, 4 * d_model)
        self.norms = nn.ModuleList([nn.LayerNorm(d_model), nn.LayerNorm(d_model)])

    def forward(
        self, ids: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length words"]:
        """Logits of the word after each word; nobody sees the future."""
        length, d_model = ids.size(1), self.embeddings.weight.size(1)
        x = self.embeddings(ids) + self.positions * sinusoids(length, d_model)
        query, key, value = self.query_key_value(x).chunk(3, -1)
        mixed = fused_attention(query, key, value, causal_mask(length))
        x = self.norms[0](x + mixed)
        x = self.norms[1](x + self.feed_forward(x))
        return F.linear(x, self.embeddings.weight)


def train_reader(
    model: Reader,
    sentences: Int[Tensor, "sentence position"],
    seed: int,
    *,
    rate: float = 0.005,
    steps: int = 200,
) -> list[float]:
    """Train on batches of 32 sentences, which the seed draws; return the losses."""
    g, losses = seeded(seed), []
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(steps):
        batch = sentences[torch.randint(len(sentences), (32,), generator=g)]
        logits, following = model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten()
        loss = F.cross_entropy(logits, following, ignore_index=0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# --- Positions (chapter 06) ---


def frequencies(d_model: int) -> Float[Tensor, " pair"]:
    """The angle by which each pair of columns turns from position to position."""
    return 10_000.0 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)


def waves(length: int, d_model: int) -> Float[Tensor, "length d_model"]:
    """The table of `sinusoids` in float64, for sums that should be exact."""
    angle = torch.arange(length)[:, None] * frequencies(d_model)  # (length, pair)
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def turn_by(angle: float) -> Float[Tensor, "2 2"]:
    """The rotation that moves the hand of one clock, (sine, cosine), by an angle."""
    cosine, sine = math.cos(angle), math.sin(angle)
    return torch.tensor([[cosine, sine], [-sine, cosine]], dtype=torch.float64)


def shift(k: float, d_model: int) -> Float[Tensor, "d_model d_model"]:
    """The rotation that moves an encoding by k positions: one block for each clock."""
    return torch.block_diag(*[turn_by(k * f) for f in frequencies(d_model).tolist()])


SYMBOLS, BACK = 16, 3  # which of 16 symbols stood three positions before?
SEEN, LONG = 16, 48  # the length in training, and the longest in the test


def finder_batch(
    n: int, length: int, generator: torch.Generator
) -> tuple[Int[Tensor, "n length"], Int[Tensor, "n answers"]]:
    """Random symbols, and the answers at the positions BACK, BACK + 1, ..."""
    ids = torch.randint(SYMBOLS, (n, length), generator=generator)
    return ids, ids[:, :-BACK]


class NoPositions(nn.Module):
    """Stands where positions would be added, and adds nothing."""

    def forward(self, x: Vectors, start: int = 0) -> Vectors:
        """Return x as it is."""
        return x


class Finder(nn.Module):
    """Embeddings, positions, one encoder layer with one head, and a score a symbol."""

    def __init__(
        self,
        positions: nn.Module,
        attend: Callable[[int, int], MultiHeadAttention] = MultiHeadAttention,
        d_model: int = 32,
    ):
        super().__init__()
        self.embeddings, self.positions = Embeddings(SYMBOLS, d_model), positions
        norms = [PreNorm(d_model, dropout=0.0) for _ in range(2)]
        self.layer = EncoderLayer(attend(d_model, 1), FeedForward(d_model, 64), norms)
        self.scores = nn.Sequential(nn.LayerNorm(d_model), nn.Linear(d_model, SYMBOLS))
        for name, parameter in self.named_parameters():
            if "embeddings" in name or "positions" in name:
                nn.init.normal_(parameter, std=d_model**-0.5)  # as the model does

    def forward(
        self, ids: Int[Tensor, "batch length"], start: int = 0
    ) -> Float[Tensor, "batch length symbols"]:
        """Scores of the symbols at each position; the first one is number `start`."""
        x = self.positions(self.embeddings(ids), start)
        return self.scores(self.layer(x, None))  # None: no mask


def train_finder(
    make_model: Callable[[], Finder], seed: int, *, latest: int = 0, steps: int = 250
) -> tuple[Finder, list[float]]:
    """Train on SEEN positions; return the model and its losses.

    Each batch starts at a random position from 0 to `latest`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # decides the first weights
        model, g, losses = make_model(), seeded(seed), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, steps)
    for _ in range(steps):
        ids, answers = finder_batch(64, SEEN, g)
        start = int(torch.randint(latest + 1, (), generator=g))
        scores = model(ids, start)[:, BACK:]
        loss = F.cross_entropy(scores.flatten(0, 1), answers.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return model.eval(), losses


@torch.no_grad()
def finder_accuracy(model: Finder, length: int) -> Float[Tensor, " answers"]:
    """Right answers on new sequences, in percent, from position BACK on."""
    ids, answers = finder_batch(1000, length, seeded(99))
    hits = model(ids)[:, BACK:].argmax(-1) == answers
    return 100 * hits.float().mean(0)


# --- Subwords (chapter 13) ---

SymbolPair = tuple[str, str]
Cuts = dict[str, list[str]]  # each word, and the symbols that it is cut into


def pair_counts(cuts: Cuts, frequency: dict[str, int]) -> Counter[SymbolPair]:
    """How often each two symbols stand side by side in the text."""
    counts: Counter[SymbolPair] = Counter()
    for word, symbols in cuts.items():
        for pair in pairwise(symbols):  # (first, second), (second, third), ...
            counts[pair] += frequency[word]
    return counts


def merge(symbols: list[str], pair: SymbolPair) -> list[str]:
    """Join the pair wherever it stands, from left to right."""
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged


def best_pair(counts: Counter[SymbolPair]) -> SymbolPair:
    """The most frequent; of equals, the shortest piece, then by the alphabet."""
    return min(counts, key=lambda p: (-counts[p], len("".join(p)), "".join(p)))


def learn_merges(
    frequency: dict[str, int], n_merges: int, choose: Any = best_pair
) -> tuple[list[tuple[SymbolPair, int]], Cuts]:
    """Byte-pair encoding (§5.1): each merge with its count, and the words cut so."""
    cuts, learned = {word: list(word) for word in frequency}, []
    for _ in range(n_merges):
        counts = pair_counts(cuts, frequency)
        pair = choose(counts)
        learned.append((pair, counts[pair]))
        cuts = {word: merge(symbols, pair) for word, symbols in cuts.items()}
    return learned, cuts


def cut_word(word: str, ranks: dict[str, int]) -> list[str]:
    """Cut a new word as SentencePiece does: the piece learned first is joined first."""
    symbols = list(word)
    while True:
        joined = [a + b for a, b in pairwise(symbols)]
        known = [piece for piece in joined if piece in ranks]
        if not known:
            return symbols
        i = joined.index(min(known, key=ranks.__getitem__))  # of equals, the leftmost
        symbols[i : i + 2] = [joined[i]]


# --- Why attention (chapter 01) ---

Layer = Callable[[Tensor], Tensor]


def layers_needed(make: Callable[[int], Layer], x: Float[Tensor, "n d"]) -> int:
    """How many layers it takes until the last of n positions hears the first (§4).

    `make(level)` is the layer of a level, 0 for the lowest. Layers are added until the
    gradient of the last output reaches position 0.
    """
    first = x.clone().requires_grad_()
    top, level = first, 0
    while True:
        top, level = make(level)(top), level + 1
        (gradient,) = torch.autograd.grad(top[-1].sum(), first, retain_graph=True)
        if gradient[0].any():
            return level


def longest_chain(tensor: Tensor) -> int:
    """How many operations had to wait for one another to make a tensor (§4).

    PyTorch keeps a node for each operation, for the gradient. The chain up to a node is
    1 plus the longest one among those it waited for.
    """
    length: dict[Any, int] = {None: 0}
    todo: list[Any] = [tensor.grad_fn] if tensor.grad_fn else []
    while todo:
        node = todo[-1]
        before = [other for other, _ in node.next_functions]
        unknown = [other for other in before if other not in length]
        if unknown:
            todo += unknown  # first find out about those
        else:
            length[todo.pop()] = 1 + max((length[o] for o in before), default=0)
    return length[tensor.grad_fn]


def operations(layer: Layer, *shape: int) -> int:
    """Multiplications, each with its addition, of one pass for an input of a shape.

    Counted in the products and convolutions that PyTorch knows of, on the device
    "meta", where nothing is computed. The layer must be there, too.
    """
    with FlopCounterMode(display=False) as counter:
        layer(torch.empty(*shape, device="meta"))
    return int(counter.get_total_flops()) // 2


NAMES, VALUES = 16, 8
Numbers = Int[Tensor, " batch"]
Pairs = Int[Tensor, "batch pairs"]
Task = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]


def recall(
    g: torch.Generator, pairs: int, batch: int = 64
) -> tuple[Pairs, Pairs, Numbers, Numbers]:
    """Lists of names, each with a value; the name asked for; and its value.

    The names in a list are all different.
    """
    shuffled = torch.rand(batch, NAMES, generator=g).argsort(1)  # each row: 0 to 15
    names = shuffled[:, :pairs]
    values = torch.randint(VALUES, (batch, pairs), generator=g)
    asked = torch.randint(pairs, (batch, 1), generator=g)  # the position of the pair
    question, answer = names.gather(1, asked), values.gather(1, asked)
    return names, values, question[:, 0], answer[:, 0]


class Recall(nn.Module):
    """Answers a question by attention to the pairs themselves."""

    def __init__(self, d: int):
        super().__init__()
        self.name, self.value = nn.Embedding(NAMES, d), nn.Embedding(VALUES, d)
        self.ask: nn.Module = nn.Linear(d, d, bias=False)
        self.offer = nn.Linear(d, 2 * d, bias=False)
        self.out = nn.Linear(d, VALUES)

    def memory(self, names: Pairs, values: Pairs) -> Float[Tensor, "batch pairs d"]:
        """One vector for each pair."""
        return self.name(names) + self.value(values)  # type: ignore[no-any-return]

    def forward(
        self, names: Pairs, values: Pairs, question: Numbers
    ) -> Float[Tensor, "batch values"]:
        """The question looks at all of the memory."""
        key, value = self.offer(self.memory(names, values)).chunk(2, -1)
        query = self.ask(self.name(question))[:, None]
        return self.out(fused_attention(query, key, value)[:, 0])


class RecallGRU(Recall):
    """Reads the pairs one by one; the question looks at all states."""

    def __init__(self, d: int):
        super().__init__(d)
        self.read = nn.GRU(d, d, batch_first=True)

    def memory(self, names: Pairs, values: Pairs) -> Float[Tensor, "batch pairs d"]:
        """The state after each pair."""
        return self.read(super().memory(names, values))[0]  # type: ignore[no-any-return]


class RecallFixed(RecallGRU):
    """Reads the pairs one by one; the question gets the last state alone."""

    def __init__(self, d: int):
        super().__init__(d)
        del self.offer
        self.ask = nn.GRUCell(d, d)  # one more recurrent step

    def forward(
        self, names: Pairs, values: Pairs, question: Numbers
    ) -> Float[Tensor, "batch values"]:
        """Whatever the answer needs has to be in one vector."""
        state = self.memory(names, values)[:, -1]
        return self.out(self.ask(self.name(question), state))


def train_recall(
    kind: type[Recall],
    d: int,
    seed: int,
    *,
    task: Task = recall,
    steps: int = 300,
    lr: float = 0.01,
) -> Recall:
    """Train on lists of 1 to 8 pairs, 64 lists a step."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # decides the first weights
        model, g = kind(d), seeded(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        pairs = int(torch.randint(1, 9, (), generator=g))
        names, values, question, answer = task(g, pairs)
        loss = F.cross_entropy(model(names, values, question), answer)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@torch.no_grad()
def recall_accuracy(model: Recall, pairs: int, task: Task = recall) -> float:
    """Right answers to 2,000 new lists of so many pairs, in percent."""
    names, values, question, answer = task(seeded(99), pairs, batch=2000)
    hits = model(names, values, question).argmax(-1) == answer
    return 100 * hits.float().mean().item()


# --- Captions with blots (chapter 11) ---


class Captions(NamedTuple):
    """Short captions of the grammar, and their words in German and in English."""

    train: Batch
    held_out: Batch
    words: tuple[list[str], list[str]]

    @property
    def config(self) -> TransformerConfig:
        """A small model for these vocabularies."""
        sizes = {"d_model": 32, "d_ff": 64, "n_heads": 2, "n_layers": 1}
        vocab_size, tgt_vocab_size = map(len, self.words)
        return TransformerConfig(
            vocab_size=vocab_size,
            tgt_vocab_size=tgt_vocab_size,
            norm="pre",
            dropout=0.0,
            **sizes,  # type: ignore[arg-type]
        )

    def in_words(self, pairs: Batch) -> list[tuple[str, ...]]:
        """Each pair as text, without padding and without its start and end."""
        sides = zip(self.words, (pairs.src.tolist(), pairs.tgt.tolist()), strict=True)
        texts = (
            [" ".join(words[i] for i in ids if i > EOS) for ids in rows]
            for words, rows in sides
        )
        return list(zip(*texts, strict=True))


@cache
def captions(longest: int = 40) -> Captions:
    """All short captions among 20,000, a fifth of them held out; no two are alike.

    The words are those of the training sentences. A held-out sentence with another
    English word is left out: no model could say it. (Seed 1, since the settings of the
    chapter were chosen with seed 0.)
    """
    corpus = grammar_corpus(20_000, seed=1)["train"]
    train, held_out = (
        [[side.split() for side in p] for p in part if max(map(len, p)) <= longest]
        for part in (corpus[:16_000], corpus[16_000:])
    )
    words = tuple(
        [*SPECIALS, *sorted({word for pair in train for word in pair[side]})]
        for side in (0, 1)
    )
    ids = [{word: i for i, word in enumerate(some)} for some in words]

    def encoded(pairs: list[list[list[str]]]) -> Batch:
        rows = [
            [[*(ids[i].get(word, UNK) for word in pair[i]), EOS] for i in (0, 1)]
            for pair in pairs
        ]
        return collate([(src, tgt) for src, tgt in rows if UNK not in tgt])

    return Captions(encoded(train), encoded(held_out), words)  # type: ignore[arg-type]


def choose(pairs: Batch, rows: slice | Tensor) -> Batch:
    """Some of the pairs, still padded as before."""
    return Batch(pairs.src[rows], pairs.tgt[rows])


def blotted(pairs: Batch, generator: torch.Generator, share: float = 0.1) -> Batch:
    """The same pairs, a share of the German words made illegible: they become UNK."""
    hit = torch.rand(pairs.src.shape, generator=generator) < share
    return Batch(pairs.src.masked_fill(hit & (pairs.src > UNK), UNK), pairs.tgt)


class Reading(NamedTuple):
    """What a model says at each real label, when it reads the right words before it."""

    loss: Float[Tensor, " label"]  # plain, in nats
    hits: Bool[Tensor, " label"]  # is its first choice right?
    certainty: Float[Tensor, " label"]  # the probability of its first choice


@torch.no_grad()
def reading(model: Transformer, pairs: Batch) -> Reading:
    """Measure a model on these pairs, in `eval()`; padding takes no part."""
    model.eval()
    real = pairs.labels != PAD
    labels = pairs.labels[real] - 1
    log_q = model(pairs.src, pairs.tgt_in)[real][:, 1:].log_softmax(-1)
    highest, choice = log_q.max(-1)
    loss = -log_q.gather(-1, labels[:, None])[:, 0]
    return Reading(loss, choice == labels, highest.exp())


class Trained(NamedTuple):
    """A model's reading of the held-out captions, and its losses on the way there."""

    final: Reading
    losses: Float[Tensor, "look 2"]  # plain: some training sentences, held out


def train_on_captions(
    sentences: int,
    seed: int,
    *,
    steps: int,
    smoothing: float = 0.0,
    dropout: float = 0.0,
    make_objective: Callable[..., Objective] = Objective,
    looks: int = 1,
) -> Trained:
    """Train a small model on the first so many captions, 32 in each step.

    Blots fall anew at each step. The seed decides the first weights, which sentences
    are drawn, and the blots: runs that differ in smoothing alone share all of these.
    """
    data, draw = captions(), seeded(seed)
    train, held_out = (blotted(part, seeded(99)) for part in data[:2])
    known = choose(train, slice(min(sentences, 150)))
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # for the weights and for dropout
        model = Transformer(replace(data.config, dropout=dropout))
        objective, optimizer = make_objective(model, smoothing), adam(model)
        for step in range(1, steps + 1):
            set_rate(optimizer, cosine(step, peak=0.01, warmup=25, total=steps))
            rows = torch.randint(sentences, (32,), generator=draw)
            batch = blotted(choose(data.train, rows), draw)
            model.train()  # `reading` leaves it in eval()
            train_step(objective, optimizer, [batch], n_tokens=batch.n_tokens)
            if step * looks % steps < looks:
                parts = known, held_out
                losses.append([reading(model, p).loss.mean() for p in parts])
        return Trained(reading(model, held_out), torch.tensor(losses))


def by_seed(runs: Sequence[Trained], what: str) -> Float[Tensor, " run"]:
    """The mean of a reading's `loss`, `hits` or `certainty`, a number for each run."""
    return torch.stack([getattr(run.final, what).float().mean() for run in runs])


# --- The whole model beside PyTorch's (chapter 08) ---


@torch.no_grad()
def shaken(model: nn.Module, *, by: float = 0.1, seed: int = 0) -> nn.Module:
    """The same model, each weight moved a little: no gain is 1, and no bias 0."""
    g = seeded(seed)
    for parameter in model.parameters():
        parameter.add_(by * torch.randn(parameter.shape, generator=g))
    return model


Twins = Iterator[tuple[Tensor, Tensor]]


def layer_pairs(ours: Any, theirs: Any) -> Twins:
    """The weights of one of our layers, each with its namesake in one of PyTorch's."""
    attentions = {"self_attention": "self_attn"}
    if hasattr(ours, "cross_attention"):  # a notebook's own DecoderLayer, too
        attentions["cross_attention"] = "multihead_attn"
    for our_name, their_name in attentions.items():
        a, b = getattr(ours, our_name), getattr(theirs, their_name)
        yield a.query_key_value.weight, b.in_proj_weight
        yield a.output.weight, b.out_proj.weight
    modules: list[tuple[Any, Any]] = [
        (ours.feed_forward.widen, theirs.linear1),
        (ours.feed_forward.narrow, theirs.linear2),
    ]
    for i, residual in enumerate(ours.residuals, 1):
        modules.append((residual.norm, getattr(theirs, f"norm{i}")))
    for a, b in modules:
        yield from zip(a.parameters(), b.parameters(), strict=True)


def weight_pairs(model: Transformer, twin: nn.Transformer) -> Twins:
    """All weights of our two stacks, each with its namesake in PyTorch's model."""
    for ours, theirs in ((model.encoder, twin.encoder), (model.decoder, twin.decoder)):
        for a, b in zip(ours.layers, theirs.layers, strict=True):
            yield from layer_pairs(a, b)
        if model.config.norm == "pre":
            norms = ours.norm.parameters(), theirs.norm.parameters()
            yield from zip(*norms, strict=True)


@torch.no_grad()
def torch_twin(
    model: Transformer, *, final_norms: bool | None = None
) -> nn.Transformer:
    """PyTorch's `nn.Transformer` with copies of our weights, in `eval()`.

    `final_norms` says whether a norm follows each stack: as in our model, if not given
    (PyTorch's own default is True). Its biases in the attention are 0, since we have
    none.
    """
    c = model.config
    sizes: dict[str, Any] = {
        "d_model": c.d_model,
        "nhead": c.n_heads,
        "dim_feedforward": c.d_ff,
        "dropout": 0.0,
        "batch_first": True,
        "norm_first": c.norm == "pre",
    }
    normed = c.norm == "pre" if final_norms is None else final_norms
    norms = [nn.LayerNorm(c.d_model) if normed else nn.Identity() for _ in range(2)]
    twin = nn.Transformer(
        **sizes,
        custom_encoder=nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**sizes),
            c.n_layers,
            norms[0],
            enable_nested_tensor=False,
        ),
        custom_decoder=nn.TransformerDecoder(
            nn.TransformerDecoderLayer(**sizes), c.n_layers, norms[1]
        ),
    )
    twin = twin.to(model.tgt_embeddings.weight.dtype).eval()
    for name, parameter in twin.named_parameters():
        if name.endswith(("in_proj_bias", "out_proj.bias")):
            parameter.zero_()
    for ours, theirs in weight_pairs(model, twin):
        theirs.copy_(ours)
    return twin


def twin_features(
    twin: nn.Transformer,
    model: Transformer,
    src: Int[Tensor, "batch src"],
    tgt: Int[Tensor, "batch tgt"],
) -> Float[Tensor, "batch tgt d_model"]:
    """What PyTorch's two stacks make of our embeddings: compare `model.features`.

    Its masks are turned around: True means "may not look".
    """
    features: Tensor = twin(
        model.embed(model.src_embeddings, src),
        model.embed(model.tgt_embeddings, tgt),
        tgt_mask=~causal_mask(tgt.size(1)),
        src_key_padding_mask=src == PAD,
        memory_key_padding_mask=src == PAD,
        tgt_key_padding_mask=tgt == PAD,  # ours needs none: padding comes last
    )
    return features


# --- A language whose answers are known (chapter 14) ---


class Made(NamedTuple):
    """What a sentence of the grammar is made of."""

    used: set[str]  # combinations, such as "klein Hund" and "... malt"
    notes: set[str]  # its pattern; "separable verb", "plural", "compound"


class Witness(Sampler):
    """Draws what a `Sampler` draws, and notes what each sentence is made of."""

    def __init__(self, seed: int):
        super().__init__(seed)
        self.notes: set[str] = set()

    def sentence(self) -> Pair | None:
        """Draw a sentence, as the grammar does."""
        self.notes = set()
        return super().sentence()

    def clause(self, pattern: str, verb: Verb, subject: Phrase) -> dict[str, Pair]:
        """Note the pattern, and whether the verb is cut in two."""
        self.notes |= {pattern.removesuffix(" first")}
        self.notes |= {"separable verb"} if verb.prefix else set()
        return super().clause(pattern, verb, subject)

    def phrase(self, noun: Noun, case: str, is_plural: bool | None = None) -> Phrase:
        """Note plurals and compounds."""
        phrase = super().phrase(noun, case, is_plural)
        plain, _ = noun.inflect(case, phrase.is_plural)
        self.notes |= {"plural"} if phrase.is_plural else set()
        last = phrase.words[0].split()[-1]
        self.notes |= {"compound"} if last != plain else set()
        return phrase

    def made(self) -> Made:
        """What the last sentence is made of."""
        return Made(set(self.used), set(self.notes))


def witnessed(pairs: Collection[Pair], seed: int = 0) -> dict[Pair, Made]:
    """What each of these pairs of `grammar_corpus` is made of: drawn again, watched.

    Raises InputError if the seed does not draw them.
    """
    found: dict[Pair, Made] = {}
    wanted, witness, waited = set(pairs), Witness(seed), 0
    while len(found) < len(wanted):
        pair, waited = witness.sentence(), waited + 1
        if pair in wanted and pair not in found:
            found[pair], waited = witness.made(), 0
        if waited > 20_000:
            missing = len(wanted) - len(found)
            raise InputError(f"{missing} of the pairs are not drawn with seed {seed}")
    return {pair: found[pair] for pair in pairs}


def train_small(
    model: Transformer,
    pairs: Sequence[EncodedPair],
    seed: int,
    *,
    steps: int,
    tokens: int,
    peak: float,
) -> Iterator[tuple[float, int]]:
    """Chapter 09's loop on batches of `tokens`: the loss of each, and its tokens."""
    objective, optimizer = Objective(model, smoothing=0.1), adam(model)
    stream = islice(epochs(pairs, tokens, seed=seed), steps)
    for step, (_, chosen) in enumerate(stream, start=1):
        set_rate(optimizer, cosine(step, peak=peak, warmup=60, total=steps))
        batch = collate(chosen)
        n = batch.n_tokens
        model.train()
        yield train_step(objective, optimizer, [batch], n_tokens=n, clip=1.0) / n, n


# --- Scores and averages (chapter 16) ---

Texts = Sequence[Sequence[str]]  # the words of each sentence


def ngrams(words: Sequence[str], n: int) -> Counter[tuple[str, ...]]:
    """How often each n words in a row occur."""
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1))


def statistics(hypotheses: Texts, references: Texts) -> Float[Tensor, "sentence ten"]:
    """All that BLEU asks: 2 lengths, 4 counts of matches, 4 counts of n-grams."""
    rows = []
    for ours, theirs in zip(hypotheses, references, strict=True):
        found = {n: ngrams(ours, n) for n in (1, 2, 3, 4)}
        matches = [(found[n] & ngrams(theirs, n)).total() for n in found]
        totals = [found[n].total() for n in found]
        rows.append([len(ours), len(theirs), *matches, *totals])
    return torch.tensor(rows, dtype=torch.float64)


def bleu_of(rows: Float[Tensor, "*rows ten"]) -> Float[Tensor, "*rows"]:
    """BLEU from 0 to 100, of a sum of rows or of each row alone; no smoothing."""
    h, r, matches, total = rows.split([1, 1, 4, 4], -1)
    precision = matches / total.clamp(min=1)
    brevity = (1 - r / h).clamp(max=0).exp()[..., 0]
    return 100 * brevity * precision.log().mean(-1).exp()  # log 0 = -inf gives 0


def draws(n: int, repeats: int = 2000, *, seed: int = 0) -> Float[Tensor, "repeats n"]:
    """How often each of n sentences comes when n are drawn with replacement."""
    chosen = torch.randint(n, (repeats, n), generator=seeded(seed))
    times = torch.zeros(repeats, n, dtype=torch.float64)
    return times.scatter_add_(1, chosen, torch.ones_like(times))


def interval(values: Float[Tensor, " repeats"]) -> tuple[float, float]:
    """Where 95 of 100 values lie: cut off 2.5 % at each end."""
    low, high = values.quantile(values.new_tensor([0.025, 0.975])).tolist()
    return low, high


Weights = dict[str, Tensor]


def mean_weights(checkpoints: Sequence[Weights]) -> Weights:
    """The mean of several models' weights, name by name (§6.1)."""
    names = checkpoints[0]
    return {k: torch.stack([c[k] for c in checkpoints]).mean(0) for k in names}


class Forks:
    """Training that splits: one end at a constant rate, one at a rate that falls to 0.

    A small Transformer learns short sentences of the grammar (chapter 14) up to the
    update `fork`. From there it goes on twice, to `end`, a checkpoint `every` updates.
    """

    def __init__(
        self, *, fork: int = 300, end: int = 340, every: int = 8, size: int = 20_000
    ):
        self.fork, self.end, self.every = fork, end, every
        corpus = {
            split: [p for p in pairs if max(len(text.split()) for text in p) <= 11]
            for split, pairs in grammar_corpus(size).items()
        }
        words = WordTokenizer.train(corpus["train"])
        self.pairs = encode(corpus["train"][:8000], words)
        self.held = encode(corpus["test"], words)
        self.config = TransformerConfig(
            vocab_size=words.source_vocab_size,
            tgt_vocab_size=words.target_vocab_size,
            d_model=64,
            d_ff=256,
            n_heads=4,
            n_layers=1,
            norm="pre",
        )
        self.probe = Transformer(self.config).eval()

    def rate(self, kind: str, step: int) -> float:
        """The learning rate of update `step`, counted from 0; "constant" or not."""
        risen = 0.005 * min(1, (step + 1) / 50)  # 50 steps of warmup
        left = min(1, (self.end - step - 1) / (self.end - self.fork))
        return risen if kind == "constant" else risen * left

    def run(self, seed: int) -> dict[str, list[Weights]]:
        """The checkpoints after the fork, of both ends."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)  # decides the first weights
            model = Transformer(self.config)
            optimizer = adam(model)
            self._train(model, optimizer, seed, range(self.fork), "constant")
            fork = deepcopy((model.state_dict(), optimizer.state_dict()))
            kept = {}
            for kind in ("constant", "decaying"):
                model.load_state_dict(fork[0])
                optimizer.load_state_dict(deepcopy(fork[1]))
                span = range(self.fork, self.end)
                kept[kind] = self._train(model, optimizer, seed, span, kind)
        return kept

    def _train(
        self,
        model: Transformer,
        optimizer: torch.optim.Optimizer,
        seed: int,
        span: range,
        kind: str,
    ) -> list[Weights]:
        kept = []
        stream = epochs(self.pairs, 400, seed=seed, first_step=span.start)
        objective = Objective(model, smoothing=0.1)
        for step, (_, chosen) in zip(span, stream, strict=False):
            model.train()
            torch.manual_seed(1000 * seed + step)  # for dropout
            set_rate(optimizer, self.rate(kind, step))
            batch = collate(chosen)
            train_step(objective, optimizer, [batch], n_tokens=batch.n_tokens, clip=1.0)
            if (step + 1 - self.fork) % self.every == 0:
                kept.append(deepcopy(model.state_dict()))
        return kept

    def loss(self, weights: Weights) -> float:
        """Nats per token of the held-out sentences, without label smoothing."""
        self.probe.load_state_dict(weights)
        return validate(Objective(self.probe, 0.0), self.held, 4000)


# --- How sure is a difference? (chapter 15) ---


def bleu_rows(
    outputs: Sequence[str], references: Sequence[str]
) -> Float[Tensor, "sentence 10"]:
    """What BLEU counts in each sentence: both lengths, 4 hits, 4 totals."""
    from sacrebleu.metrics import BLEU

    metric, rows = BLEU(), []
    for output, reference in zip(outputs, references, strict=True):
        score = metric.corpus_score([output], [[reference]])
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return torch.tensor(rows).double()


def bleu_gain(
    before: Sequence[str], after: Sequence[str], references: Sequence[str]
) -> tuple[float, float, float]:
    """How much BLEU rises, and the ends of its 95 % interval (paired bootstrap).

    Both are scored on the same sentences, drawn again and again with replacement.
    """
    one, two = (bleu_rows(texts, references) for texts in (before, after))
    low, high = bleu_lost(two, one).tolist()  # on the way back
    gain = bleu_of(two.sum(0)) - bleu_of(one.sum(0))
    return gain.item(), low, high


# --- Looking inside (chapter 17) ---

Head = tuple[str, int, int]  # kind, layer, head
Span = tuple[str, list[int]]  # a word, and the positions of its pieces
Maps = dict[str, Tensor]  # by kind, each (layer, head, query, key)

ATTENTIONS = {  # the names of the modules, by kind; each has a number for the layer
    "encoder": "encoder.layers.{}.self_attention",
    "decoder": "decoder.layers.{}.self_attention",
    "cross": "decoder.layers.{}.cross_attention",
}


@torch.no_grad()
def watch(model: Transformer, source: Sequence[int], output: Sequence[int]) -> Maps:
    """Every map of one translation, by kind, each (layer, head, query, key)."""
    with record_attention(model) as maps:
        model(torch.tensor([source]), torch.tensor([[BOS, *output]]))
    layers = range(model.config.n_layers)
    return {
        kind: torch.stack([maps[name.format(n)][0] for n in layers])
        for kind, name in ATTENTIONS.items()
    }


def all_heads(model: Transformer) -> list[Head]:
    """Every attention head of a model: encoder, decoder, then cross-attention."""
    n, h = model.config.n_layers, model.config.n_heads
    return list(product(ATTENTIONS, range(n), range(h)))


def edited(
    model: Transformer,
    heads: Iterable[Head],
    edit: Callable[[MultiHeadAttention, int], None],
) -> Transformer:
    """A copy in which `edit(attention, head)` has changed each of these heads."""
    copy = deepcopy(model)
    for kind, layer, head in heads:
        edit(copy.get_submodule(ATTENTIONS[kind].format(layer)), head)  # type: ignore
    return copy


@torch.no_grad()
def off(attention: MultiHeadAttention, head: int) -> None:
    """Silence a head: zero its columns of W^O, by which alone it is heard."""
    own = slice(head * attention.d_v, (head + 1) * attention.d_v)
    attention.output.weight[:, own] = 0


@torch.no_grad()
def flat(attention: MultiHeadAttention, head: int) -> None:
    """Let a head look everywhere alike: no queries, so all its scores are 0."""
    own = slice(head * attention.d_k, (head + 1) * attention.d_k)
    attention.query_key_value.weight[own] = 0  # W^Q comes first


def words(pieces: Sequence[str]) -> list[Span]:
    """The words that pieces make up; punctuation and the end token count as words."""
    spans: list[Span] = []
    for position, piece in enumerate(pieces):
        new = piece.startswith("▁") or not piece[0].isalnum()
        if new or not spans:
            spans.append((piece.strip("▁"), [position]))
        else:
            word, positions = spans[-1]
            spans[-1] = (word + piece, [*positions, position])
    return spans


def looks(
    weights: Float[Tensor, "*maps query key"],
    rows: Sequence[Span],
    columns: Sequence[Span],
) -> Float[Tensor, "*maps word word"]:
    """A map from word to word: sums over a column's pieces, means over a row's."""
    weights = torch.stack([weights[..., r, :].mean(-2) for _, r in rows], -2)
    return torch.stack([weights[..., c].sum(-1) for _, c in columns], -1)


def encoder_words(
    translator: Translator, sentence: str, model: Transformer | None = None
) -> tuple[list[str], Float[Tensor, "head word word"]]:
    """A sentence's words, and where each encoder head looks, from word to word.

    The heads of layer 0 come first. Another model may look at the same pieces.
    """
    model = model or translator.model
    ids = translator.encode(sentence)
    spans = words(translator.tokenizer.source_pieces(ids))
    with torch.no_grad(), record_attention(model) as maps:
        model.encode(torch.tensor([ids]))
    names = map(ATTENTIONS["encoder"].format, range(model.config.n_layers))
    weights = torch.cat([maps[name][0] for name in names])
    return [word for word, _ in spans], looks(weights, spans, spans)


# Sentences, then links by hand: English word = German word, of verbs, of nouns.
# A verb in two parts, as in hebt+auf, counts as found at either.
LINKED = [
    ("Ein Mann mit Hut lacht, während seine Frau einen Koffer trägt.",
     "laughing=lacht carrying=trägt", "man=Mann hat=Hut woman=Frau suitcase=Koffer"),
    ("Ein Kind sieht einem alten Hund beim Spielen zu.",
     "watches=sieht+zu play=Spielen", "child=Kind dog=Hund"),
    ("Zwei Männer bauen im Garten ein Zelt auf.",
     "building=bauen+auf", "men=Männer tent=Zelt yard=Garten"),
    ("Ein Mädchen schläft, während ihr Bruder ein Buch liest.",
     "sleeping=schläft reads=liest", "girl=Mädchen brother=Bruder book=Buch"),
    ("Der Hund, der einen Ball im Maul hält, rennt über die Wiese.",
     "running=rennt holding=hält", "dog=Hund grass=Wiese ball=Ball mouth=Maul"),
    ("Ein Mann, der eine Zeitung liest, sitzt auf einer Bank.",
     "reading=liest sitting=sitzt", "man=Mann newspaper=Zeitung bench=Bank"),
    ("Ein Wagen wird von zwei weißen Pferden gezogen.",
     "pulled=gezogen", "cart=Wagen horses=Pferden"),
    ("Ein Kind wird von seiner Mutter über die Straße getragen.",
     "carried=getragen", "child=Kind mother=Mutter street=Straße"),
    ("Ein Arbeiter hebt einen schweren Stein auf.",
     "picking=hebt+auf", "worker=Arbeiter rock=Stein"),
    ("Eine Frau schneidet Brot, während ein Kind auf dem Tisch sitzt.",
     "cutting=schneidet sits=sitzt", "woman=Frau bread=Brot child=Kind table=Tisch"),
    ("Eine Gruppe von Menschen hört einem Mann mit Gitarre zu.",
     "listening=hört+zu", "group=Gruppe people=Menschen man=Mann guitar=Gitarre"),
    ("Zwei Kinder warten, während ihr Vater ein Auto repariert.",
     "waiting=warten repairs=repariert", "children=Kinder father=Vater car=Auto"),
    ("Ein Mädchen in einem weißen Kleid bläst die Kerzen aus.",
     "blowing=bläst+aus", "girl=Mädchen dress=Kleid candles=Kerzen"),
    ("Ein Junge springt in die Luft, um einen Ball zu fangen.",
     "jumps=springt catch=fangen", "boy=Junge air=Luft ball=Ball"),
    ("Zwei Frauen schauen zu, wie ein Mann einen Fisch fängt.",
     "watch=schauen+zu catches=fängt", "women=Frauen man=Mann fish=Fisch"),
    ("Ein alter Mann zieht im Park seine Jacke an.",
     "pulling=zieht+an", "man=Mann jacket=Jacke park=Park"),
]  # fmt: skip


class Link(NamedTuple):
    """An English word of a translation, and what its German word is."""

    sentence: int  # of LINKED
    group: str  # verb or noun
    word: str
    right: list[int]  # the German words that count as found
    german: list[str]
    position: float  # of the English word, from 0 to 1
    writes: Float[Tensor, "layer head word"]  # where the row looks that writes it
    reads: Float[Tensor, "layer head word"]  # and the row that reads it


def linked_words(translator: Translator) -> list[Link]:
    """The links of LINKED in the translator's own greedy translations.

    Raises InputError where a translation lacks an English word of a link.
    """
    found, tokenizer = [], translator.tokenizer
    sources = [translator.encode(sentence) for sentence, *_ in LINKED]
    src = collate([(source, []) for source in sources]).src
    outputs = greedy_search(translator.model, src)
    for n, (source, output) in enumerate(zip(sources, outputs, strict=True)):
        maps = watch(translator.model, source, output)["cross"]
        rows = words(tokenizer.target_pieces([*output, EOS]))
        columns = words(tokenizer.source_pieces(source))
        english, german = ([word for word, _ in spans] for spans in (rows, columns))
        later = [(word, [i + 1 for i in positions]) for word, positions in rows[:-1]]
        writes, reads = looks(maps, rows, columns), looks(maps, later, columns)
        for group, links in zip(("verb", "noun"), LINKED[n][1:], strict=True):
            for left, right in (link.split("=") for link in links.split()):
                if left not in english:
                    raise InputError(f"{left!r} is not in {' '.join(english)!r}")
                i, at = english.index(left), [german.index(w) for w in right.split("+")]
                position = i / (len(english) - 1)
                link = n, group, left, at, german, position
                found.append(Link(*link, writes[:, :, i], reads[:, :, i]))
    return found


# Verbs in two parts, as they stand in the course's captions and in LINKED.
TWO_PART = [
    ("sieht", "zu"), ("hebt", "auf"), ("jagt", "hinterher"), ("zieht", "aus"),
    ("wiegt", "ab"), ("bläst", "aus"), ("rollt", "auf"), ("steigen", "ein"),
    ("streckt", "aus"), ("rennt", "hinterher"), ("beugt", "vor"),
    ("paddelt", "hinaus"), ("geht", "hindurch"), ("liest", "vor"), ("setzt", "auf"),
    ("wirft", "aus"), ("gibt", "vor"), ("rutscht", "hinunter"), ("probiert", "an"),
    ("hält", "zu"), ("bauen", "auf"), ("hört", "zu"), ("zieht", "an"),
    ("schieben", "hinauf"),
]  # fmt: skip


# What stands in for the stem of a two-part verb: words that no particle belongs to.
STAND_INS = {
    "nouns": "Hund Mann Frau Kind Ball Haus Baum Auto Straße Hut Wagen Tisch",
    "adjectives": "rot groß klein alt jung blau schwarz weiß grün schnell nass leer",
    "adverbs": "heute gerade oft hier dort draußen gern bald immer zusammen dann nun",
}


def two_part(sentence: str) -> tuple[str, str] | None:
    """The stem and the particle of its two-part verb, if a word stands between."""
    found = sentence.replace(",", " ,").replace(".", " .").split()
    for stem, particle in sorted(TWO_PART):
        if stem in found and particle in found:
            i, j = found.index(stem), found.index(particle)
            if j > i + 1 and found[j + 1] in ".,":
                return stem, particle
    return None


def particle_weights(
    translator: Translator,
    sentence: str,
    stem: str,
    particle: str,
    model: Transformer | None = None,
) -> tuple[Float[Tensor, " head"], Float[Tensor, " head"]]:
    """What the last such particle gives the stem, and other distant words on average.

    A number for each encoder head, those of layer 0 first.
    """
    names, weights = encoder_words(translator, sentence, model)
    i, j = names.index(stem), len(names) - 1 - names[::-1].index(particle)
    far = [k for k, word in enumerate(names) if word.isalpha() and abs(k - j) > 1]
    return weights[:, j, i], weights[:, j, [k for k in far if k != i]].mean(-1)


def stand_in_weights(
    translator: Translator, sentence: str, kind: str, *, number: int = 12, seed: int = 0
) -> Float[Tensor, " head"]:
    """What the particle gives to words in its verb's position that are not its verb.

    `kind` is "verbs", of other particles, or one of `STAND_INS`; the mean of `number`.
    """
    stem, particle = two_part(sentence) or ("", "")
    stems = sorted({s for s, _ in TWO_PART if (s, particle) not in TWO_PART})
    free = stems if kind == "verbs" else STAND_INS[kind].split()
    drawn = torch.randperm(len(free), generator=seeded(seed))[:number].tolist()
    weights = []
    for word in (free[i] for i in drawn):
        changed = sentence.replace(f" {stem} ", f" {word} ")
        weights.append(particle_weights(translator, changed, word, particle)[0])
    return torch.stack(weights).mean(0)


@torch.inference_mode()
def sentence_losses(
    model: Transformer, batch: Batch
) -> tuple[Float[Tensor, " sentence"], Int[Tensor, " sentence"]]:
    """Each sentence's loss in nats, summed over its tokens, and how many these are."""
    real = batch.labels != PAD
    logits = model.logits(model.features(batch.src, batch.tgt_in)[real])
    values = F.cross_entropy(logits, batch.labels[real], reduction="none")
    losses = torch.zeros(real.shape).masked_scatter(real, values).sum(1)
    return losses.clone(), real.sum(1)


def bootstrap(
    statistic: Callable[[Tensor], Tensor], size: int, *, draws: int = 1000
) -> Float[Tensor, "2 ..."]:
    """The middle 95 % of a statistic over resampled sentences: the bootstrap.

    `statistic` takes the numbers of the sentences, (draw, size), and returns values,
    (draw, ...).
    """
    rows = torch.randint(size, (draws, size), generator=seeded(0))
    return statistic(rows).double().quantile(torch.tensor([0.025, 0.975]).double(), 0)


def mean_interval(values: Float[Tensor, " sentence"]) -> Float[Tensor, "2"]:
    """The bootstrap interval of 95 % of a mean over sentences."""
    return bootstrap(lambda rows: values[rows].mean(1), len(values))


def bleu_lost(
    before: Float[Tensor, "sentence count"], after: Float[Tensor, "sentence count"]
) -> Float[Tensor, "2"]:
    """The bootstrap interval of 95 % of the points of BLEU that a change costs."""

    def lost(rows: Tensor) -> Tensor:
        return bleu_of(before[rows].sum(1)) - bleu_of(after[rows].sum(1))

    return bootstrap(lost, len(before))


def untrained(model: Transformer, *, seeds: Iterable[int] = range(3)) -> list[Any]:
    """Models of the same sizes, in eval(), with fresh random weights."""
    found = []
    for seed in seeds:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            found.append(Transformer(model.config).eval())
    return found


def written_log_probs(
    model: Transformer,
    memory: Float[Tensor, "variant src d_model"],
    src_mask: Bool[Tensor, "#variant 1 1 src"],
    output: Sequence[int],
) -> Float[Tensor, "variant token"]:
    """The log-probability of each written token, the end token too."""
    read = torch.tensor([[BOS, *output]]).expand(len(memory), -1)
    logits = model.logits(model.decode(read, memory, src_mask))
    labels = torch.tensor([*output, EOS])
    return logits.log_softmax(-1)[:, torch.arange(len(labels)), labels]


@torch.no_grad()
def effects(
    model: Transformer, source: Sequence[int], output: Sequence[int]
) -> dict[str, Float[Tensor, "token source"]]:
    """By how much each written token's log-probability falls without a source token.

    Four ways of being without it: without the word at the input; without it at its own
    position of the memory alone; at all the others; or without looking there.
    """
    n, diagonal = len(source), torch.eye(len(source), dtype=torch.bool)
    ids = torch.tensor(source).expand(n, -1)  # variant i will lack token i
    whole, erased = model.encode(ids), model.encode(ids.masked_fill(diagonal, UNK))
    memories = {
        "word": erased,
        "own position": torch.where(diagonal[..., None], erased, whole),
        "other positions": torch.where(diagonal[..., None], whole, erased),
        "blocked": whole,
    }
    free, hidden = torch.ones(1, 1, 1, n).bool(), ~diagonal[:, None, None]
    before = written_log_probs(model, whole[:1], free, output)
    found = {}
    for name, memory in memories.items():
        mask = hidden if name == "blocked" else free
        found[name] = (before - written_log_probs(model, memory, mask, output)).T
    return found
