"""Checks of Part III, translation: BPE, decoding with a cache, BLEU, preparing text."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from annotated_transformer.checks.common import (
    Function,
    Mistake,
    ask,
    compare,
    need,
    need_number,
    need_tensor,
    seeded,
    verdict,
)
from annotated_transformer.tokenizers import BOS, EOS, PAD, UNK

Pair = tuple[str, str]
END = "_"  # the mark at the end of a word


def pair_counts(words: dict[tuple[str, ...], int]) -> Counter[Pair]:
    """How often each pair of neighbors stands in the corpus."""
    counts: Counter[Pair] = Counter()
    for symbols, n in words.items():
        for pair in pairwise(symbols):
            counts[pair] += n
    return counts


def join(symbols: Sequence[str], pair: Pair) -> tuple[str, ...]:
    """Join each such pair, from left to right."""
    joined, i = [], 0
    while i < len(symbols):
        if tuple(symbols[i : i + 2]) == pair:
            joined.append(symbols[i] + symbols[i + 1])
            i += 2
        else:
            joined.append(symbols[i])
            i += 1
    return tuple(joined)


def bpe_merges(
    counts: dict[str, int],
    n_merges: int,
    choose: Callable[[Counter[Pair]], Pair] | None = None,
    *,
    weighted: bool = True,
    mark: bool = True,
) -> list[Pair]:
    """Learn merges; `choose` and the switches make the wrong versions we know."""
    words = {
        tuple(word) + ((END,) if mark else ()): n if weighted else 1
        for word, n in counts.items()
    }
    merges = []
    for _ in range(n_merges):
        pairs = pair_counts(words)
        if not pairs:
            break
        best = (choose or first_of_the_most_frequent)(pairs)
        merges.append(best)
        merged: Counter[tuple[str, ...]] = Counter()
        for symbols, n in words.items():
            merged[join(symbols, best)] += n
        words = dict(merged)
    return merges


def first_of_the_most_frequent(pairs: Counter[Pair]) -> Pair:
    """The most frequent pair; among equals, the first in the alphabet."""
    return min(pairs, key=lambda pair: (-pairs[pair], pair))


def random_words(seed: int, letters: str = "abcde", n: int = 14) -> dict[str, int]:
    """Made-up words and how often they occur."""
    g = seeded(seed)
    words: dict[str, int] = {}
    while len(words) < n:
        length = int(torch.randint(2, 7, (1,), generator=g))
        picks = torch.randint(len(letters), (length,), generator=g)
        word = "".join(letters[i] for i in picks.tolist())
        words[word] = int(torch.randint(1, 30, (1,), generator=g))
    return words


def check_merges(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`learn_merges(counts, n_merges)`: the pairs that BPE joins, in order (§5.1).

    Parts: "count" (no ties), "ties" (the first in the alphabet), "end" (nothing left).
    """
    return verdict(function, part, seed, count=_count, ties=_ties, end=_end)


def _merges_of(function: Function, counts: dict[str, int], n: int) -> list[Pair]:
    found = ask(function, counts, n)
    need(
        isinstance(found, list), f"return a list of pairs, not a {type(found).__name__}"
    )
    need(
        all(isinstance(pair, tuple) and len(pair) == 2 for pair in found),
        "each merge is a pair of strings, ('a', 'b'): not the joined symbol",
    )
    return found


def _count(function: Function, seed: int) -> None:
    for attempt in range(100):  # words without a tie on the way
        counts = random_words(1000 * seed + attempt)
        right = bpe_merges(counts, 6)
        late = bpe_merges(counts, 6, lambda p: max(p, key=lambda pair: (p[pair], pair)))
        by_type = bpe_merges(counts, 6, weighted=False)
        rare = bpe_merges(counts, 6, lambda p: min(p, key=lambda pair: (p[pair], pair)))
        bare = bpe_merges(counts, 6, mark=False)
        if right == late and right not in (by_type, rare, bare) and right[:6] != bare:
            break
    found = _merges_of(function, counts, 6)
    first = pair_counts({(*word, END): n for word, n in counts.items()})
    once = [pair for pair, _ in first.most_common(6)]
    compare(
        found,
        right,
        (
            (
                by_type,
                "each word counts once: a pair counts as often as its word occurs",
            ),
            (rare, "these are the RAREST pairs: take the most frequent"),
            (bare, "where is the end mark? Each word ends with '_'"),
            (
                right[:1] * 6,
                "the same pair each time: is it joined in the words, before you count "
                "again?",
            ),
            (once, "the pairs are counted only once: count again after each merge"),
            (right[:5], "one merge too few: n_merges are wanted"),
            (bpe_merges(counts, 7), "one merge too many: n_merges are wanted"),
            ([(b, a) for a, b in right], "the pairs are the wrong way round"),
        ),
        f"merges 1 to 6 should be {right}, not {found}: is each new symbol used like "
        "any other?",
    )


