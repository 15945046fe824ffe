"""Chapter 09: right answers in several styles; wrong ones, and what must be said."""

import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence

from annotated_transformer.batches import collate
from annotated_transformer.special import BOS, EOS


def padded(rows, **options):
    return pad_sequence([torch.tensor(row) for row in rows], True, **options)


def split(targets, **options):
    tgt = padded([[BOS, *ids] for ids in targets], **options)
    return tgt[:, :-1], tgt[:, 1:]


def by_lists(targets):
    width = max(map(len, targets))
    pad = [[0] * (width - len(ids)) for ids in targets]
    reads = [[BOS, *ids[:-1], *more] for ids, more in zip(targets, pad, strict=True)]
    return reads, [ids + more for ids, more in zip(targets, pad, strict=True)]


def start_put_in(targets):
    for ids in targets:
        ids.insert(0, BOS)
    tgt = padded(targets)
    return tgt[:, :-1], tgt[:, 1:]


def at_the_shortest(targets):
    width = min(map(len, targets))
    reads = torch.tensor([[BOS, *ids][:width] for ids in targets])
    return reads, torch.tensor([ids[:width] for ids in targets])


def padded_on_the_left(targets):
    width = max(map(len, targets))
    pad = [[0] * (width - len(ids)) for ids in targets]
    reads = [[BOS, *more, *ids[:-1]] for ids, more in zip(targets, pad, strict=True)]
    return reads, [more + ids for ids, more in zip(targets, pad, strict=True)]


def loop(
    model,
    optimizer,
    batches,
    *,
    clear="first",
    step="last",
    train=True,
    read=lambda batch: batch.tgt_in,
    write=lambda batch: batch.labels,
    logits=lambda x: x,
    keep=lambda loss: loss.item(),
    **options,
):
    losses, options = [], {"ignore_index": 0, **options}
    if train:
        model.train()
    for batch in batches:
        if step == "first":
            optimizer.step()
        scores = logits(model(batch.src, read(batch)))
        loss = F.cross_entropy(scores.mT, write(batch), **options)
        if step == "before":
            optimizer.step()
        if clear == "first":
            optimizer.zero_grad()
        loss.backward()
        if clear == "after":
            optimizer.zero_grad()
        if step == "last":
            optimizer.step()
        losses.append(keep(loss))
        if step == "return":
            return losses
    return losses


def loop_by_sums(model, optimizer, batches):
    """Cleared at the end of a step; a tensor of losses."""
    losses = []
    model.train()
    for batch in batches:
        log_p = model(batch.src, batch.tgt_in).log_softmax(-1)
        right = log_p.gather(-1, batch.labels[..., None])[..., 0]
        loss = -right[batch.labels != 0].sum() / batch.n_tokens
        loss.backward()
        optimizer.step()
        model.zero_grad()
        losses.append(loss.detach())
    return torch.stack(losses)


