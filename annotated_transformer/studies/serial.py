"""Serial computation: an answer at once, or state after state on a scratchpad.

Each question is a row of symbols, and each symbol changes a state. Every model learns
to give the state after each symbol: "direct" all in one pass; "scratchpad" one by one,
each written down, and read before the next symbol; the GRU keeps a state of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from annotated_transformer.config import TransformerConfig
from annotated_transformer.families import DecoderOnly
from annotated_transformer.recording import record_attention
from annotated_transformer.schedule import cosine
from annotated_transformer.studies import Measures, Settings, Study, rounded

CUPS = 5
SWAPS = list(combinations(range(CUPS), 2))  # the ten ways to swap two cups

Symbols = Int[Tensor, "question symbol"]
States = Int[Tensor, "question symbol"]


def parity(bits: Symbols) -> States:
    """Whether the number of ones so far is odd."""
    return bits.cumsum(-1) % 2


def addition(digits: Symbols) -> States:
    """The sum of all digits so far, modulo 5."""
    return digits.cumsum(-1) % 5


def pairs(digits: Symbols) -> States:
    """The sum of the last two digits, modulo 5; before the first one is 0."""
    return (digits + F.pad(digits, (1, -1))) % 5


def cups(swaps: Symbols) -> States:
    """Under which cup the ball is after each swap; it begins under cup 0."""
    table = torch.arange(CUPS).repeat(len(SWAPS), 1)  # (swap, cup): where it moves
    for i, (a, b) in enumerate(SWAPS):
        table[i, a], table[i, b] = b, a
    state, states = torch.zeros(len(swaps), dtype=torch.long), []
    for swap in swaps.T:
        state = table[swap, state]
        states.append(state)
    return torch.stack(states, 1)


@dataclass(frozen=True)
class Task:
    """A rule from symbols to states, and how many there are of both."""

    rule: Callable[[Symbols], States]
    n_symbols: int
    n_states: int


TASKS = {
    "parity": Task(parity, 2, 2),
    "cups": Task(cups, len(SWAPS), CUPS),
    "addition": Task(addition, 5, 5),
    "pairs": Task(pairs, 5, 5),
}

SERIAL = ("parity", "cups", "addition")  # "pairs" is the control

STATE, SYMBOL = 1, 1 + CUPS  # ids: 0 is padding, then the states, then the symbols
VOCAB = SYMBOL + len(SWAPS)
LENGTH = 16  # symbols of a question in training


def questions(task: str, n: int, length: int, g: torch.Generator) -> tuple:
    """Random questions of a task as ids, (n, length), and the right states, as ids."""
    symbols = torch.randint(TASKS[task].n_symbols, (n, length), generator=g)
    return SYMBOL + symbols, STATE + TASKS[task].rule(symbols)


def config(depth: int, width: int = 64) -> TransformerConfig:
    """A small decoder with one head, so that there is one map for each layer."""
    return TransformerConfig(
        vocab_size=VOCAB,
        d_model=width,
        d_ff=4 * width,
        n_heads=1,
        n_layers=depth,
        norm="pre",
        dropout=0.0,
    )


class NoResidual(nn.Module):
    """A sub-layer alone: what was there before is lost, if it does not keep it."""

    def __init__(self, d_model: int):
        super().__init__()
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x: Tensor, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
        """Like `PreNorm`, without "x +"."""
        return sublayer(self.norm(x))


class Recurrent(nn.Module):
    """One layer of gated recurrent units (GRU), which reads symbol after symbol."""

    def __init__(self, width: int = 64):
        super().__init__()
        self.embeddings = nn.Embedding(VOCAB, width)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.output = nn.Linear(width, VOCAB)

    def forward(
        self, ids: Int[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length vocab"]:
        """Scores of the state after each symbol."""
        return self.output(self.gru(self.embeddings(ids))[0])


def build(model: str, depth: int) -> nn.Module:
    """An untrained model, named by how it answers."""
    if model == "gru":
        return Recurrent()
    network = DecoderOnly(config(depth))
    if model == "scratchpad, no residual":
        layers: Any = network.stack.layers
        for layer in layers:
            layer.residuals[0] = NoResidual(network.config.d_model)
    return network


def reading(model: str, symbols: Symbols, states: States) -> Int[Tensor, "batch all"]:
    """What a model reads: the symbols; on a scratchpad, before each the state so far.

    The state before the first symbol is state 0. The last state is never read.
    """
    if not model.startswith("scratchpad"):
        return symbols
    start = torch.full_like(symbols[:, :1], STATE)
    before = torch.cat([start, states[:, :-1]], 1)
    return torch.stack([before, symbols], 2).flatten(1)


def scores(
    network: nn.Module, model: str, symbols: Symbols, states: States
) -> Float[Tensor, "question symbol vocab"]:
    """The scores of each state, at its symbol; a scratchpad holds the right states."""
    logits: Tensor = network(reading(model, symbols, states))
    return logits[:, 1::2] if model.startswith("scratchpad") else logits


@torch.inference_mode()
def answers(network: nn.Module, model: str, symbols: Symbols) -> States:
    """The states that a model gives on its own, at once or one after the other."""
    if not model.startswith("scratchpad"):
        return scores(network, model, symbols, symbols).argmax(-1)
    states = torch.full_like(symbols, STATE)  # what is not yet written isn't seen
    for i in range(symbols.size(1)):
        read = reading(model, symbols[:, : i + 1], states[:, : i + 1])
        states[:, i] = network(read)[:, -1].argmax(-1)
    return states


@torch.inference_mode()
def look(network: nn.Module, model: str, symbols: Symbols, states: States) -> dict:
    """How far a model is: all states right; attention on last state and own symbol."""
    with record_attention(network) as maps:
        found = scores(network, model, symbols, states).argmax(-1)
    right = found == states
    seen = {
        "all": right.all(1).double().mean().item(),  # then it also writes them so
        "last": right[:, -1].double().mean().item(),
    }
    if model.startswith("scratchpad"):
        (weights,) = maps.values()  # one layer, one head
        rows = weights[:, 0, 1::2].mean(0)  # (symbol, key)
        at = 2 * torch.arange(len(rows))  # where the state before a symbol stands
        seen["last state"] = rows.gather(1, at[:, None]).mean().item()
        seen["symbol"] = rows.gather(1, at[:, None] + 1).mean().item()
    return {name: round(x, 4) for name, x in seen.items()}


def train(
    task: str,
    model: str,
    depth: int,
    seed: int,
    *,
    steps: int,
    length: int = LENGTH,
    batch: int = 32,
    rate: float = 5e-3,
    look_every: int = 50,
) -> tuple[nn.Module, list[dict]]:
    """Train one model on fresh questions, and look at it now and then."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build(model, depth)
    g, history = torch.Generator().manual_seed(seed), []
    test = questions(task, 100, length, torch.Generator().manual_seed(1_000 + seed))
    optimizer = torch.optim.Adam(network.parameters(), betas=(0.9, 0.98))
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = cosine(step, peak=rate, warmup=steps // 20, total=steps)
        symbols, states = questions(task, batch, length, g)
        logits = scores(network, model, symbols, states)
        loss = F.cross_entropy(logits.flatten(0, 1), states.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if step % look_every == 0:
            seen = look(network, model, *test)
            history.append({"step": step, "loss": round(loss.item(), 4), **seen})
    return network, history


@torch.inference_mode()
def by_length(
    network: nn.Module, task: str, model: str, length: int, seed: int, n: int = 300
) -> Float[Tensor, " length"]:
    """How often the state after so many symbols is right, on fresh questions."""
    g = torch.Generator().manual_seed(2_000 + seed)
    symbols, states = questions(task, n, length, g)
    return (answers(network, model, symbols) == states).double().mean(0)


STEPS = 1_000  # of 32 questions each, for every model
BEYOND = 32  # twice as long as in training


def measure(run: Settings) -> Measures:
    """Train one model; accuracy by length, beyond that of training, and its way."""
    task, model, seed = run["task"], run["model"], run["seed"]
    network, history = train(task, model, run["depth"], seed, steps=STEPS)
    found = {"accuracy": by_length(network, task, model, LENGTH, seed)}
    found["beyond"] = by_length(network, task, model, BEYOND, seed)
    way = {name: [row[name] for row in history] for name in history[0]}
    return {name: rounded(values) for name, values in found.items()} | {"way": way}


STUDY = Study(
    about=(
        f"the state after each of {LENGTH} symbols, at once by decoder-only models of "
        f"depth 1, 2, 4 and a GRU, on a scratchpad at depth 1; {STEPS} steps of 32"
    ),
    runs=[
        {"task": task, "model": model, "depth": depth, "seed": seed}
        for model, depth, tasks in (
            ("scratchpad", 1, SERIAL),
            ("direct", 1, TASKS),
            ("gru", 1, SERIAL),
            ("scratchpad, no residual", 1, ("cups",)),
            ("direct", 2, ("parity", "cups")),
            ("direct", 4, ("parity", "cups")),
        )
        for task in tasks
        for seed in range(3)
    ],
    measure=measure,
)