def _ties(function: Function, seed: int) -> None:
    letters = "klmn" if seed == 0 else "pqrstuv"[seed % 3 : seed % 3 + 4]
    a, b, c, d = list(letters)
    # Each pair as often as the others; neither end of the alphabet comes first.
    counts = {c + b: 5 + seed % 4, d + c: 5 + seed % 4, b + a: 5 + seed % 4}
    right = bpe_merges(counts, 2)
    found = _merges_of(function, counts, 2)
    compare(
        found,
        right,
        (
            (
                bpe_merges(counts, 2, lambda p: max(p, key=lambda x: p[x])),
                "a tie went to the pair that was seen first: the first in the alphabet "
                "wins, so that the order of the words does not matter",
            ),
            (
                bpe_merges(counts, 2, lambda p: max(p, key=lambda x: (p[x], x))),
                "a tie went to the LAST pair in the alphabet: the first one wins",
            ),
        ),
        f"with ties, the merges should be {right}, not {found}",
    )


def _end(function: Function, seed: int) -> None:
    word = "ab" if seed == 0 else "pqrstuvw"[: 3 + seed % 4]
    try:
        found = _merges_of(function, {word: 3}, 50)
    except (ValueError, IndexError) as error:
        raise Mistake(
            f"nothing is left to merge, and it fails ({error}): stop there"
        ) from None
    rare = {word: 1}  # a pair that occurs once is a pair
    if len(found) == len(word) and len(_merges_of(function, rare, 50)) < len(word):
        raise Mistake("it stops at pairs that occur once: stop when NO pair is left")
    need(
        len(found) == len(word),
        f"{word!r} alone has {len(word)} merges, not {len(found)}: its letters and '_' "
        "become one symbol, and nothing is left",
    )


