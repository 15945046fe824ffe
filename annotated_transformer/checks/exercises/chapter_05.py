"""Checks of chapter 05, Feed-forward, embeddings, softmax: one for each exercise."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from annotated_transformer.checks.common import (
    NOT_DONE,
    Answer,
    Mistake,
    compare,
    errors_mean,
    exercise,
    need,
    need_gradient,
    need_number,
    need_tensor,
    normal,
)
from annotated_transformer.layers import Embeddings

__all__ = [
    "check_feed_forward",
    "check_gated",
    "check_gradient",
    "check_in_and_out",
    "check_push",
    "check_tie",
]


def _case(*shapes: tuple[int, ...]) -> list[Tensor]:
    return [normal(*shape, seed=i) for i, shape in enumerate(shapes)]


def _eq_2(x: Tensor, W1: Tensor, b1: Tensor, W2: Tensor, b2: Tensor) -> Tensor:
    return F.relu(x @ W1 + b1) @ W2 + b2


@exercise
def check_feed_forward(function: Answer) -> None:
    """`my_feed_forward(x, W1, b1, W2, b2)`: Eq. 2 with tensors."""
    case = _case((2, 3, 5), (5, 11), (11,), (11, 5), (5,))
    x, W1, b1, W2, b2 = case
    right, hidden = _eq_2(*case), x @ W1 + b1
    try:
        answer = function(*case)
    except (RuntimeError, TypeError) as error:
        shapes = "shapes cannot" in str(error) or "size" in str(error)
        fit = f"the shapes don't fit: W1 first, without a transpose ({error})"
        alone = f"does your max take each number alone, as clamp does? ({error})"
        raise Mistake(fit if shapes else alone) from None
    compete = "no softmax: hidden units don't compete"
    compare(
        need_tensor(answer, (2, 3, 5)),
        right,
        (
            (hidden @ W2 + b2, "there is no bend: where is max(0, .)?"),
            (F.relu(x @ W1) @ W2 + b2, "is b1 forgotten?"),
            (F.relu(hidden) @ W2, "is b2 forgotten?"),
            (F.relu(x @ W1) @ W2, "both biases are forgotten"),
            (
                _eq_2(x, W1, 0 * b1, W2, b1 @ W2 + b2),
                "b1 comes before the max, not after",
            ),
            (F.relu(hidden @ W2 + b2), "the max stands between the maps, not last"),
            (F.relu(right), "one max only: outputs may be negative"),
            (F.relu(x) @ W1 @ W2 + b1 @ W2 + b2, "the max stands between, not first"),
            (_eq_2(x, W2.T, b1, W1.T, b2), "W1 and W2 have changed places"),
            (F.gelu(hidden) @ W2 + b2, "that is GELU; Eq. 2 has max(0, .)"),
            (hidden.abs() @ W2 + b2, "that is |.|: negative numbers become 0"),
            (hidden.softmax(-1) @ W2 + b2, compete),
        ),
        "other numbers than Eq. 2",
    )
    wide = _case((1, 1, 32), (32, 128), (128,), (128, 32), (32,))
    compare(function(*wide), _eq_2(*wide), hint="one word, d_model = 32, d_ff = 128")
    loud = [100 * x, *case[1:]]
    compare(function(*loud), _eq_2(*loud), hint="x a hundred times as large")
    need_gradient(function, _eq_2, *case)


@exercise
def check_in_and_out(embed: Answer, logits: Answer) -> None:
    """`my_embed(ids, E)` and `my_logits(features, E)`: in and out by one matrix."""
    ids, E = torch.tensor([[1, 2, 1], [5, 6, 0]]), normal(7, 5)
    features, answer = normal(2, 3, 5), embed(ids, E)
    with errors_mean("my_embed: {error}", Mistake):
        _embedded(answer, E[ids])
        more = normal(50, 16), torch.arange(50).reshape(5, 10)
        compare(embed(more[1], more[0]), 4 * more[0][more[1]], hint="d_model = 16")
        need_gradient(embed, lambda ids, E: math.sqrt(5) * E[ids], ids, E)
    with errors_mean("my_logits: {error}", Mistake):
        with errors_mean("the last axes don't fit: E is (vocab, d_model) ({error})"):
            answer = logits(features, E)
        _scored(answer, features @ E.T)
        more = normal(1, 1, 16), normal(50, 16)
        compare(logits(*more), more[0] @ more[1].T, hint="50 tokens, d_model = 16")
        need_gradient(logits, lambda features, E: features @ E.T, features, E)


def _embedded(answer: Any, rows: Tensor) -> None:
    root = math.sqrt(rows.size(-1))
    mistakes = (
        (rows, "the factor is missing"),
        (rows * rows.size(-1), "d_model instead of its root"),
        (rows / root, "multiplied, not divided"),
        (rows * math.sqrt(7), "the root of d_model, not of the vocabulary's size"),
        (rows * math.sqrt(3), "the root of d_model, not of the length"),
    )
    hint = "the rows that the ids name, times the root of d_model"
    compare(need_tensor(answer, (2, 3, 5)), root * rows, mistakes, hint)


def _scored(answer: Any, right: Tensor) -> None:
    root = math.sqrt(5)
    mistakes = (
        (right * root, "no factor on the way out: the rows as they are"),
        (right / root, "no factor on the way out: the rows as they are"),
        (right.softmax(-1), "that is the softmax of the logits"),
        (right.log_softmax(-1), "that is the log softmax of the logits"),
    )
    hint = "features times each row of E, by a dot product"
    compare(need_tensor(answer, (2, 3, 7)), right, mistakes, hint)


@exercise
def check_push(answer: Answer) -> None:
    """`my_push`: p - y for three tokens, and the gradient of the right one's row."""
    given: Any = answer.function
    need(isinstance(given, dict) and set(given) == {"logits", "row"}, "keep both names")
    lists = all(isinstance(given[name], list | tuple) for name in given)
    sizes = lists and (len(given["logits"]), len(given["row"])) == (3, 2)
    need(sizes, "three numbers are needed for the logits, and two for the row")
    open_still = any(x is None or x is ... for x in (*given["logits"], *given["row"]))
    need(not open_still, NOT_DONE)
    logits, row = ([need_number(x) for x in given[name]] for name in ("logits", "row"))
    logit_mistakes = [
        ([1 / 8, 2 / 8, 5 / 8], "that is p: now subtract y"),
        ([-1 / 8, 6 / 8, -5 / 8], "that is y - p: the gradient is p - y"),
        ([-7 / 8, 2 / 8, 5 / 8], "token 1 is right, and we count from 0"),
        ([0, -1 / 3, 1], "the logits are 0, ln 2, ln 5: p comes from 1, 2, 5"),
    ]
    with errors_mean("logits: {error}", Mistake):
        compare(logits, [1 / 8, -6 / 8, 5 / 8], logit_mistakes, tolerance=0.01)
    row_mistakes = [
        ([3, -6], "which sign has p - y for the right token?"),
        ([1, -2], "that is p times the features: the right token has p - 1"),
        ([0.5, -1], "that is the row of token 0"),
        ([2.5, -5], "that is the row of token 2"),
    ]
    with errors_mean("row: {error}", Mistake):
        compare(row, [-3, 6], row_mistakes, tolerance=0.01)


