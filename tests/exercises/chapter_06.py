"""Chapter 06: right answers in several styles; wrong ones, and what must be said."""

import math

import torch


def frequencies(d_model):
    return 10_000 ** (-torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)


def move(rows, k, angle=None):
    angle = k * frequencies(rows.size(-1)) if angle is None else angle
    sines, cosines = rows[:, 0::2], rows[:, 1::2]
    new_sines = sines * angle.cos() + cosines * angle.sin()
    new_cosines = cosines * angle.cos() - sines * angle.sin()
    return torch.stack([new_sines, new_cosines], -1).flatten(1)


def move_by_complex_numbers(rows, k):
    pairs = torch.view_as_complex(rows.double().unflatten(-1, (-1, 2)))
    turn = torch.exp(-1j * k * frequencies(rows.size(-1)))
    return torch.view_as_real(pairs * turn).flatten(1).float()


def move_by_a_look_up(rows, k):
    """It finds the position first, among whole numbers."""
    columns = frequencies(rows.size(-1)) * torch.arange(1000)[:, None]
    table = torch.stack([columns.sin(), columns.cos()], -1).flatten(1)
    position = torch.cdist(rows.double(), table).argmin(-1)
    angle = (position[:, None] + k) * frequencies(rows.size(-1))
    return torch.stack([angle.sin(), angle.cos()], -1).flatten(1)


def move_in_place(rows, k):
    new = move(rows, k)
    rows[:, 0::2] = new[:, 0::2]
    return new


def old_sines_lost(rows, k):
    angle, out = k * frequencies(rows.size(-1)), rows.clone().double()
    out[:, 0::2] = out[:, 0::2] * angle.cos() + out[:, 1::2] * angle.sin()
    out[:, 1::2] = out[:, 1::2] * angle.cos() - out[:, 0::2] * angle.sin()
    return out


def places(ids):
    real = ids != 0
    return (real.cumsum(-1) - 1) * real


def places_by_loops(ids):
    out = torch.zeros(ids.shape, dtype=torch.int32)
    for i, row in enumerate(ids.tolist()):
        real = [j for j, token in enumerate(row) if token]
        out[i, real] = torch.arange(len(real), dtype=torch.int32)
    return out


def places_by_the_first(ids):
    real = ids != 0
    first = real.int().argmax(-1, keepdim=True)
    return torch.where(real, torch.arange(ids.size(1)) - first, 0)


def places_in_place(ids):
    ids[ids != 0] = 1
    return places(ids)


def without_right_padding(ids):
    return ((ids != 0).cumsum(-1) - 1).clamp(min=0)


def halves(weight, n_heads):
    heads = weight.unflatten(0, (n_heads, -1))
    return torch.cat([heads[:, 0::2], heads[:, 1::2]], 1).flatten(0, 1)


def by_an_index(weight, n_heads):
    d_k = len(weight) // n_heads
    order = [*range(0, d_k, 2), *range(1, d_k, 2)]
    return weight[[d_k * head + i for head in range(n_heads) for i in order]]


def a_quarter_turn_further(weight, n_heads):
    """Every pair (a, b) becomes (-b, a): all turned alike, so no score changes."""
    even, odd = halves(weight, n_heads).unflatten(0, (n_heads, 2, -1)).unbind(1)
    return torch.stack([-odd, even], 1).flatten(0, 2)


def way_back(weight, n_heads):
    heads = weight.unflatten(0, (n_heads, 2, -1))
    return heads.transpose(1, 2).flatten(0, 2)


def shuffled_pairs(weight, n_heads):
    heads = halves(weight, n_heads).unflatten(0, (n_heads, 2, -1))
    return heads.flip(2).flatten(0, 2)


def writes_into_the_weight(weight, n_heads):
    weight.copy_(halves(weight, n_heads))
    return weight.clone()


RIGHT = [
    ("check_hand", [-0.959, 0.284]),
    ("check_hand", [math.sin(5), math.cos(5)]),
    ("check_move", move),
    ("check_move", move_by_complex_numbers),
    ("check_places", places),
    ("check_places", places_by_loops),
    ("check_places", places_by_the_first),
    ("check_halves", halves),
    ("check_halves", by_an_index),
    ("check_halves", a_quarter_turn_further),
]
WRONG = [
    ("check_hand", [None, None], "not done yet"),
    ("check_hand", None, "not done yet"),
    ("check_hand", [0.284, -0.959], "changed places"),
    ("check_hand", [1.05, -1.406], "angles add up"),
    ("check_hand", [0.841, 0.54], "turn on, not back"),
    ("check_hand", [0.128, 0.412], "all four old ones"),
    ("check_hand", [5], "two numbers are needed"),
    ("check_hand", [-0.9, 0.284], "number 0"),
    ("check_move", lambda rows, k: None, "not done yet"),
    ("check_move", lambda rows, k: move(rows, -k), "that moves back"),
    ("check_move", lambda rows, k: move(rows, 1), "does k come in?"),
    (
        "check_move",
        lambda rows, k: move(rows, k, torch.tensor(1.0 * k)),
        "own frequency",
    ),
    ("check_move", lambda rows, k: move(rows, abs(k)), "k = -4 moves back"),
    ("check_move", lambda rows, k: move(rows, int(k)), "two moves by 0.5"),
    ("check_move", lambda rows, k: move(rows, k)[:2], "the shape should be (3, 6)"),
    ("check_move", old_sines_lost, "use the OLD sines"),
    ("check_move", move_in_place, "changes rows, which is the caller's"),
    ("check_move", move_by_a_look_up, "should be"),
    ("check_places", lambda ids: (ids != 0).cumsum(-1) - 1, "padding gets -1"),
    ("check_places", lambda ids: places(ids).float(), "should be whole numbers"),
    ("check_places", lambda ids: places(ids)[0], "one position for each token"),
    ("check_places", lambda ids: places(ids[:, :5]), "the shape should be (4, 300)"),
    ("check_places", without_right_padding, "padding on the right should get 0, too"),
    ("check_places", places_in_place, "changes ids, which is the caller's"),
    ("check_places", lambda ids: places(ids).clamp(max=9), "rows of 300"),
    (
        "check_halves",
        lambda weight, n_heads: torch.cat([weight[0::2], weight[1::2]]),
        "the heads are mixed up",
    ),
    ("check_halves", lambda weight, n_heads: weight.clone(), "nothing has changed"),
    ("check_halves", way_back, "that is the way back"),
    ("check_halves", shuffled_pairs, "in the order of their frequencies?"),
    ("check_halves", lambda w, n_heads: halves(w, 2), "3 heads of width 4"),
    ("check_halves", lambda w, n_heads: 2 * halves(w, n_heads), "no number may change"),
    ("check_halves", lambda w, n_heads: halves(w.T, 1).T, "rows, not the columns"),
    ("check_halves", writes_into_the_weight, "changes weight, which is the caller's"),
]
