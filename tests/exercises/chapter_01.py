"""Chapter 01: right answers in several styles; wrong ones, and what must be said."""

import math

import torch


def recurrent(x, W, U, last=None):
    state, states = torch.zeros(len(W)), []
    for word in x:
        state = torch.tanh(W @ word + U @ state)
        states.append(state)
    return states[-1] if last else torch.stack(states)


def by_rows(x, W, U):
    """Into a table that is there before; the product with W for all words at once."""
    words, states = x @ W.T, torch.zeros(len(x) + 1, len(W))
    for i in range(len(x)):
        states = states.index_put(
            (torch.tensor(i + 1),), torch.tanh(words[i] + states[i] @ U.T)
        )
    return states[1:]


def by_rnn(x, W, U):
    rnn = torch.nn.RNN(len(W), len(W), bias=False)
    weights = {"weight_ih_l0": W, "weight_hh_l0": U}
    return torch.func.functional_call(rnn, weights, (x,))[0]


def with_zeros(x, W, U):
    return torch.cat([torch.zeros(1, len(W)), recurrent(x, W, U)])


def linear(x, W, U):
    states = [W @ x[0]]
    for word in x[1:]:
        states.append(W @ word + U @ states[-1])
    return torch.stack(states)


def layers(n, k):
    count, heard = 0, 1
    while heard < n:
        count, heard = count + 1, heard * k
    return count


def hub(n):
    mask = torch.zeros(n, n).bool()
    for i in range(n):
        mask[i, max(0, i - 1) : i + 2] = True
        mask[i, 0] = mask[0, i] = True
    return mask


def without(n, change):
    mask = hub(n)
    change(mask)
    return mask


RIGHT = [
    ("check_recurrent", recurrent),
    ("check_recurrent", by_rows),
    ("check_recurrent", by_rnn),
    ("check_layers", layers),
    ("check_layers", lambda n, k: torch.tensor(layers(n, k))),
    ("check_equal", lambda c, d: max(0, (c - 4) * d / 2)),
    ("check_equal", lambda c, d: torch.tensor(max(0, c - 4) * d / 2)),
    ("check_hub", hub),
    ("check_hub", lambda n: hub(n).flip(0, 1)),
    ("check_hub", lambda n: hub(n) | torch.tensor(n < 6)),
]
WRONG = [
    ("check_recurrent", lambda x, W, U: recurrent(x, W, U, last=True), "one state"),
    ("check_recurrent", with_zeros, "one row too many"),
    ("check_recurrent", linear, "the tanh is missing"),
    ("check_recurrent", lambda x, W, U: torch.tanh(x @ W.T), "before is not used"),
    ("check_recurrent", lambda x, W, U: recurrent(x, U, W), "changed places"),
    ("check_recurrent", lambda x, W, U: recurrent(x, W.T, U.T), "W x is x @ W.T"),
    ("check_recurrent", lambda x, W, U: recurrent(x, W, U.T), "U is transposed"),
    ("check_recurrent", lambda x, W, U: recurrent(x.flip(0), W, U), "the last word on"),
    ("check_recurrent", lambda x, W, U: list(recurrent(x, W, U)), "torch.stack"),
    ("check_recurrent", lambda x, W, U: recurrent(x, W, U).detach(), "no gradient"),
    ("check_recurrent", lambda x, W, U: None, "not done yet"),
    ("check_layers", lambda n, k: math.ceil(math.log(n, k)), "log(125, 5) is a bit"),
    ("check_layers", lambda n, k: math.log(n, k), "there is no half a layer"),
    ("check_layers", lambda n, k: layers(n, k) + 1, "one too many"),
    ("check_layers", lambda n, k: layers(n, k) if n < 200 else 9, "avoid logarithms"),
    ("check_layers", lambda n, k: None, "not done yet"),
    ("check_equal", lambda c, d: c * d / 2, "the four projections are missing"),
    ("check_equal", lambda c, d: (c - 4) * d / 2, "so 0, and no negative length"),
    ("check_equal", lambda c, d: (c - 5) * d, "for c = 8, d = 16 it should be 32"),
    ("check_equal", lambda c, d: max(0, (c - 4) * min(d, 512) / 2), "d = 2049 it"),
    ("check_equal", lambda c, d: max(0, math.ceil((c - 4) * d / 2)), "don't round"),
    ("check_equal", lambda c, d: max(0, (c - 4) * d // 2), "don't round"),
    ("check_hub", lambda n: torch.ones(n, n).bool(), "that is full attention"),
    ("check_hub", lambda n: hub(n).tril(), "looks back only"),
    ("check_hub", lambda n: ~hub(n), "upside down"),
    ("check_hub", lambda n: hub(n)[:7, :7], "the shape should be (40, 40)"),
    ("check_hub", lambda n: hub(n) if n > 3 else hub(4), "the shape should be (1, 1)"),
    ("check_hub", lambda n: hub(n) if n != 3 else torch.eye(3) > 0, "n = 3: the wind"),
    ("check_hub", lambda n: without(n, lambda m: m[1]), "right so far, but for 1"),
    (
        "check_hub",
        lambda n: without(n, lambda m: m[2:, 0].fill_(False)),
        "the hub hears all, but nobody hears it",
    ),
]
