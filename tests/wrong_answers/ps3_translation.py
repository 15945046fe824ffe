"""Wrong answers to problem set 3, the points they deserve, and what must be said."""

from tools.wrong_answers import Wrong

STOP = """        if token == EOS:
            break
"""
WRITE = """        output.append(token)
"""
REPEATED = """cache = model.start(src.expand(beam_size, -1), limit)
    scores, history = torch.full((beam_size,), -math.inf), [[BOS]] * beam_size
    scores[0] = 0.0
"""
LONGEST = """    known, rest, symbols = {a + b for a, b in merges}, word + "_", []
    while rest:
        n = max(i for i in range(1, len(rest) + 1) if i == 1 or rest[:i] in known)
        symbols.append(rest[:n])
        rest = rest[n:]
    return symbols
"""
SEGMENT = """    symbols = [*word, "_"]
    for pair in merges:
        symbols = join_pair(symbols, pair)
    return symbols
"""

WRONG = {
    "bpe": [
        Wrong(
            "each word counted once",
            [("pairs[pair] += n", "pairs[pair] += 1")],
            7,
            "each word counts once",
        ),
        Wrong(
            "a tie goes to the pair seen first",
            [
                (
                    "min(pairs, key=lambda pair: (-pairs[pair], pair))",
                    "max(pairs, key=pairs.get)",
                )
            ],
            8,
            "a tie went to the pair that was seen first",
        ),
        Wrong(
            "a tie goes to the last in the alphabet",
            [
                (
                    "min(pairs, key=lambda pair: (-pairs[pair], pair))",
                    "max(pairs, key=lambda pair: (pairs[pair], pair))",
                )
            ],
            8,
            "a tie went to the LAST pair in the alphabet",
        ),
        Wrong(
            "the rarest pair",
            [("(-pairs[pair], pair)", "(pairs[pair], pair)")],
            7,
            "these are the RAREST pairs",
        ),
        Wrong(
            "no end mark in the words",
            [('(*word, "_"): n for', "(*word,): n for")],
            4,
            "where is the end mark?",
        ),
        Wrong(
            "the words never change",
            [("        words = {tuple(join_pair", "        {tuple(join_pair")],
            4,
            "the same pair each time",
        ),
        Wrong(
            "fails when nothing is left",
            [("        if not pairs:\n            break\n", "")],
            9,
            "nothing is left to merge, and it fails",
        ),
        Wrong(
            "stops at pairs that occur once",
            [("if not pairs:", "if not pairs or max(pairs.values()) < 2:")],
            9,
            "stop when NO pair is left",
        ),
        Wrong(
            "one merge too few",
            [("range(n_merges)", "range(n_merges - 1)")],
            5,
            "one merge too few",
        ),
        Wrong(
            "merges joined to strings",
            [("merges.append(best)", 'merges.append("".join(best))')],
            4,
            "each merge is a pair of strings",
        ),
        Wrong(
            "a word is cut by the longest match",
            [(SEGMENT, LONGEST)],
            6,
            "that is the longest match",
        ),
        Wrong(
            "the merges run backwards",
            [("for pair in merges:", "for pair in reversed(merges):")],
            6,
            "from the last to the first",
        ),
        Wrong(
            "the end mark lost",
            [('symbols = [*word, "_"]', "symbols = [*word]")],
            6,
            "must join to the same text",
        ),
        Wrong(
            "off by one: the last symbol is dropped",
            [("while i < len(symbols):", "while i < len(symbols) - 1:")],
            0,
            "must join to the same text",
        ),
    ],
    "decoding": [
        Wrong(
            "greedy starts from padding",
            [("token, output = BOS, []", "token, output = PAD, []")],
            9,
            "decoding starts from padding: start from BOS",
        ),
        Wrong(
            "greedy writes the end token, too",
            [(STOP + WRITE, WRITE + STOP)],
            9,
            "the end token is no output",
        ),
        Wrong(
            "greedy never stops at the end token",
            [(STOP, "")],
            9,
            "the end token is no output",
        ),
        Wrong(
            "greedy without the cache",
            [
                ("    token, output = BOS, []", "    output, tokens = [], [BOS]"),
                (
                    "model.step(torch.tensor([[token]]), cache)[0, -1]",
                    "model(src, torch.tensor([tokens]))[0, -1]",
                ),
                (
                    "        output.append(token)",
                    "        output.append(token)\n        tokens.append(token)",
                ),
            ],
            12,
            "the cache is not used",
        ),
        Wrong(
            "a cache with room for one token",
            [("model.start(src, limit)", "model.start(src, 1)")],
            10,
            "too small: model.start(src, limit)",
        ),
        Wrong(
            "greedy encodes the source at each step",
            [
                ("    token, output = BOS, []", "    output, tokens = [], [BOS]"),
                (
                    "        token = model.step(torch.tensor([[token]]), cache)[0, -1]",
                    "        cache = model.start(src, limit)\n"
                    "        for old in tokens:\n"
                    "            logits = model.step(torch.tensor([[old]]), cache)\n"
                    "        token = logits[0, -1]",
                ),
                (
                    "        output.append(token)",
                    "        output.append(token)\n        tokens.append(token)",
                ),
            ],
            12,
            "call model.start once, before the loop",
        ),
        Wrong(
            "greedy gives the cache all tokens again",
            [
                ("torch.tensor([[token]])", "torch.tensor([[BOS, *output]])"),
            ],
            9,
            "the cache knows the earlier ones",
        ),
        Wrong(
            "greedy without a limit",
            [
                (
                    "    for _ in range(limit):\n        token",
                    "    while True:\n        token",
                )
            ],
            11,
            "stop after limit (5) tokens",
        ),
        Wrong(
            "beam adds up logits",
            [
                (
                    "model.step(ids, cache)[:, -1].log_softmax(-1)",
                    "model.step(ids, cache)[:, -1]",
                )
            ],
            5,
            "logits are no log-probabilities",
        ),
        Wrong(
            "beam never reorders its cache",
            [("        cache.keep(origin[live])\n", "")],
            5,
            "cache.keep(rows) picks its rows",
        ),
        Wrong(
            "beam keeps the new numbers of its rows, not the old ones",
            [
                ("cache = model.start(src, limit)\n    scores, h", REPEATED + "    h"),
                ("    history = torch.zeros(1), [[BOS]]\n", ""),
                ("cache.keep(origin[live])", "cache.keep(torch.tensor(live))"),
            ],
            5,
            "name the OLD rows that the new ones come from",
        ),
        Wrong(
            "alpha not used",
            [("top[i].item() / ((5 + length) / 6) ** alpha", "top[i].item()")],
            12,
            "alpha changes nothing",
        ),
        Wrong(
            "the penalty multiplied",
            [("top[i].item() / ((5", "top[i].item() * ((5")],
            12,
            "you multiply",
        ),
        Wrong(
            "the length without the end token",
            [("((5 + length) / 6)", "((5 + length - (tokens[-1] == EOS)) / 6)")],
            12,
            "count EOS in the length",
        ),
        Wrong(
            "beam stops at the first end token",
            [
                (
                    "        if not live:\n",
                    "        if not live or best_score > -math.inf:\n",
                )
            ],
            7,
            "the first hypothesis to end is taken",
        ),
        Wrong(
            "a beam of one, whatever beam_size",
            [("min(beam_size, candidates.numel())", "1")],
            5,
            "that is greedy search, whatever the beam",
        ),
        Wrong(
            "the first to end wins, not the best",
            [("if score > best_score:", "if best_score == -math.inf:")],
            7,
            "the first hypothesis to end is taken",
        ),
    ],
    "bleu": [
        Wrong(
            "not clipped",
            [
                (
                    "(ours & theirs).total()",
                    "sum(n for gram, n in ours.items() if gram in theirs)",
                )
            ],
            6,
            "not clipped",
        ),
        Wrong(
            "a mean of sentence scores",
            [
                ("def corpus_bleu", "def one_bleu"),
                (
                    "    return 100 * brevity * mean\n",
                    "    return 100 * brevity * mean\n\n\n"
                    "def corpus_bleu(hypotheses, references):\n"
                    "    pairs = zip(hypotheses, references, strict=True)\n"
                    "    scores = [one_bleu([a], [b]) for a, b in pairs]\n"
                    "    return sum(scores) / len(scores)\n",
                ),
            ],
            0,
            "a mean of sentence scores",
        ),
        Wrong(
            "the arithmetic mean",
            [
                (
                    "math.exp(sum(math.log(share) for share in shares) / 4)",
                    "sum(shares) / 4",
                )
            ],
            6,
            "the mean of the four precisions is geometric",
        ),
        Wrong(
            "no brevity penalty",
            [("math.exp(1 - r / c) if c < r else 1.0", "1.0")],
            7,
            "too short, and no brevity penalty",
        ),
        Wrong(
            "the brevity penalty upside down",
            [("math.exp(1 - r / c) if c < r", "math.exp(1 - c / r) if r < c")],
            3,
            "the brevity penalty is upside down",
        ),
        Wrong(
            "a bonus for long outputs",
            [(" if c < r else 1.0", "")],
            6,
            "the penalty is at most 1",
        ),
        Wrong(
            "the ratio of lengths for the penalty",
            [("math.exp(1 - r / c) if", "c / r if")],
            7,
            "not the ratio",
        ),
        Wrong(
            "from 0 to 1",
            [("100 * brevity", "brevity")],
            6,
            "BLEU is given from 0 to 100",
        ),
        Wrong(
            "off by one: up to 3-grams",
            [
                ("range(1, 5)", "range(1, 4)"),
                ("[0] * 4, [0] * 4", "[0] * 3, [0] * 3"),
                ("in shares) / 4", "in shares) / 3"),
            ],
            6,
            "up to 3-grams",
        ),
        Wrong(
            "recall for precision",
            [("totals[n - 1] += ours.total()", "totals[n - 1] += theirs.total()")],
            3,
            "precision divides by the output's",
        ),
        Wrong(
            "the logarithm of zero",
            [("    if min(hits) == 0:\n        return 0.0\n", "")],
            7,
            "an order without a hit fails",
        ),
        Wrong(
            "off by one in the n-grams: the last is left out",
            [("len(side) - n + 1", "len(side) - n")],
            6,
            "the last n-gram of each is missing",
        ),
    ],
    "bug_prepare": [
        Wrong(
            "the careless one again",
            "prepare = careless_prepare",
            0,
            "build it from the training split alone",
        ),
        Wrong(
            "a vocabulary of both splits",
            [("for text in train for word", "for text in train + test for word")],
            5,
            "which only the test split has",
        ),
        Wrong(
            "the end token cut off",
            [("[*ids[: max_length - 1], EOS]", "[*ids, EOS][:max_length]")],
            5,
            "ends without EOS",
        ),
        Wrong(
            "off by one: one id too many",
            [("ids[: max_length - 1]", "ids[:max_length]")],
            3,
            "but max_length is",
        ),
        Wrong(
            "off by one: one word too few",
            [("ids[: max_length - 1]", "ids[: max_length - 2]")],
            3,
            "cut no more than needed",
        ),
        Wrong(
            "padded to max_length",
            [("width = max(map(len, rows))", "width = max_length")],
            6,
            "pad to the longest sentence at hand, not to max_length",
        ),
        Wrong(
            "UNK among the words",
            [("vocabulary = {word", "vocabulary = {'<unk>': UNK} | {word")],
            5,
            "are no words of the training split",
        ),
        Wrong(
            "words begin at id 0",
            [("start=UNK + 1", "start=0")],
            2,
            "words begin at 4",
        ),
        Wrong(
            "words begin at id 5",
            [("start=UNK + 1", "start=UNK + 2")],
            5,
            "begin at 4, and leave no gap",
        ),
        Wrong(
            "filled with the end token",
            [("[PAD] * (width", "[EOS] * (width")],
            3,
            "fill with PAD (0), at the end",
        ),
        Wrong(
            "padding in front",
            [("row + [PAD] * (width - len(row))", "[PAD] * (width - len(row)) + row")],
            6,
            "at the end",
        ),
        Wrong(
            "unknown words left out",
            [
                (
                    "for word in text.split()]",
                    "for word in text.split() if word in vocabulary]",
                )
            ],
            0,
            "UNK = 3 for a word that training never saw",
        ),
    ],
}