def check_segment(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`segment(word, merges)`: a word cut by the merges, in the order learned."""
    return verdict(function, part, seed, order=_order)


def cut_in_order(word: str, merges: Iterable[Pair]) -> list[str]:
    """Each merge in its turn, from left to right."""
    symbols = (*word, END)
    for pair in merges:
        symbols = join(symbols, pair)
    return list(symbols)


def cut_longest_first(word: str, merges: Iterable[Pair]) -> list[str]:
    """A wrong version: the longest known symbol that fits, and so on."""
    pieces, rest, known = [], word + END, {a + b for a, b in merges}
    while rest:
        n = max(i for i in range(1, len(rest) + 1) if i == 1 or rest[:i] in known)
        pieces.append(rest[:n])
        rest = rest[n:]
    return pieces


def _order(function: Function, seed: int) -> None:
    fixed = [("b", "c"), ("a", "b"), ("a", "a"), ("bc", "_")]
    learned = bpe_merges(random_words(seed, "abc"), 8)
    cases = [(word, fixed) for word in ("abc", "aaaa", "aaa", "abab")]
    cases += [(word, learned) for word in random_words(seed + 1, "abc", 6)]
    found = []
    for word, merges in cases:
        symbols = ask(function, word, merges)
        need(
            isinstance(symbols, list | tuple),
            f"return a list of symbols, not a {type(symbols).__name__}",
        )
        need(
            "".join(symbols) == word + END,
            f"{word!r} comes back as {''.join(symbols)!r}: the pieces of a word and "
            "its end mark '_' must join to the same text",
        )
        found.append(list(symbols))
    right = [cut_in_order(word, merges) for word, merges in cases]
    if found == right:
        return
    i = next(i for i in range(len(cases)) if found[i] != right[i])
    compare(
        found,
        right,
        (
            (
                [cut_in_order(word, merges[::-1]) for word, merges in cases],
                "the merges apply in the order learned: yours run backwards",
            ),
            (
                [cut_longest_first(word, merges) for word, merges in cases],
                "that is the longest match: merges apply in the order learned",
            ),
            ([[*word, END] for word, _ in cases], "nothing is joined"),
        ),
        f"{cases[i][0]!r} with {cases[i][1]} should be {right[i]}, not {found[i]}: "
        "every such pair is joined, from left to right, merge after merge",
    )


VOCAB = 9


class TableCache:
    """The cache of a TableModel: what each row has read so far."""

    def __init__(self, model: "TableModel", rows: int, capacity: int):
        self.model, self.step, self.capacity = model, 0, capacity
        self.histories: list[tuple[int, ...]] = [()] * rows

    def keep(self, rows: Any) -> None:
        """Go on with these rows, in this order."""
        self.model.kept += 1
        rows = rows.tolist() if isinstance(rows, Tensor) else list(rows)
        need(
            all(0 <= int(row) < len(self.histories) for row in rows),
            f"cache.keep got {[int(row) for row in rows]}, but the cache has rows 0 to "
            f"{len(self.histories) - 1}: name the OLD rows that the new ones come from",
        )
        self.histories = [self.histories[int(row)] for row in rows]


class TableModel:
    """A made-up language model with the interface of `Transformer`, that notes its use.

    The logits of the next token depend on all that was read, by a table drawn from the
    seed: so a search can be checked exactly, and without a trained network.
    """

    training = False

    def __init__(self, seed: int, *, end: float = 0.0):
        self.seed, self.end = seed, end
        self.encoded = self.kept = self.overflow = 0
        self.read: list[Tensor] = []

    def eval(self) -> "TableModel":
        """There is no dropout here."""
        return self

    def start(self, src: Tensor, capacity: int) -> TableCache:
        """Encode the source, once."""
        self.encoded += 1
        return TableCache(self, len(src), capacity)

    def step(self, ids: Tensor, cache: TableCache, tgt_mask: Any = None) -> Tensor:
        """Logits (rows, 1, vocab) after one more token in each row."""
        need(
            isinstance(ids, Tensor) and ids.dim() == 2,
            "step wants ids of shape (rows, 1): one new token in each row",
        )
        need(
            ids.size(1) == 1,
            f"step got {ids.size(1)} tokens a row: the cache knows the earlier ones, "
            "so give the newest alone",
        )
        need(
            ids.size(0) == len(cache.histories),
            f"{ids.size(0)} rows of ids, but the cache has {len(cache.histories)}: "
            "cache.keep(rows) picks its rows, in your order",
        )
        self.read.append(ids.clone())
        cache.step += 1
        self.overflow = max(self.overflow, cache.step - cache.capacity)
        cache.histories = [
            (*history, int(token))
            for history, token in zip(cache.histories, ids[:, 0], strict=True)
        ]
        return torch.stack([self.logits(h) for h in cache.histories])[:, None]

    def __call__(self, src: Tensor, tgt: Tensor) -> Tensor:
        """The whole target again: right, but what the cache is there to avoid."""
        self.encoded += 1
        rows = [
            torch.stack([self.logits(tuple(row[: i + 1])) for i in range(len(row))])
            for row in tgt.tolist()
        ]
        return torch.stack(rows)

    def logits(self, history: tuple[int, ...]) -> Tensor:
        """The scores of the next token, far from normalized."""
        key = self.seed
        for token in history:
            key = (key * 31 + token + 1) % 1_000_003
        g = seeded(key)
        logits = 2.5 * torch.randn(VOCAB, generator=g)
        logits = logits + 4 * torch.randn(1, generator=g)  # shifts no probability
        logits[EOS] += self.end + 0.4 * (len(history) - 4)
        logits[[PAD, BOS, UNK]] = -40.0
        return logits


SRC = torch.tensor([[5, 6, 7, EOS]])


def need_room(model: TableModel) -> None:
    """Every token that was read had its place in the cache."""
    need(
        model.overflow <= 0,
        f"the cache is {model.overflow} too small: model.start(src, limit) makes room "
        "for all tokens",
    )


def greedy_reference(model: TableModel, limit: int, first: int = BOS) -> list[int]:
    """The likeliest token each time, without a cache."""
    history = [first]
    while len(history) <= limit:
        token = int(model.logits(tuple(history)).argmax())
        if token == EOS:
            break
        history.append(token)
    return history[1:]


def check_greedy(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`greedy(model, src, limit)` for one sentence: ids without start and end token.

    Parts: "tokens", "cache" (one encoding, one new token a step).
    """
    return verdict(function, part, seed, tokens=_tokens, cache=_cache)


def _decoded(found: Any) -> list[int]:
    if isinstance(found, Tensor):
        found = found.flatten().tolist()
    need(isinstance(found, list), f"return a list of ids, not a {type(found).__name__}")
    found = [int(token) for token in found]
    need(BOS not in found, "the start token is no output: leave it out")
    need(EOS not in found, "the end token is no output: leave it out")
    return found


def _tokens(function: Function, seed: int) -> None:
    for case in range(4):
        model = TableModel(100 * seed + case, end=0.5 * case)
        found = _decoded(ask_plain(function, model, SRC, 12))
        right = greedy_reference(model, 12)
        compare(
            found,
            right,
            (
                (
                    greedy_reference(model, 12, PAD),
                    "decoding starts from padding: start from BOS, as in training",
                ),
                (
                    greedy_reference(model, 12, EOS),
                    "decoding starts from EOS: start from BOS, as in training",
                ),
                (right[:-1], "the last token is missing: only EOS is left out"),
                (right[1:], "the first token is missing: only BOS is left out"),
            ),
            f"with the likeliest token each time it is {right}, not {found}",
        )
    model = TableModel(seed, end=-60.0)  # never ends by itself
    right = greedy_reference(model, 5)
    found = _decoded(ask_plain(function, model, SRC, 5))
    need(
        len(found) >= 5,
        f"limit 5 allows 5 tokens, not {len(found)}",
    )
    need(
        len(found) <= 5,
        f"a model that never says EOS: stop after limit (5) tokens, not {len(found)}",
    )
    need(found == right, f"without EOS it is {right}, not {found}")


def ask_plain(function: Function, *arguments: Any) -> Any:
    """What the function answers to the arguments themselves."""
    answer = function(*arguments)
    if answer is None or answer is ...:
        raise Mistake("not done yet")
    return answer


def need_cache(model: TableModel) -> None:
    """A Mistake unless the source was encoded once, and decoded step by step."""
    need(
        model.read,
        "the cache is not used: model.start once, then model.step for each token",
    )
    need(
        model.encoded == 1,
        f"the source was encoded {model.encoded} times: call model.start once, before "
        "the loop",
    )


def _cache(function: Function, seed: int) -> None:
    model = TableModel(100 * seed + 1, end=-1.0)
    found = _decoded(ask_plain(function, model, SRC, 99))
    need_cache(model)
    need(
        int(model.read[0][0, 0]) == BOS,
        f"the first token read is {int(model.read[0][0, 0])}: start from BOS ({BOS}), "
        "as in training",
    )
    need(
        len(model.read) <= len(found) + 1,
        f"{len(model.read)} steps for {len(found)} tokens: stop when EOS comes",
    )
    need_room(model)
    right = greedy_reference(model, 99)
    need(found == right, f"with the cache it says {found}, without {right}")


def beam_reference(
    model: TableModel,
    beam_size: int,
    alpha: float,
    limit: int,
    *,
    raw: bool = False,
    first: int = BOS,
    count_end: int = 0,
    multiply: bool = False,
    early: bool = False,
    live_only: bool = False,
    lost_order: bool = False,
    penalty: Callable[[int, float], float] | None = None,
) -> list[int]:
    """Beam search without a cache; the switches make the wrong versions we know."""
    penalty = penalty or (lambda n, alpha: ((5 + n) / 6) ** alpha)
    live: list[tuple[float, tuple[int, ...]]] = [(0.0, (first,))]
    seen: list[tuple[int, ...]] = [
        (first,)
    ]  # what the cache would hold, if it were not reordered
    ended: list[tuple[float, list[int]]] = []
    for length in range(1, limit + 1):
        candidates = []
        for row, (score, history) in enumerate(live):
            logits = model.logits(seen[row] if lost_order else history)
            steps = logits if raw else logits.log_softmax(-1)
            for token, step in enumerate(steps.tolist()):
                candidates.append((score + step, row, (*history, token)))
        candidates.sort(key=lambda c: -c[0])
        live, rows = [], []
        for score, row, history in candidates[:beam_size]:
            if history[-1] == EOS or length == limit:
                n = length - (count_end if history[-1] == EOS else 0)
                divisor = penalty(n, alpha)
                final = score * divisor if multiply else score / divisor
                words = list(history[1:-1] if history[-1] == EOS else history[1:])
                if not (live_only and history[-1] == EOS):
                    ended.append((final, words))
            else:
                live.append((score, history))
                rows.append(row)
        if lost_order:
            kept = list(range(len(rows)))
            seen = [
                (*seen[min(k, len(seen) - 1)], h[-1])
                for k, (_, h) in zip(kept, live, strict=True)
            ]
        if not live or (early and ended):
            break
    if not ended:
        return list(live[0][1][1:]) if live else []
    return max(ended, key=lambda pair: pair[0])[1]


def check_beam(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`beam(model, src, beam_size, alpha, limit)`: the best ids of a sentence (§6.1).

    Parts: "search" (alpha 0), "penalty", "cache" (one encoding; rows kept in order).
    """
    return verdict(
        function,
        part,
        seed,
        search=lambda f, seed: _beam(f, seed, (0.0,)),
        penalty=lambda f, seed: _beam(f, seed, (0.6, 2.0)),
        cache=_beam_cache,
    )


def _beam(function: Function, seed: int, alphas: Sequence[float]) -> None:
    """Compare many small searches; a mistake is named if it explains all outputs."""
    cases = [
        (TableModel(1000 * seed + i, end=(-1.0, 0.0, 1.0)[i % 3]), size, alpha)
        for i in range(12)
        for size in (1, 2, 4)
        for alpha in alphas
    ]
    limit = 8
    found = [
        _decoded(ask_plain(function, model, SRC, size, alpha, limit))
        for model, size, alpha in cases
    ]

    def version(**switches: Any) -> list[list[int]]:
        return [
            beam_reference(model, size, alpha, limit, **switches)
            for model, size, alpha in cases
        ]

    right = version()
    if found == right:
        return
    greedy = [beam_reference(model, 1, 0.0, limit) for model, _, _ in cases]
    no_penalty = [beam_reference(model, n, 0.0, limit) for model, n, _ in cases]
    for wrong, message in (
        (greedy, "that is greedy search, whatever the beam: expand every hypothesis"),
        (version(raw=True), "logits are no log-probabilities: take log_softmax first"),
        (version(first=PAD), "decoding starts from padding: start from BOS"),
        (
            version(lost_order=True),
            "the cache was not reordered: after each choice call cache.keep(origin)",
        ),
        (
            version(early=True),
            "the first hypothesis to end is taken: go on, another may still be better",
        ),
        (
            version(live_only=True),
            "hypotheses that ended are lost: keep them, and compare at the end",
        ),
        (no_penalty, "alpha changes nothing: divide by ((5 + length) / 6) ** alpha"),
        (
            version(multiply=True),
            "the penalty divides the (negative) log-probability: you multiply",
        ),
        (version(count_end=1), "the length counts the end token, too"),
        (
            version(penalty=lambda n, alpha: max(n, 1) ** alpha),
            "you divide by length ** alpha: the paper has ((5 + length) / 6) ** alpha",
        ),
        (
            version(penalty=lambda n, alpha: max(n, 1)),
            "alpha is not used: you divide by the length itself",
        ),
        (
            version(penalty=lambda n, alpha: ((5 + n) / 6) ** -alpha),
            "the penalty divides the (negative) log-probability: you multiply",
        ),
    ):
        if found == wrong and wrong != right:
            raise Mistake(message)
    i = next(i for i in range(len(cases)) if found[i] != right[i])
    raise Mistake(
        f"beam_size {cases[i][1]} and alpha {cases[i][2]} should find {right[i]}, "
        f"not {found[i]}"
    )


def _beam_cache(function: Function, seed: int) -> None:
    model = TableModel(1000 * seed + 7, end=-2.0)
    found = _decoded(ask_plain(function, model, SRC, 3, 0.6, 8))
    need_cache(model)
    need(
        model.kept > 0,
        "the cache was never reordered: after each choice call cache.keep(origin)",
    )
    need(
        len(model.read) <= 8,
        f"{len(model.read)} steps with limit 8: one step a position, for all beams",
    )
    need_room(model)
    right = beam_reference(model, 3, 0.6, 8)
    need(found == right, f"with the cache it finds {found}, without {right}")


def n_grams(
    tokens: Sequence[str], n: int, missing: int = 0
) -> Counter[tuple[str, ...]]:
    """How often each run of n tokens occurs; the last ones can be left out."""
    starts = range(len(tokens) - n + 1 - missing)
    return Counter(tuple(tokens[i : i + n]) for i in starts)


def bleu_reference(
    hypotheses: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    *,
    order: int = 4,
    clip: bool = True,
    brevity: bool = True,
    arithmetic: bool = False,
    recall: bool = False,
    turned: bool = False,
    linear: bool = False,
    any_length: bool = False,
    missing: int = 0,
) -> float:
    """Corpus BLEU, 0 to 100; the switches make the wrong versions that checks know."""
    hits, totals = [0] * order, [0] * order
    for ours, theirs in zip(hypotheses, references, strict=True):
        for n in range(1, order + 1):
            a, b = n_grams(ours, n, missing), n_grams(theirs, n, missing)
            hits[n - 1] += sum(
                min(k, b[g]) if clip else k * (g in b) for g, k in a.items()
            )
            totals[n - 1] += sum((b if recall else a).values())
    if 0 in hits:
        return 0.0
    precisions = [hit / total for hit, total in zip(hits, totals, strict=True)]
    mean = math.exp(sum(map(math.log, precisions)) / order)
    if arithmetic:
        mean = sum(precisions) / order
    c, r = (sum(map(len, side)) for side in (hypotheses, references))
    if turned:
        c, r = r, c
    short = any_length or c < r
    penalty = (c / r if linear else math.exp(1 - r / c)) if brevity and short else 1.0
    return 100 * penalty * mean


def bleu_case(seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """References, and longer hypotheses that got some words wrong."""
    g = seeded(seed + 11)

    def draw(n: int) -> int:
        return int(torch.randint(n, (1,), generator=g))

    words = "the a dog cat man sees red ball on in".split()
    references, hypotheses = [], []
    for _ in range(5):
        reference = [words[draw(len(words))] for _ in range(7 + draw(6))]
        hypothesis = [w if draw(6) else words[draw(3)] for w in reference]
        hypothesis[0] = hypothesis[1] = "the"  # a word too often: clipping matters
        references.append(reference)
        hypotheses.append(hypothesis)
    hypotheses[0] = [*hypotheses[0], "a", "dog"]
    return hypotheses, references


def check_bleu(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`corpus_bleu(hypotheses, references)`: lists of tokens in, 0 to 100 out (§6.1).

    Parts: "precision" (outputs long enough), "brevity", "zero" (an order without hits).
    """
    return verdict(
        function, part, seed, precision=_precision, brevity=_brevity, zero=_zero
    )


def _precision(function: Function, seed: int) -> None:
    case = bleu_case(seed)
    found = need_number(ask(function, *case))
    right = bleu_reference(*case)
    one_by_one = [bleu_reference([a], [b]) for a, b in zip(*case, strict=True)]

    def version(**switches: Any) -> float:
        return bleu_reference(*case, **switches)

    compare(
        found,
        right,
        (
            (right / 100, "a share: BLEU is given from 0 to 100"),
            (
                version(clip=False),
                "not clipped: an n-gram counts at most as often as in the reference",
            ),
            (
                sum(one_by_one) / len(one_by_one),
                "a mean of sentence scores: add up the counts of the corpus first",
            ),
            (
                version(arithmetic=True),
                "the mean of the four precisions is geometric: through the logarithms",
            ),
            (version(missing=1), "off by one: the last n-gram of each is missing"),
            (version(order=3), "up to 3-grams: there are four orders"),
            (version(order=5), "up to 5-grams: there are four orders"),
            (version(order=1), "single words only: there are four orders"),
            (
                version(turned=True),
                "the brevity penalty is upside down: exp(1 - reference / output)",
            ),
            (
                version(any_length=True),
                "a longer output was rewarded: the penalty is at most 1",
            ),
            (
                version(recall=True),
                "divided by the reference's n-grams: precision divides by the output's",
            ),
        ),
        f"it should be {right:.3f}, not {found:.3f}",
        tolerance=1e-6,
    )


def _own_share(function: Function, case: tuple, references: list) -> float:
    """The score as a share of the student's own best one, whatever its scale."""
    best = need_number(ask(function, references, references))
    need(best > 0, f"references compared with themselves should get 100, not {best}")
    return need_number(ask(function, *case)) / best


def _brevity(function: Function, seed: int) -> None:
    _, references = bleu_case(seed)
    cut = [tokens[: len(tokens) - i] for i, tokens in enumerate(references)]
    right = bleu_reference(cut, references) / 100  # every n-gram right, but too short
    c, r = (sum(map(len, side)) for side in (cut, references))
    each = [math.exp(1 - len(b) / len(a)) for a, b in zip(cut, references, strict=True)]
    compare(
        _own_share(function, (cut, references), references),
        right,
        (
            (1.0, "too short, and no brevity penalty"),
            (math.exp(1 - c / r), "the penalty is upside down: reference / output"),
            (
                c / r,
                "the brevity penalty is exp(1 - reference / output), not the ratio",
            ),
            (
                math.exp(-r / c),
                "the penalty is exp(1 - reference / output): the 1 is lost",
            ),
            (
                sum(each) / len(each),
                "the lengths of the whole corpus count, not a mean",
            ),
        ),
        f"{c} tokens for {r}, all of them right: that should get {100 * right:.2f}",
        tolerance=1e-6,
    )


def _zero(function: Function, seed: int) -> None:
    hypotheses, references = [["a", "b"], ["c"]], [["a", "b", "c", "d"], ["c", "d"]]
    if seed:
        hypotheses, references = [["x", "y", "q"], ["z"]], [["x", "y", "z", "u"], ["z"]]
    try:
        found = need_number(ask(function, hypotheses, references))
    except (ZeroDivisionError, ValueError) as error:
        raise Mistake(
            f"an order without a hit fails ({error}): the score is 0 there"
        ) from None
    need(found == 0, f"no 4-gram is right, so the score is 0, not {found}")
    # A short sentence has no 4-grams, and must not spoil the corpus' score.
    _, references = bleu_case(seed + 1)
    ours = theirs = [*references, ["dog"], []]
    try:
        share = _own_share(function, (ours, theirs), references)
    except (ZeroDivisionError, ValueError) as error:
        raise Mistake(
            f"an output of one word, or of none, fails ({error}): it has no 4-grams, "
            "that is all"
        ) from None
    need(
        math.isclose(share, 1, rel_tol=1e-6),
        "all right, one output a single word and one empty: that should get 100, "
        f"not {100 * share:.2f}",
    )


def check_prepare(function: Function, part: str = "", *, seed: int = 0) -> str:
    """`prepare(train, test, max_length)`: a vocabulary, and a tensor for each split.

    Parts: "vocabulary", "truncation", "padding".
    """
    return verdict(
        function,
        part,
        seed,
        vocabulary=_vocabulary,
        truncation=_truncation,
        padding=_padding_of_split,
    )


def _sentences(seed: int) -> tuple[list[str], list[str], int]:
    names = "dog cat man sun red big runs sees the a".split()
    order = torch.randperm(len(names), generator=seeded(seed + 2)).tolist()
    a, b, c, d, e, f, *_ = [names[i] for i in order]
    train = [f"{a} {b} {a}", f"{b} {c}", f"{d} {a} {b} {c} {d} {a} {b}"]
    test = [f"{a} {e} {b}", f"{f} {a}"]
    return train, test, 5 if seed == 0 else 4 + seed % 2


def _prepared(function: Function, seed: int) -> tuple[dict, dict, tuple, int]:
    train, test, limit = _sentences(seed)
    found = ask(function, train, test, limit)
    need(
        isinstance(found, tuple) and len(found) == 2,
        "return two things: the vocabulary and the dict of tensors",
    )
    vocabulary, tensors = found
    need(
        isinstance(vocabulary, dict), "the vocabulary should be a dict from word to id"
    )
    need(
        isinstance(tensors, dict) and set(tensors) == {"train", "test"},
        "the tensors should be a dict with the keys 'train' and 'test'",
    )
    need(
        all(isinstance(t, Tensor) and t.dim() == 2 for t in tensors.values()),
        "each split should be one tensor (sentence, position)",
    )
    return vocabulary, tensors, (train, test), limit


def _vocabulary(function: Function, seed: int) -> None:
    vocabulary, tensors, (train, test), _ = _prepared(function, seed)
    seen = {word for text in train for word in text.split()}
    only_test = {word for text in test for word in text.split()} - seen
    leaked = sorted(only_test & set(vocabulary))
    need(
        not leaked,
        f"the vocabulary knows {leaked}, which only the test split has: build it from "
        "the training split alone",
    )
    missing = sorted(seen - set(vocabulary))
    need(not missing, f"{missing} of the training split are missing")
    ids = [vocabulary[word] for word in seen]
    need(len(set(ids)) == len(ids), "two words share an id")
    need(
        min(ids) > UNK,
        f"ids 0 to {UNK} are PAD, BOS, EOS and UNK: words begin at {UNK + 1}",
    )
    need(
        max(ids) == UNK + len(ids),
        f"{len(ids)} words, but ids from {min(ids)} to {max(ids)}: begin at {UNK + 1}, "
        "and leave no gap",
    )
    rows = tensors["test"].tolist()
    words = test[0].split()
    wanted = [vocabulary.get(word, UNK) for word in words]
    need(
        rows[0][: len(words)] == wanted,
        f"{test[0]!r} should begin with the ids {wanted} (UNK = {UNK} for a word that "
        f"training never saw), not {rows[0]}",
    )


def _truncation(function: Function, seed: int) -> None:
    _, tensors, (train, test), limit = _prepared(function, seed)
    for split, texts in (("train", train), ("test", test)):
        for text, row in zip(texts, tensors[split].tolist(), strict=True):
            ids = [i for i in row if i != PAD]
            n = min(len(text.split()), limit - 1) + 1
            need(
                ids and ids[-1] == EOS,
                f"{text!r} ends without EOS: cut the WORDS to max_length - 1, then add "
                "it, or the model never learns to stop",
            )
            need(
                len(ids) <= limit,
                f"{text!r} has {len(ids)} ids with EOS, but max_length is {limit}",
            )
            need(
                len(ids) == n,
                f"{text!r} should have {n} ids with EOS, not {len(ids)}: cut no more "
                "than needed",
            )
            need(ids.count(EOS) == 1, f"{text!r} has {ids.count(EOS)} end tokens")


def _padding_of_split(function: Function, seed: int) -> None:
    _, tensors, (train, test), limit = _prepared(function, seed)
    for split, texts in (("train", train), ("test", test)):
        longest = max(min(len(text.split()) + 1, limit) for text in texts)
        tensor = tensors[split]
        width = tensor.size(1)
        need(
            width >= longest,
            f"{split}: {width} columns, but the longest sentence needs {longest}",
        )
        if width > longest and not tensor[:, longest:].any():
            raise Mistake(
                f"{split}: {width} columns, but its longest sentence has {longest}: "
                "pad to the longest sentence at hand, not to max_length"
            )
        need_tensor(tensor, (len(texts), longest), torch.long)
        for text, row in zip(texts, tensor.tolist(), strict=True):
            n = min(len(text.split()) + 1, limit)
            need(
                all(i == PAD for i in row[n:]),
                f"{text!r} is filled with {row[n:]}: fill with PAD ({PAD}), at the end",
            )