def _look_up_gradient(ids: Tensor, upstream: Tensor, vocab_size: int) -> Tensor:
    weight = torch.zeros(vocab_size, upstream.size(-1), requires_grad=True)
    output = F.embedding(ids, weight) * math.sqrt(upstream.size(-1))
    return torch.autograd.grad(output, weight, upstream)[0]


@exercise
def check_gradient(function: Answer) -> None:
    """`my_gradient(ids, upstream, ...)`: the gradient of a look-up."""
    ids, upstream = torch.tensor([[1, 2, 1], [5, 2, 0]]), normal(2, 3, 5)
    right, root = _look_up_gradient(ids, upstream, 7), math.sqrt(5)
    written_once = torch.zeros(7, 5)
    written_once[ids] = upstream
    uses = torch.bincount(ids.flatten(), minlength=7)[:, None].clamp(min=1)
    without_padding = right * (torch.arange(7) > 0)[:, None]
    factor = "the factor is forgotten: what multiplied the rows going in?"
    divided = "multiplied going in, so multiplied coming back, not divided"
    once = "only one use of a token counts, and the factor is missing"
    compare(
        need_tensor(function(ids, upstream, 7), (7, 5)),
        right,
        (
            (right / root, factor),
            (right / 5, divided),
            (right * root, "d_model instead of its root"),
            (right / root * 5 / 2, "half of d_model instead of its root"),
            (right / uses, "a sum over the uses of a token, not their mean"),
            (without_padding, "token 0 is a row like the others here"),
            (root * written_once, "tokens 1 and 2 occur twice: only one use counts"),
            (written_once, once),
        ),
        "a row is the root of d_model times the sum over its token's uses",
    )
    many = torch.arange(600).reshape(3, 200) ** 2 % 512
    for ids, width, size in ((many, 16, 512), (torch.tensor([[3]]), 2, 4)):
        upstream, case = normal(*ids.shape, width), f"{ids.numel()} tokens, {size} rows"
        expected = _look_up_gradient(ids, upstream, size)
        compare(function(ids, upstream, size), expected, hint=case)


class Broken(nn.Module):
    """A model that was meant to share one matrix three ways."""

    def __init__(
        self, vocab_size: int = 8, d_model: int = 4, *, untied: bool = False
    ) -> None:
        super().__init__()
        self.source = Embeddings(vocab_size, d_model)
        self.target = Embeddings(vocab_size, d_model)
        self.output = nn.Linear(d_model, vocab_size, bias=False)
        for embeddings in (self.source, self.target):
            nn.init.normal_(embeddings.weight, std=d_model**-0.5)
        if untied:  # nothing shared yet: the two lines, run here, fail as they did
            return
        self.output.weight = self.target.weight  # the output is the target's
        self.target.weight = self.source.weight  # the target is the source's


