"""Chapter 21: right answers in several styles; wrong ones, and what must be said."""

import torch
import torch.nn.functional as F


def loss(logits, ids):
    return F.cross_entropy(logits[:, :-1].mT, ids[:, 1:], ignore_index=0)


def flattened(logits, ids):
    logits, labels = logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()
    return F.cross_entropy(logits[labels != 0], labels[labels != 0])


def by_logarithm(logits, ids):
    labels = ids[:, 1:]
    log_q = logits[:, :-1].log_softmax(-1).gather(-1, labels[..., None])[..., 0]
    real = labels != 0
    return -(log_q * real).sum() / real.sum()


def f1(table):
    return 2 * table.diagonal() / (table.sum(0) + table.sum(1))


def in_loops(table):
    found = []
    for i in range(len(table)):
        hits = table[i, i].item()
        missed = sum(table[i].tolist()) - hits
        wrong = sum(table[:, i].tolist()) - hits
        found.append(2 * hits / (2 * hits + missed + wrong))
    return found


def by_parts(table):
    hits = table.diagonal()
    precision, recall = hits / table.sum(0), hits / table.sum(1)
    return 2 * precision * recall / (precision + recall)


def writing(next_token, question, start):
    ids, states = [start], []
    for symbol in question:
        ids.append(symbol)
        states.append(next_token(ids))
        ids.append(states[-1])
    return states


def by_states(next_token, question, start):
    states = [start]
    for i in range(len(question)):
        pairs = torch.tensor([states, list(question[: i + 1])])
        states.append(int(next_token(pairs.T.flatten())))
    return states[1:]


RIGHT = [
    ("check_language_loss", loss),
    ("check_language_loss", flattened),
    ("check_language_loss", by_logarithm),
    ("check_label_f1", f1),
    ("check_label_f1", in_loops),
    ("check_label_f1", lambda table: by_parts(table).nan_to_num()),
    ("check_writing", writing),
    ("check_writing", by_states),
    ("check_writing", lambda *case: torch.tensor(writing(*case))),
]
WRONG = [
    ("check_language_loss", lambda logits, ids: None, "not done yet"),
    (
        "check_language_loss",
        lambda logits, ids: F.cross_entropy(logits.mT, ids, ignore_index=0),
        "compared with itself",
    ),
    (
        "check_language_loss",
        lambda logits, ids: F.cross_entropy(
            logits[:, 1:].mT, ids[:, :-1], ignore_index=0
        ),
        "shifted the wrong way",
    ),
    (
        "check_language_loss",
        lambda logits, ids: F.cross_entropy(logits.mT, ids.roll(-1, 1), ignore_index=0),
        "roll asks the last position for the first token",
    ),
    (
        "check_language_loss",
        lambda logits, ids: F.cross_entropy(logits[:, :-1].mT, ids[:, 1:]),
        "padding is counted",
    ),
    ("check_language_loss", lambda *case: loss(*case).exp(), "perplexity"),
    ("check_language_loss", lambda *case: -loss(*case), "the sign"),
    ("check_language_loss", lambda *case: loss(*case).detach(), "no gradient"),
    ("check_language_loss", lambda logits, ids: logits, "return one number"),
    ("check_label_f1", lambda table: None, "not done yet"),
    ("check_label_f1", by_parts, "a label without hits has F1 0"),
    ("check_label_f1", lambda table: f1(table).mean(), "one number for each label"),
    (
        "check_label_f1",
        lambda table: table.diagonal() / table.sum(0),
        "precision alone",
    ),
    ("check_label_f1", lambda t: t.diagonal() / t.sum(1), "recall alone"),
    ("check_label_f1", lambda table: f1(table) / 2, "a factor of 2"),
    (
        "check_label_f1",
        lambda table: (
            table.diagonal() / table.sum(0) / 2 + table.diagonal() / table.sum(1) / 2
        ),
        "the harmonic mean",
    ),
    (
        "check_label_f1",
        lambda table: (
            table.diagonal() / (table.sum(0) + table.sum(1) - table.diagonal())
        ),
        "Jaccard",
    ),
    ("check_writing", lambda *case: None, "not done yet"),
    ("check_writing", lambda *case: writing(*case)[-1], "return a list of all states"),
    (
        "check_writing",
        lambda next_token, question, start: [
            start,
            *writing(next_token, question, start),
        ],
        "the new states alone",
    ),
    (
        "check_writing",
        lambda next_token, question, start: [
            next_token([i for symbol in question[: n + 1] for i in (start, symbol)])
            for n in range(len(question))
        ],
        "must stand before the next symbol",
    ),
    (
        "check_writing",
        lambda next_token, question, start: [next_token(question)],
        "the start state comes first",
    ),
    (
        "check_writing",
        lambda next_token, question, start: [next_token([start, *question])],
        "state, symbol, state, symbol",
    ),
    (
        "check_writing",
        lambda next_token, question, start: [next_token([start, *question, start])],
        "one by one",
    ),
    (
        "check_writing",
        lambda next_token, question, start: [
            next_token([start, question[0]]) for _ in range(99)
        ],
        "the new states alone",
    ),
]
