"""Chapter 10: right answers in several styles; wrong ones, and what must be said."""

import math

import torch


def warmup(peak, d_model):
    return 1 / (peak**2 * d_model)


def adam(weight, gradient, mean, square, step, rate, b1=0.9, b2=0.98, eps=1e-9):
    mean = b1 * mean + (1 - b1) * gradient
    square = b2 * square + (1 - b2) * gradient**2
    mean_hat, square_hat = mean / (1 - b1**step), square / (1 - b2**step)
    return weight - rate * mean_hat / (square_hat.sqrt() + eps), mean, square


def by_pytorch(weight, gradient, mean, square, step, rate):
    one = torch.nn.Parameter(weight.clone())
    optimizer = torch.optim.Adam([one], lr=rate, betas=(0.9, 0.98), eps=1e-9)
    averages = {"exp_avg": mean.clone(), "exp_avg_sq": square.clone()}
    optimizer.state[one] = {"step": torch.tensor(step - 1.0), **averages}
    one.grad = gradient
    optimizer.step()
    state = optimizer.state[one]
    return [one.detach(), state["exp_avg"], state["exp_avg_sq"]]


def by_lerp(w, g, m, s, t, lr):
    m, s = torch.lerp(g, m, 0.9), (0.98 * s).addcmul(g, g, value=0.02)
    ruler = s.sqrt() / math.sqrt(1 - 0.98**t) + 1e-9
    return w - lr / (1 - 0.9**t) * m / ruler, m, s


def no_correction(weight, gradient, mean, square, step, rate):
    _, mean, square = adam(weight, gradient, mean, square, step, rate)
    return weight - rate * mean / (square.sqrt() + 1e-9), mean, square


def keeps_corrected(weight, gradient, mean, square, step, rate):
    weight, mean, square = adam(weight, gradient, mean, square, step, rate)
    return weight, mean / (1 - 0.9**step), square / (1 - 0.98**step)


def no_root(weight, gradient, mean, square, step, rate):
    _, mean, square = adam(weight, gradient, mean, square, step, rate)
    ruler = square / (1 - 0.98**step) + 1e-9
    return weight - rate * mean / (1 - 0.9**step) / ruler, mean, square


def uphill(weight, gradient, mean, square, step, rate):
    return adam(weight, gradient, mean, square, step, -rate)


def mean_in_place(weight, gradient, mean, square, step, rate):
    mean.mul_(0.9).add_(0.1 * gradient)
    return adam(weight, gradient, (mean - 0.1 * gradient) / 0.9, square, step, rate)


def times_step(weight, gradient, mean, square, step, rate):
    _, mean, square = adam(weight, gradient, mean, square, step, rate)
    ruler = (square / (1 - 0.98 * step)).sqrt() + 1e-9
    return weight - rate * mean / (1 - 0.9 * step) / ruler, mean, square


def loop(optimizer, rate, epochs, backward, accumulate):
    updates = 0
    for epoch in epochs:
        for i, batch in enumerate(epoch, start=1):
            backward(batch)
            if i % accumulate == 0:
                updates += 1
                for group in optimizer.param_groups:
                    group["lr"] = rate(updates)
                optimizer.step()
                optimizer.zero_grad()