@exercise
def check_tie(function: Answer) -> None:
    """`my_tie(model)`: one matrix for source, target and output."""
    for vocab_size, d_model, untied in ((8, 4, False), (8, 4, True), (50, 16, False)):
        torch.manual_seed(0)
        model = Broken(vocab_size, d_model, untied=untied)
        wanted = model.source.weight.detach().clone()
        function.let(model)
        _tied(model, wanted)


def _tied(model: Broken, wanted: Tensor) -> None:
    linear = "the output is no linear layer any more: it has to score, not to look up"
    need(isinstance(model.output, nn.Linear), linear)
    three = [model.source.weight, model.target.weight, model.output.weight]
    several = len({id(p) for p in three}) > 1
    equal = all(torch.equal(p, three[0]) for p in three)
    todo = "not done yet: the output still has the target's first matrix"
    need(three[0] is not three[1] or equal, todo)
    lost = "a matrix is no nn.Parameter any more: the optimizer would not see it"
    need(all(isinstance(p, nn.Parameter) for p in three), lost)
    need(all(p.requires_grad for p in three), "a matrix gets no gradient any more")
    need(equal, "the three matrices hold different numbers")
    apart = "equal numbers in different places: they drift apart at the first step"
    need(len({p.data_ptr() for p in three}) == 1, apart)
    one = "one memory, but several Parameters: each collects a gradient of its own"
    need(not several, one)
    kept = torch.equal(three[0].detach(), wanted)
    need(kept, "shared, but not with the numbers of source")
    numbers = sum(p.numel() for p in model.parameters())
    need(numbers == wanted.numel(), f"{numbers} parameters, not {wanted.numel()}")
    ids, root = torch.tensor([[3, 1]]), math.sqrt(wanted.size(1))
    for side in (model.source, model.target):
        factor = "the embeddings still look up rows times the root of d_model"
        compare(side(ids), root * wanted[ids], hint=factor)
    compare(model.output(wanted), wanted @ wanted.T, hint="the output scores, no more")


def _gated(x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    return (F.silu(x @ gate) * (x @ up)) @ down


@exercise
def check_gated(function: Answer, hidden_units: Answer) -> None:
    """`my_gated(x, ...)`: a gated layer for the same price."""
    case = _case((2, 3, 5), (5, 7), (5, 7), (7, 5))
    x, gate, up, down = case
    with errors_mean("the shapes don't fit: is a * an @, or an @ a *? ({error})"):
        answer = function(*case)
    last = "the output should be as wide as x: is down the last step?"
    need(getattr(answer, "shape", None) != (2, 3, 7), last)
    a, b = x @ gate, x @ up
    glu = "that gate is a sigmoid (GLU): SiLU is x * sigmoid(x)"
    mistakes = (
        (F.silu(a) + b, "the two copies are multiplied, not added"),
        (a * F.silu(b), "SiLU is on the gate, not on up"),
        (F.silu(a * b), "SiLU comes before the product"),
        (F.silu(a) * F.silu(b), "only one of the copies goes through SiLU"),
        (a.sigmoid() * b, glu),
        (F.relu(a) * b, "that gate is a ReLU"),
        (F.gelu(a) * b, "that gate is GELU: SiLU is x * sigmoid(x)"),
        (a * b, "where is SiLU?"),
        (F.silu(a), "where is the second copy, up?"),
    )
    table = [(wrong @ down, message) for wrong, message in mistakes]
    hint = "silu(x gate) * (x up), narrowed by down"
    compare(need_tensor(answer, (2, 3, 5)), _gated(*case), table, hint)
    x, *weights = _case((1, 40, 64), (64, 170), (64, 170), (170, 64))
    wide = [x, *(weight / 8 for weight in weights)]
    compare(function(*wide), _gated(*wide), hint="d_model = 64, 170 hidden units")
    need_gradient(function, _gated, *case)
    with errors_mean("my_hidden: {error}", Mistake):
        _same_price(hidden_units)


def _same_price(hidden_units: Answer) -> None:
    widths = [2048, 1000, *range(3, 100)]
    answers = [need_number(hidden_units(d_ff)) for d_ff in widths]
    whole = all(units == int(units) for units in answers)
    need(whole, "units are counted in whole numbers: use // or int")
    more = "with as many hidden units it costs half as much again: three matrices"
    compare(
        answers,
        [2 * d_ff // 3 for d_ff in widths],
        (
            (widths, more),
            ([d_ff // 2 for d_ff in widths], "half is too few: 3 * h = 2 * d_ff"),
            ([d_ff // 3 for d_ff in widths], "a third is too few: 3 * h = 2 * d_ff"),
            ([-(-2 * d // 3) for d in widths], "rounded up: it costs more than Eq. 2"),
            ([round(2 * d / 3) for d in widths], "rounded to the nearest, not down"),
        ),
        f"{answers[0]:g} units for d_ff = 2048, {answers[1]:g} for 1000",
        1e-9,
    )