def loop_by_sentence(model, optimizer, batches):
    losses = []
    model.train()
    for batch in batches:
        scores = model(batch.src, batch.tgt_in)
        each = F.cross_entropy(
            scores.mT, batch.labels, ignore_index=0, reduction="none"
        )
        loss = (each.sum(1) / (batch.labels != 0).sum(1)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def wrong_loop(**options):
    return partial(loop, **options)


def patience_from_best(scores, patience):
    kept = 0
    for look, score in enumerate(scores):
        if score > scores[kept]:
            kept = look
        if look - kept >= patience:
            break
    return look, kept


def by_numpy(scores, patience):
    scores = np.array(scores)
    for stop in range(len(scores)):
        kept = scores[: stop + 1].argmax()
        if stop - kept == patience:
            break
    return np.array([stop, kept])


def waiting(scores, patience, *, best=-math.inf, equal=False, anew=True, more=0):
    kept, waited = 0, 0
    for look, score in enumerate(scores):
        if score > best or (equal and score == best):
            best, kept, waited = score, look, 0 if anew else waited
        else:
            waited += 1
        if waited >= patience + more:
            return look, kept
    return len(scores) - 1, kept


def returns_at_a_stop_only(scores, patience):
    stop, kept = patience_from_best(scores, patience)
    return (stop, kept) if stop - kept >= patience else None


def against_the_look_before(scores, patience):
    waited = 0
    for look in range(1, len(scores)):
        waited = waited + 1 if scores[look] <= scores[look - 1] else 0
        if waited >= patience:
            return look, scores.index(max(scores[: look + 1]))
    return len(scores) - 1, scores.index(max(scores))


def sorts(scores, patience):
    scores.sort(reverse=True)
    return patience_from_best(scores, patience)


def changed(place, change):
    """Right but for one of the two numbers."""

    def answer(scores, patience):
        pair = list(patience_from_best(scores, patience))
        pair[place] = change(pair, scores, patience)
        return tuple(pair)

    return answer


CLIPS = {
    "whole": nn.utils.clip_grad_norm_,
    "not": lambda parameters, clip: None,
    "to 1": lambda parameters, clip: nn.utils.clip_grad_norm_(parameters, 1.0),
    "values": nn.utils.clip_grad_value_,
    "each": lambda parameters, clip: [
        nn.utils.clip_grad_norm_([p], clip) for p in parameters
    ],
    "sum": lambda parameters, clip: nn.utils.clip_grad_norm_(parameters, clip, 1),
    "always": lambda parameters, clip: (
        nn.utils.clip_grad_norm_(parameters, 1e-9)
        and [p.grad.mul_(clip / 1e-9) for p in parameters]
    ),
}


def accumulate(
    objective,
    pairs,
    size,
    clip,
    *,
    clear=True,
    count=lambda pairs, piece, pieces: sum(len(tgt) for _, tgt in pairs),
    rest=True,
    each_cleared=False,
    each_clipped=False,
    how="whole",
):
    parameters = list(objective.parameters())
    if clear:
        objective.zero_grad()
    total, pieces = 0.0, range(0, len(pairs) - (not rest) * (len(pairs) % size), size)
    for first in pieces:
        if each_cleared:
            objective.zero_grad()
        piece = collate(pairs[first : first + size])
        loss = objective(piece)
        (loss / count(pairs, piece, pieces)).backward()
        total += loss.item()
        if each_clipped:
            nn.utils.clip_grad_norm_(parameters, clip)
    CLIPS[how](parameters, clip)
    return total / sum(len(tgt) for _, tgt in pairs)


def by_hand(objective, pairs, size, clip):
    """Without .backward(): sums of torch.autograd.grad, and a 0-dim tensor back."""
    parameters, n = list(objective.parameters()), sum(len(tgt) for _, tgt in pairs)
    grads, total = [torch.zeros_like(p) for p in parameters], 0
    while pairs:
        piece, pairs = pairs[:size], pairs[size:]
        loss = objective(collate(piece)) / n
        for grad, more in zip(
            grads, torch.autograd.grad(loss, parameters), strict=True
        ):
            grad += more
        total += loss.detach()
    length = torch.cat([grad.flatten() for grad in grads]).norm()
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad * min(1, clip / length)
    return total


def divided_at_the_end(objective, pairs, size, clip, late=False):
    for parameter in objective.parameters():
        parameter.grad = None
    n, total = 0, 0.0
    for first in range(0, len(pairs), size):
        piece = collate(pairs[first : first + size])
        loss = objective(piece)
        loss.backward()
        n, total = n + piece.n_tokens, total + loss.item()
    if late:
        nn.utils.clip_grad_norm_(objective.parameters(), clip)
    for parameter in objective.parameters():
        parameter.grad /= n
    if not late:
        nn.utils.clip_grad_norm_(objective.parameters(), clip)
    return np.float32(total / n)


def steps(objective, *case):
    loss = accumulate(objective, *case)
    for parameter in objective.parameters():
        parameter.data -= 0.1 * parameter.grad
    return loss


def cleared_last(objective, *case):
    loss = accumulate(objective, *case)
    objective.zero_grad()
    return loss


def zeros_what_may_be_none(objective, *case):
    for parameter in objective.parameters():
        parameter.grad.zero_()
    return accumulate(objective, *case, clear=False)


def takes_them_out(objective, pairs, *case):
    loss = accumulate(objective, list(pairs), *case)
    pairs.pop()
    return loss


def divided(count):
    return partial(accumulate, count=count)


RIGHT = [
    ("check_shift", split),
    ("check_shift", by_lists),
    ("check_shift", lambda targets: list(map(np.array, by_lists(targets)))),
    ("check_shift", lambda targets: torch.stack(split(targets)).int()),
    ("check_training_loop", loop),
    ("check_training_loop", loop_by_sums),
    ("check_training_loop", wrong_loop(keep=lambda loss: np.float32(loss.item()))),
    ("check_patience", patience_from_best),
    ("check_patience", by_numpy),
    ("check_patience", lambda scores, n: list(waiting(scores, n))),
    ("check_patience", lambda scores, n: torch.tensor(waiting(scores, n))),
    ("check_accumulate", accumulate),
    ("check_accumulate", by_hand),
    ("check_accumulate", divided_at_the_end),
]
WRONG = [
    ("check_shift", lambda targets: None, "not done yet"),
    ("check_shift", lambda targets: split(targets)[0], "return two matrices"),
    ("check_shift", lambda t: (padded(t), padded(t)), "both are the same"),
    ("check_shift", lambda t: split(t)[::-1], "the two have changed places"),
    ("check_shift", lambda t: (padded(t)[:, :-1], padded(t)[:, 1:]), "first thing to"),
    ("check_shift", lambda t: split([ids[:-1] for ids in t]), "an end token got"),
    ("check_shift", lambda t: split(t, padding_value=EOS), "are padding (id 0)"),
    ("check_shift", lambda t: tuple(x.float() for x in split(t)), "whole numbers"),
    ("check_shift", lambda t: tuple(x.T for x in split(t)), "3 rows, not 5: batch fi"),
    ("check_shift", lambda t: ([[BOS, *i[:-1]] for i in t], t), "have one length"),
    ("check_shift", start_put_in, "which is the caller's"),
    ("check_shift", at_the_shortest, "cut at the shortest sentence"),
    ("check_shift", padded_on_the_left, "after a sentence, not before it"),
    (
        "check_shift",
        lambda t: tuple(x[:, :5] for x in split(t)),
        "an end token got lost",
    ),
    ("check_training_loop", lambda *case: None, "not done yet"),
    (
        "check_training_loop",
        lambda *case: loop(*case) and None,
        "return the list of losses",
    ),
    ("check_training_loop", lambda *case: loop(*case)[-1], "one loss for each batch"),
    ("check_training_loop", lambda *case: loop(*case)[:2], "3 losses, not 2"),
    ("check_training_loop", wrong_loop(step="return"), "is `return` inside the loop?"),
    ("check_training_loop", wrong_loop(train=False), "call model.train()"),
    ("check_training_loop", wrong_loop(read=lambda b: b.tgt), "without its last token"),
    (
        "check_training_loop",
        wrong_loop(read=lambda b: b.labels),
        "reads what it must write",
    ),
    (
        "check_training_loop",
        wrong_loop(write=lambda b: b.tgt_in),
        "must write the NEXT token",
    ),
    (
        "check_training_loop",
        wrong_loop(ignore_index=-100),
        "leave id 0 out (ignore_index)",
    ),
    ("check_training_loop", wrong_loop(reduction="sum"), "that is the sum"),
    ("check_training_loop", wrong_loop(logits=lambda x: x.softmax(-1)), "takes logits"),
    ("check_training_loop", wrong_loop(label_smoothing=0.1), "the first loss is"),
    ("check_training_loop", loop_by_sentence, "the sentences' means"),
    ("check_training_loop", wrong_loop(keep=lambda loss: loss), "append loss.item()"),
    (
        "check_training_loop",
        wrong_loop(clear="never"),
        "gradients add up from batch to batch",
    ),
    ("check_training_loop", wrong_loop(clear="after"), "the weights don't change"),
    ("check_training_loop", wrong_loop(step="never"), "the weights don't change"),
    ("check_training_loop", wrong_loop(step="before"), "one batch late"),
    ("check_training_loop", wrong_loop(step="first"), "one batch late"),
    (
        "check_training_loop",
        lambda m, o, b: loop(m, o, b[::-1]),
        "the decoder reads batch.tgt_",
    ),
    ("check_patience", lambda scores, patience: None, "not done yet"),
    ("check_patience", returns_at_a_stop_only, "what if it never stalls?"),
    ("check_patience", partial(waiting, equal=True), "equal is not better"),
    ("check_patience", partial(waiting, anew=False), "sets the count back to 0"),
    ("check_patience", partial(waiting, best=0), "start below all of them"),
    ("check_patience", partial(waiting, more=1), "too patient"),
    ("check_patience", partial(waiting, more=-1), "one look too early"),
    ("check_patience", lambda s, n: waiting([-x for x in s], n), "more is better here"),
    ("check_patience", lambda s, n: waiting(s, n)[::-1], "first the look where"),
    ("check_patience", lambda s, n: waiting(s, 2), "too patient"),
    ("check_patience", lambda s, n: waiting(list(map(int, s)), n), "is wrong for"),
    ("check_patience", against_the_look_before, "not with the look before"),
    ("check_patience", sorts, "your function changes scores"),
    ("check_patience", changed(1, lambda p, s, n: s[p[1]]), "index of the best look"),
    ("check_patience", changed(1, lambda p, s, n: p[0]), "keep the best look, not th"),
    ("check_patience", changed(1, lambda p, s, n: p[0] - n), "not always `patience`"),
    ("check_patience", changed(1, lambda p, s, n: s.index(max(s))), "are not known"),
    ("check_patience", changed(0, lambda p, s, n: p[0] + 1), "one look too late"),
    ("check_accumulate", lambda *case: None, "not done yet"),
    ("check_accumulate", lambda *case: accumulate(*case) and None, "mean loss, too"),
    ("check_accumulate", lambda *case: accumulate(*case) * 85, "the sum, not the mean"),
    ("check_accumulate", divided(lambda *_: 1), "nothing is divided"),
    ("check_accumulate", divided(lambda a, b, p: b.n_tokens), "all added up"),
    ("check_accumulate", divided(lambda a, b, p: b.n_tokens * len(p)), "mean of means"),
    ("check_accumulate", divided(lambda a, *_: len(a)), "number of pairs, not of"),
    ("check_accumulate", divided(lambda a, b, p: b.labels.numel()), "padding is no"),
    ("check_accumulate", divided(lambda a, b, p: 99), "all pairs have 85 labels"),
    ("check_accumulate", partial(accumulate, rest=False), "smaller piece is missing"),
    ("check_accumulate", partial(accumulate, clear=False), "old gradients are still"),
    ("check_accumulate", partial(accumulate, each_cleared=True), "only the last piece"),
    ("check_accumulate", partial(accumulate, each_clipped=True), "clipped after each"),
    ("check_accumulate", partial(accumulate, how="not"), "not clipped"),
    ("check_accumulate", partial(accumulate, how="values"), "the whole vector"),
    ("check_accumulate", partial(accumulate, how="each"), "are one vector"),
    ("check_accumulate", partial(accumulate, how="sum"), "the root of the sum"),
    ("check_accumulate", partial(accumulate, how="always"), "shorter than `clip` st"),
    ("check_accumulate", partial(accumulate, how="to 1"), "clipped to 1"),
    ("check_accumulate", partial(divided_at_the_end, late=True), "divide first"),
    ("check_accumulate", lambda o, p, n, c: accumulate(o, p, 11, c), "11 pairs at onc"),
    (
        "check_accumulate",
        lambda o, p, n, c: accumulate(o, p, 3, c),
        "size`, which is 2",
    ),
    ("check_accumulate", steps, "the weights have changed"),
    ("check_accumulate", cleared_last, "the gradients are zero"),
    ("check_accumulate", zeros_what_may_be_none, "without gradients (None)"),
    ("check_accumulate", takes_them_out, "your function changes pairs"),
]
