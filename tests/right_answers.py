"""Right answers in other styles than the solution's: all of them get full marks."""

# The problem, the style, the answer.
RIGHT = [
    (
        "masks",
        "loops",
        """def padding_mask(ids):
    out = torch.zeros(ids.shape[0], 1, 1, ids.shape[1], dtype=torch.bool)
    for b in range(ids.shape[0]):
        for j in range(ids.shape[1]):
            out[b, 0, 0, j] = bool(ids[b, j] != PAD)
    return out

def causal_mask(length):
    return torch.arange(length)[None, :] <= torch.arange(length)[:, None]

def decoder_mask(ids):
    return torch.logical_and(
        padding_mask(ids), causal_mask(ids.shape[1])[None, None]
    )
""",
    ),
    (
        "attention",
        "einsum, exp by hand",
        """def attention(query, key, value, mask):
    s = torch.einsum("bqd,bkd->bqk", query, key) * query.shape[-1] ** -0.5
    w = torch.exp(s) * mask
    total = w.sum(-1, keepdim=True)
    return torch.einsum("bqk,bkv->bqv", w / total.clamp(min=1e-30), value)
""",
    ),
    (
        "attention",
        "loops",
        """def attention(query, key, value, mask):
    B, Q, d = query.shape
    out = torch.zeros(B, Q, value.shape[-1])
    for b in range(B):
        for q in range(Q):
            ks = [k for k in range(key.shape[1]) if mask[q, k]]
            if not ks:
                continue
            e = [
                torch.exp(query[b, q] @ key[b, k] / math.sqrt(d))
                for k in ks
            ]
            for x, k in zip(e, ks):
                out[b, q] = out[b, q] + x / sum(e) * value[b, k]
    return out
""",
    ),
    (
        "attention",
        "nan_to_num",
        """def attention(query, key, value, mask):
    s = torch.bmm(query, key.transpose(1, 2)) / key.shape[2] ** 0.5
    return (
        torch.nan_to_num(
            torch.softmax(s + torch.where(mask, 0.0, float("-inf")), dim=2)
        )
        @ value
    )
""",
    ),
    (
        "heads",
        "chunk/cat",
        """def split_heads(x, n_heads):
    return torch.stack(x.chunk(n_heads, dim=-1), dim=1)

def merge_heads(heads):
    return torch.cat(list(heads.unbind(1)), dim=-1)
""",
    ),
    (
        "positions",
        "list of lists",
        """def sinusoids(length, d_model):
    return torch.tensor(
        [
            [
                (math.sin if c % 2 == 0 else math.cos)(
                    pos / 10000 ** ((c // 2 * 2) / d_model)
                )
                for c in range(d_model)
            ]
            for pos in range(length)
        ]
    )
""",
    ),
    (
        "positions",
        "exp log slices",
        """def sinusoids(length, d_model):
    pe = torch.zeros(length, d_model, dtype=torch.float64)
    p = torch.arange(length, dtype=torch.float64).unsqueeze(1)
    div = torch.exp(
        torch.arange(0, d_model, 2, dtype=torch.float64)
        * -(math.log(10000.0) / d_model)
    )
    pe[:, 0::2] = torch.sin(p * div)
    pe[:, 1::2] = torch.cos(p * div)
    return pe
""",
    ),
    (
        "norm",
        "loop over rows",
        """def layer_norm(x, gain, bias, eps=1e-5):
    rows = []
    for row in x.reshape(-1, x.shape[-1]):
        m = sum(row) / len(row)
        v = sum((row - m) ** 2) / len(row)
        rows.append((row - m) / (v + eps) ** 0.5 * gain + bias)
    return torch.stack(rows).reshape(x.shape)
""",
    ),
    (
        "bug_leak",
        "a mask without order, a large change",
        """def sees_hidden(attention):
    q, k, v = torch.randn(3, 1, 3, 4)
    mask = torch.tensor([[1, 1, 0], [0, 1, 1], [1, 0, 1]]).bool()
    before = attention(q, k, v, mask)
    for i in range(3):
        k2, v2 = k.clone(), v.clone()
        k2[:, ~mask[i]] = k2[:, ~mask[i]] * 7 + 1000
        v2[:, ~mask[i]] -= 10000
        if (attention(q, k2, v2, mask)[:, i] - before[:, i]).abs().max() > 1e-3:
            return True
    return False

def repaired_attention(query, key, value, mask):
    s = torch.einsum("bqd,bkd->bqk", query, key) * query.shape[-1] ** -0.5
    w = torch.exp(s) * mask
    return (w / w.sum(-1, keepdim=True).clamp(min=1e-30)) @ value
""",
    ),
    (
        "experiment_root",
        "formula",
        """def saturation(query, key, scaled):
    s = query @ key.T
    if scaled:
        s = s / query.shape[1] ** 0.5
    w = torch.softmax(s, 1)
    top, at = w.max(1)
    sq = (w**2).sum(1) - top**2
    return {
        "std": float(s.std()),
        "largest": float(top.mean()),
        "gradient": float((top * ((1 - top) ** 2 + sq).sqrt()).mean()),
    }
""",
    ),
    (
        "smoothing",
        "library",
        """def smoothed_targets(labels, vocab_size, smoothing):
    t = torch.zeros(len(labels), vocab_size)
    for i, l in enumerate(labels.tolist()):
        if l == PAD:
            continue
        for c in range(vocab_size):
            if c != PAD:
                t[i, c] = smoothing / (vocab_size - 1) + (1 - smoothing) * (
                    c == l
                )
    return t

def smoothed_loss(logits, labels, smoothing):
    keep = labels != PAD
    return nn.functional.cross_entropy(
        logits[keep][:, 1:], labels[keep] - 1, label_smoothing=smoothing
    )
""",
    ),
    (
        "schedule",
        "if/else float32",
        """def rate(step, d_model, warmup):
    if step == 0:
        step = 1
    s = torch.tensor(float(step))
    if step < warmup:
        r = s / torch.tensor(float(warmup)).pow(1.5)
    else:
        r = 1 / s.sqrt()
    return r / math.sqrt(d_model)
""",
    ),
    (
        "train_step",
        "one backward",
        """def train_step(model, optimizer, pieces, rate, clip):
    model.zero_grad()
    losses = [model(p) for p in pieces]
    n = sum([p.n_tokens for p in pieces])
    loss = sum(losses) / n
    loss.backward()
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
    if norm > clip:
        for p in model.parameters():
            p.grad.mul_(clip / norm)
    for g in optimizer.param_groups:
        g["lr"] = rate
    optimizer.step()
    return loss.detach()
""",
    ),
    (
        "bug_validation",
        "inference_mode",
        """@torch.inference_mode()
def validation_loss(model, batches):
    t = model.training
    model.eval()
    s = sum(float(model(b)) for b in batches) / sum(b.n_tokens for b in batches)
    if t:
        model.train()
    return s
""",
    ),
    (
        "bug_validation",
        "deepcopy",
        """import copy

def validation_loss(model, batches):
    twin = copy.deepcopy(model).eval()
    with torch.no_grad():
        return sum(twin(b).item() for b in batches) / sum(
            b.n_tokens for b in batches
        )
""",
    ),
    (
        "experiment_rate",
        "statistics",
        """import statistics

def sweep(train, rates, seeds):
    out = {}
    for r in rates:
        x = [statistics.mean(train(r, s)[-10:]) for s in seeds]
        out[r] = [statistics.mean(x), statistics.stdev(x)]
    return out

def best_rate(results):
    best, low = None, math.inf
    for r, (m, s) in results.items():
        if m < low:
            best, low = r, m
    return best
""",
    ),
    (
        "bpe",
        "max with sorted",
        """def learn_merges(counts, n_merges):
    words = [(list(w) + ["_"], c) for w, c in counts.items()]
    out = []
    while len(out) < n_merges:
        seen = {}
        for sy, c in words:
            for i in range(len(sy) - 1):
                seen[sy[i], sy[i + 1]] = seen.get((sy[i], sy[i + 1]), 0) + c
        if not seen:
            break
        top = max(seen.values())
        pair = sorted(p for p in seen if seen[p] == top)[0]
        out.append(pair)
        for sy, _ in words:
            glue(sy, pair)
    return out

def glue(sy, pair):
    i = 0
    while i < len(sy) - 1:
        if (sy[i], sy[i + 1]) == pair:
            sy[i : i + 2] = ["".join(pair)]
        i += 1

def segment(word, merges):
    sy = list(word + "_")
    for p in merges:
        glue(sy, p)
    return sy
""",
    ),
    (
        "decoding",
        "python lists",
        """@torch.no_grad()
def greedy(model, src, limit):
    c = model.start(src, limit + 1)
    out = [BOS]
    while len(out) <= limit:
        out.append(int(model.step(torch.tensor([out[-1:]]), c).argmax(-1)))
        if out[-1] == EOS:
            return out[1:-1]
    return out[1:]

@torch.no_grad()
def beam(model, src, beam_size, alpha, limit):
    c = model.start(src, limit + 1)
    live, done = [(0.0, [BOS])], []
    while live:
        lp = torch.log_softmax(
            model.step(torch.tensor([[t[-1]] for _, t in live]), c)[:, 0], -1
        )
        cand = [
            (s + float(lp[i, v]), i, t + [v])
            for i, (s, t) in enumerate(live)
            for v in range(lp.shape[1])
        ]
        cand = sorted(cand, key=lambda x: -x[0])[:beam_size]
        keep, live = [], []
        for s, i, t in cand:
            if t[-1] == EOS or len(t) - 1 == limit:
                done.append((s / ((5 + len(t) - 1) / 6) ** alpha, t))
            else:
                live.append((s, t))
                keep.append(i)
        if live:
            c.keep(torch.tensor(keep))
    best = max(done)[1][1:]
    return best[:-1] if best[-1] == EOS else best
""",
    ),
    (
        "bleu",
        "numpy/torch float32",
        """def corpus_bleu(hypotheses, references):
    p = []
    for n in range(1, 5):
        hit = tot = 0
        for h, r in zip(hypotheses, references):
            rg = [" ".join(r[i : i + n]) for i in range(len(r) - n + 1)]
            for i in range(len(h) - n + 1):
                tot += 1
                g = " ".join(h[i : i + n])
                if g in rg:
                    rg.remove(g)
                    hit += 1
        if hit == 0:
            return 0
        p.append(hit / tot)
    H = sum(map(len, hypotheses))
    R = sum(map(len, references))
    return torch.tensor(p).prod().pow(0.25) * 100 * min(1, math.exp(1 - R / H))
""",
    ),
    (
        "bug_prepare",
        "order of appearance",
        """def prepare(train, test, max_length):
    voc = {}
    for t in train:
        for w in t.split():
            voc.setdefault(w, len(voc) + UNK + 1)
    out = {}
    for n, ts in {"test": test, "train": train}.items():
        ids = [
            torch.tensor(
                [voc.get(w, UNK) for w in t.split()][: max_length - 1] + [EOS]
            )
            for t in ts
        ]
        out[n] = torch.nn.utils.rnn.pad_sequence(
            ids, batch_first=True, padding_value=PAD
        )
    return voc, out
""",
    ),
    (
        "decoding",
        "tuples",
        """def greedy(model, src, limit):
    with torch.no_grad():
        cache = model.start(src, limit + 5)
        out, t = (), BOS
        for _ in range(limit):
            t = int(model.step(torch.LongTensor([[t]]), cache)[0, 0].topk(1).indices)
            if t == EOS: return out
            out += (t,)
        return out
def beam(model, src, beam_size, alpha, limit):
    cache = model.start(src, limit + 5)
    hyps = [([], 0.0)]
    best = (-math.inf, [])
    n = 0
    while hyps and n < limit:
        n += 1
        ids = torch.tensor([[h[-1] if h else BOS] for h, _ in hyps])
        out = model.step(ids, cache)
        lp = out.squeeze(1).log_softmax(1)
        ext = []
        for r, (h, s) in enumerate(hyps):
            for v in lp[r].topk(min(beam_size, lp.size(1))).indices.tolist():
                ext.append((s + lp[r, v].item(), r, h + [v]))
        ext.sort(reverse=True)
        hyps, rows = [], []
        for s, r, h in ext[:beam_size]:
            if h[-1] == EOS or n == limit:
                words = [x for x in h if x != EOS]
                best = max(best, (s / math.pow((5 + n) / 6, alpha), words))
            else:
                hyps.append((h, s)); rows.append(r)
        if rows: cache.keep(torch.tensor(rows))
    return best[1]
""",
    ),
    (
        "bug_prepare",
        "a list of two",
        """def prepare(train, test, max_length):
    c = Counter(w for s in train for w in s.split())
    v = {w: UNK + 1 + i for i, (w, _) in enumerate(c.most_common())}
    res = {}
    for k, texts in {'train': train, 'test': test}.items():
        ids = [[*(v[w] if w in v else UNK for w in s.split()), EOS] for s in texts]
        ids = [r if len(r) <= max_length else r[:max_length - 1] + [EOS] for r in ids]
        n = max(map(len, ids))
        pad = torch.nn.functional.pad
        res[k] = torch.stack(
            [pad(torch.tensor(r), (0, n - len(r)), value=PAD) for r in ids]
        )
    return [v, res]
""",
    ),
    (
        "rms_norm",
        "einsum, addcmul",
        """def rms_norm(x, gain, eps=1e-5):
    d = x.shape[-1]
    ms = torch.einsum("...d,...d->...", x, x) / d
    return x / torch.sqrt(ms + eps).unsqueeze(-1) * gain

def scaled_block(x, norm, sublayer, scale):
    y = sublayer(norm(x))
    return torch.addcmul(x, y, scale)
""",
    ),
    (
        "rms_norm",
        "rows and columns",
        """def rms_norm(x, gain, eps=1e-5):
    rows = []
    for row in x.reshape(-1, len(gain)):
        ms = sum(n**2 for n in row) / len(row)
        rows.append(torch.stack([g * n / (ms + eps) ** 0.5 for g, n in zip(gain, row)]))
    return torch.stack(rows).reshape(x.shape)

def scaled_block(x, norm, sublayer, scale):
    branch = sublayer(norm(x)) @ torch.diag(scale)
    return branch + x
""",
    ),
    (
        "lamb",
        "in place on copies, an epsilon-free clip",
        """def lamb_step(weight, gradient, m, v, t, rate, decay):
    m, v, w = m.clone(), v.clone(), weight.clone()
    m.lerp_(gradient, 1 - BETA1)
    v.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
    u = m / (1 - BETA1**t) / (torch.sqrt(v / (1 - BETA2**t)) + EPS)
    u.add_(w, alpha=decay)
    a = torch.linalg.matrix_norm(w)
    b = torch.linalg.matrix_norm(u)
    r = torch.where((a > 0) & (b > 0), a / b, torch.ones(()))
    w.sub_(rate * r * u)
    return w, m, v
""",
    ),
    (
        "lamb",
        "Python's numbers, a list",
        """def lamb_step(weight, gradient, m, v, t, rate, decay):
    m = [[0.9 * a + 0.1 * g for a, g in zip(*rows)] for rows in zip(m, gradient)]
    v = [[0.999 * a + 0.001 * g**2 for a, g in zip(*rows)] for rows in zip(v, gradient)]
    m, v = torch.tensor(m), torch.tensor(v)
    scale = (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
    u = scale * m / (v.sqrt() + EPS * (1 - 0.999**t) ** 0.5) + decay * weight
    w_len, u_len = float((weight**2).sum()) ** 0.5, float((u**2).sum()) ** 0.5
    ratio = 1.0
    if w_len != 0 and u_len != 0:
        ratio = w_len / u_len
    return [weight - rate * ratio * u, m, v]
""",
    ),
    (
        "shared",
        "the count first, then one long vector",
        """def shared_gradient(model, piece, all_reduce):
    mine = piece.n_tokens
    n = torch.tensor([mine])
    all_reduce(n)
    parameters = list(model.parameters())
    sizes = [p.numel() for p in parameters]
    flat = torch.zeros(sum(sizes) + 1)
    if mine > 0:
        loss = model(piece) * mine / n
        grads = torch.autograd.grad(loss, parameters)
        flat = torch.cat([g.flatten() for g in grads] + [loss.detach()])
    all_reduce(flat)
    for p, g in zip(parameters, flat[:-1].split(sizes)):
        p.grad = g.view_as(p).clone()
    return flat[-1]

def ddp_loss(loss, n_tokens, all_reduce, n_processes):
    total = torch.zeros(1)
    total[0] = n_tokens
    all_reduce(total)
    return loss * (n_tokens / (total.item() / n_processes))
""",
    ),
    (
        "shared",
        "the sum of squares of nothing",
        """def shared_gradient(model, piece, all_reduce):
    count = torch.tensor(piece.n_tokens, dtype=torch.float64)
    all_reduce(count)
    weight = piece.n_tokens / count.item()
    if weight == 0:
        loss = sum((0 * p).sum() for p in model.parameters())
    else:
        loss = weight * model(piece)
    loss.backward()
    for p in model.parameters():
        all_reduce(p.grad)
    all_reduce(loss)
    return float(loss)

def ddp_loss(loss, n_tokens, all_reduce, n_processes):
    mean = torch.full((1,), n_tokens / n_processes)
    all_reduce(mean)
    return n_tokens * loss / mean
""",
    ),
    (
        "bug_mask_words",
        "loops, one draw a word",
        """def mask_words(ids, vocab_size, generator):
    def draw():
        return torch.rand((), generator=generator).item()

    inputs, labels = ids.clone(), torch.full_like(ids, IGNORE)
    for i, row in enumerate(ids.tolist()):
        for j, word in enumerate(row):
            if word <= MASK or draw() >= 0.15:
                continue
            labels[i, j] = word
            x = draw()
            if x < 0.1:
                inputs[i, j] = MASK + 1 + int(draw() * (vocab_size - MASK - 1))
            elif x < 0.9:
                inputs[i, j] = MASK
    return inputs, labels
""",
    ),
    (
        "bug_mask_words",
        "draws for the chosen alone, half of the rest",
        """def mask_words(ids, vocab_size, generator):
    p = torch.zeros(ids.shape)
    p[ids > MASK] = 0.15
    at = torch.bernoulli(p, generator=generator).bool()
    labels = ids.masked_fill(~at, IGNORE)
    words = ids[at]
    hidden = torch.bernoulli(torch.full(words.shape, 0.8), generator=generator).bool()
    half = torch.bernoulli(torch.full(words.shape, 0.5), generator=generator).bool()
    new = torch.randint(vocab_size - MASK - 1, words.shape, generator=generator)
    words[hidden] = MASK
    words[~hidden & half] = (new + MASK + 1)[~hidden & half]
    inputs = ids.clone()
    inputs[at] = words
    return [inputs, labels]
""",
    ),
    (
        "int8",
        "row by row, float sums",
        """def quantize(weight):
    codes, scales = [], []
    for row in weight.tolist():
        s = max(abs(x) for x in row) / 127 or 1.0
        scales.append(s)
        codes.append([max(-127, min(127, round(x / s))) for x in row])
    return torch.tensor(codes, dtype=torch.int8), torch.tensor(scales)

def int8_product(x, x_scale, weight, weight_scale):
    a = x.float() * x_scale.unsqueeze(1)
    return a @ (weight.float() * weight_scale.unsqueeze(1)).t()
""",
    ),
    (
        "int8",
        "clamped scales, einsum, outer product",
        """def quantize(weight):
    scale = torch.linalg.vector_norm(weight, ord=float("inf"), dim=1) / 127
    scale = scale.clamp(min=torch.finfo(weight.dtype).tiny)
    codes = torch.round(weight / scale.view(-1, 1)).char()
    return codes, scale

def int8_product(x, x_scale, weight, weight_scale):
    sums = torch.einsum("bi,oi->bo", x.long(), weight.long())
    return torch.outer(x_scale, weight_scale).mul(sums)
""",
    ),
]