def in_slices(optimizer, rate, epochs, backward, accumulate):
    batches = [batch for epoch in epochs for batch in epoch]
    for start in range(0, len(batches), accumulate):
        optimizer.zero_grad(set_to_none=False)
        for batch in batches[start : start + accumulate]:
            backward(batch)
        for group in optimizer.param_groups:
            group.update(lr=torch.tensor(rate(1 + start // accumulate)))
        optimizer.step()


def broken_loop(optimizer, rate, epochs, backward, accumulate):
    for epoch in epochs:
        for step, batch in enumerate(epoch):
            backward(batch)
            if (step + 1) % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
                optimizer.param_groups[0]["lr"] = rate(step)


def by_scheduler(optimizer, rate, epochs, backward, accumulate):
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for epoch in epochs:
        for i, batch in enumerate(epoch, start=1):
            backward(batch)
            if i % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()


def clock(when, groups=None, zero_before=False, zero_after=True):
    """A loop that asks for the rate of step `when(epoch, i, batches, updates)`."""

    def wrong(optimizer, rate, epochs, backward, accumulate):
        batches = updates = 0
        for number, epoch in enumerate(epochs, start=1):
            for i, batch in enumerate(epoch):
                backward(batch)
                batches += 1
                if batches % accumulate == 0:
                    updates += 1
                    for group in optimizer.param_groups[:groups]:
                        group["lr"] = rate(when(number, i, batches, updates))
                    if zero_before:
                        optimizer.zero_grad()
                    optimizer.step()
                    if zero_after:
                        optimizer.zero_grad()

    return wrong


def restarts(optimizer, rate, epochs, backward, accumulate):
    for epoch in epochs:
        loop(optimizer, rate, [epoch], backward, accumulate)


def fewer(optimizer, rate, epochs, backward, accumulate):
    loop(optimizer, rate, epochs[:1], backward, accumulate)


def divided(optimizer, rate, epochs, backward, accumulate):
    loop(optimizer, rate, epochs, lambda x: backward(x / accumulate), accumulate)


RIGHT = [
    ("check_warmup", warmup),
    ("check_warmup", lambda peak, d_model: torch.tensor(peak**-2 / d_model)),
    ("check_warmup", lambda peak, d_model: round((1 / peak) ** 2 / d_model)),
    ("check_adam", adam),
    ("check_adam", by_pytorch),
    ("check_adam", by_lerp),
    ("check_loop", loop),
    ("check_loop", in_slices),
]
WRONG = [
    ("check_warmup", lambda peak, d: None, "not done yet"),
    ("check_warmup", lambda peak, d: peak**-2, "where is the width?"),
    ("check_warmup", lambda peak, d: peak**2 * d, "upside down"),
    ("check_warmup", lambda peak, d: 1 / (peak * d), "is the peak squared?"),
    ("check_warmup", lambda peak, d: d / peak**2, "divide by d_model"),
    ("check_warmup", lambda peak, d: 1 / (peak * d**0.5), "undo the root of the warm"),
    ("check_warmup", lambda peak, d: 4000, "should be 1111, not 4000"),
    ("check_warmup", lambda peak, d: peak**-2 / 100, "for a peak of 0.0007 and width"),
    ("check_adam", lambda *case: None, "not done yet: return the new weight"),
    ("check_adam", lambda *case: adam(*case)[0], "all three"),
    ("check_adam", lambda *case: adam(*case)[::-1], "in this order"),
    ("check_adam", lambda *case: adam(*case, b2=0.999), "0.999 is PyTorch's default"),
    ("check_adam", lambda *case: adam(*case, b1=0.98, b2=0.9), "betas swapped"),
    ("check_adam", lambda *case: adam(*case, eps=0), "where is eps?"),
    ("check_adam", lambda *case: adam(*case, eps=1e-8), "eps is 1e-9 in §5.3"),
    ("check_adam", lambda *case: adam(*case[:5], 1.0), "where is the rate?"),
    ("check_adam", lambda *case: adam(*case[:5], 0.1), "rate 0.0003"),
    ("check_adam", lambda *case: adam(*case[:4], 1, 0.1), "the correction fades"),
    ("check_adam", no_correction, "no bias correction"),
    ("check_adam", keeps_corrected, "return mean and square uncorrected"),
    ("check_adam", no_root, "take its root"),
    ("check_adam", uphill, "uphill"),
    ("check_adam", times_step, "where does step enter?"),
    ("check_adam", mean_in_place, "changes mean, which is the caller's"),
    ("check_loop", lambda *case: None, "not done yet: no update was made"),
    ("check_loop", broken_loop, "the second group of parameters never gets a rate"),
    ("check_loop", by_scheduler, "LambdaLR multiplies"),
    ("check_loop", restarts, "the clock begins again with each epoch"),
    ("check_loop", fewer, "are 4 updates, not 2"),
    ("check_loop", divided, "divide nothing"),
    ("check_loop", clock(lambda e, i, n, u: u - 1), "one behind"),
    ("check_loop", clock(lambda e, i, n, u: u + 1), "one ahead"),
    ("check_loop", clock(lambda e, i, n, u: n), "the clock counts batches"),
    ("check_loop", clock(lambda e, i, n, u: i), "the clock counts batches"),
    ("check_loop", clock(lambda e, i, n, u: e), "the clock counts epochs"),
    ("check_loop", clock(lambda e, i, n, u: 1), "the rate never changes"),
    ("check_loop", clock(lambda e, i, n, u: u, groups=2), "the third group of param"),
    (
        "check_loop",
        clock(lambda e, i, n, u: u, zero_before=True),
        "no gradient is left when the step is made",
    ),
    (
        "check_loop",
        clock(lambda e, i, n, u: u, zero_after=False),
        "gradients pile up: where is zero_grad?",
    ),
]
