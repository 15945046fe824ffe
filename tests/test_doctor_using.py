"""Searches, cache, tokenizer and data: the right ones pass, each fault is named."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from annotated_transformer.doctor.patient import Cache, Patient
from annotated_transformer.doctor.script import Script, TooLong
from annotated_transformer.doctor.using import using
from annotated_transformer.doctor.visit import Visit

VOCAB, D_MODEL, LONGEST = 23, 16, 30
PAD, BOS, EOS, UNK = range(4)


class Small(nn.Module):
    """One layer that looks back, and at the source; keys are values."""

    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, D_MODEL)
        self.positions = nn.Embedding(64, D_MODEL)
        self.query, self.key = nn.Linear(D_MODEL, D_MODEL), nn.Linear(D_MODEL, D_MODEL)
        self.out, self.dropout = nn.Linear(D_MODEL, VOCAB), nn.Dropout(0.1)

    def embed(self, ids, first=0):
        places = torch.arange(first, first + ids.size(1), device=ids.device)
        return self.tokens(ids) + self.positions(places)

    def attend(self, x, keys, hidden=None):
        scores = self.query(x) @ keys.mT
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        return x + scores.softmax(-1) @ keys

    def read(self, src):
        return self.key(self.embed(src))

    def forward(self, src, tgt):
        x, length = self.embed(tgt), tgt.size(1)
        hidden = torch.ones(length, length, dtype=torch.bool).triu(1)
        x = self.attend(self.attend(x, self.key(x), hidden), self.read(src))
        return self.out(self.dropout(x))


class Steps:
    """The same one token at a time; the state is memory and keys."""

    def __init__(self, model):
        self.model = model

    def start(self, src):
        return self.model.read(src), torch.zeros(len(src), 0, D_MODEL)

    def place(self, keys):
        return keys.size(1)

    def step(self, ids, state):
        memory, keys = state
        x = self.model.embed(ids[:, None], self.place(keys))
        keys = torch.cat([keys, self.model.key(x)], 1)
        x = self.model.attend(self.model.attend(x, keys), memory)
        return self.model.out(x)[:, 0], (memory, keys)

    def reorder(self, state, rows):
        return tuple(part[rows] for part in state)

    def cache(self):
        return Cache(start=self.start, step=self.step, reorder=self.reorder)


class RestartedSteps(Steps):
    def place(self, keys):
        return 0


class ForgetfulSteps(Steps):
    def step(self, ids, state):
        logits, (memory, keys) = super().step(ids, state)
        return logits, (memory, keys[:, -2:])  # as if the window were two tokens

    def place(self, keys):
        self.count = 0 if not keys.size(1) else self.count + 1
        return self.count


class UnorderedSteps(Steps):
    def reorder(self, state, rows):
        return state


@torch.no_grad()
def greedy(model, src, *, first=BOS, pick=torch.argmax, stop=True, at=-1):
    """Rows with start and end token, as most loops return them."""
    model.eval()
    ids = torch.full((len(src), 1), first)
    ended = torch.zeros(len(src), dtype=torch.bool)
    for _ in range(LONGEST):
        new = pick(model(src, ids)[:, max(at, -ids.size(1))], -1)
        new = new.masked_fill(ended, PAD) if stop else new
        ids = torch.cat([ids, new[:, None]], 1)
        ended |= new == EOS
        if stop and ended.all():
            break
    return ids


def restless(model, src):
    """It forgets eval(), or rather undoes it."""

    def pick(logits, dim):
        model.train()
        return logits.argmax(dim)

    return greedy(model, src, pick=pick)


def second_best(logits, dim):
    return logits.topk(2, dim).indices[..., 1]


@torch.no_grad()
def beam(model, src, beam_size, *, add=True, follow=True):
    """One sentence at a time; a list of lists without start and end token."""
    model.eval()
    outputs = []
    for row in src:
        beams, done = [(0.0, [BOS])], []
        for _ in range(LONGEST):
            tgt = torch.tensor([ids for _, ids in beams])
            logits = model(row.expand(len(beams), -1), tgt)[:, -1].log_softmax(-1)
            old = torch.tensor([score for score, _ in beams])[:, None]
            scores, index = (old * add + logits).flatten().topk(beam_size)
            new = []
            for place, (score, i) in enumerate(
                zip(scores.tolist(), index.tolist(), strict=True)
            ):
                origin = i // logits.size(1) if follow else min(place, len(beams) - 1)
                new.append((score, [*beams[origin][1], i % logits.size(1)]))
            done += [b for b in new if b[1][-1] == EOS]
            beams = [b for b in new if b[1][-1] != EOS]
            if len(done) >= beam_size or not beams:
                break
        _, best = max(done or beams)
        outputs.append([i for i in best[1:] if i != EOS])
    return outputs


@pytest.fixture
def model():
    torch.manual_seed(1)
    return Small()


@pytest.fixture
def patient(model):
    return Patient(
        model=model,
        vocab_size=VOCAB,
        unk=UNK,
        greedy=partial(greedy, model),
        beam=partial(beam, model),
        cache=Steps(model).cache(),
    )


def found(patient, kind="finding", **facts):
    """The results of one kind."""
    results = using(Visit(patient, facts=facts))
    return [result for result in results if result.kind == kind]


def first_causes(patient, **facts):
    return [result.causes[0] for result in found(patient, **facts)]


def test_a_healthy_patient_has_no_finding(patient):
    assert found(patient) == []
    healthy = [result.examination for result in found(patient, "healthy")]
    assert healthy == ["cache", "greedy search", "beam search"]


def test_what_is_not_given_is_skipped_in_a_line_that_says_how(model):
    skipped = found(Patient(model=model, vocab_size=VOCAB), "skipped")
    assert [result.says for result in skipped] == [
        "give cache=Cache(start=..., step=...)",
        "give greedy=search",
        "give beam=search",
        "give tokenizer=...",
        "give batch=(src, tgt)",
    ]


def test_nothing_of_the_patient_changes(patient, model):
    model.train()
    model.dropout.eval()
    found(patient)
    assert model.training and not model.dropout.training
    assert torch.is_grad_enabled()
    for module in model.modules():
        assert not module._forward_hooks and not module._forward_pre_hooks


class Restless(Small):
    def forward(self, src, tgt):
        return nn.functional.dropout(super().forward(src, tgt))


class Deaf(Small):
    def forward(self, src, tgt):
        return super().forward(tgt, src)


class Endless(Small):
    def forward(self, src, tgt):
        return super().forward(src, tgt) * torch.nan


class Ahead(Small):
    def forward(self, src, tgt):
        return super().forward(src, tgt).flip(1)


class Broken(Small):
    def forward(self, src, tgt):
        raise ValueError("no such thing")


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Restless, "logits differ from run to run in eval(): mend that first"),
        (Deaf, "logits are (2, 7, 23), but ids (2, 5): make them fit first"),
        (Endless, "logits are not finite: mend that first"),
        (Ahead, "logits change with later tokens: mend that first"),
        (Broken, "the model stopped with ValueError: no such thing (line "),
    ],
)
def test_decoding_is_not_blamed_for_what_is_wrong_with_the_model(kind, says):
    model = kind()
    patient = Patient(model=model, vocab_size=VOCAB, greedy=partial(greedy, model))
    assert found(patient) == []
    assert found(patient, "skipped")[1].says.startswith(says)


# Greedy search


@pytest.mark.parametrize(
    ("search", "cause"),
    [
        (partial(greedy, pick=second_best), "greedy_wrong"),
        (partial(greedy, at=-2), "greedy_wrong"),
        (partial(greedy, stop=False), "end_token_ignored"),
        (partial(greedy, first=PAD), "start_token"),
        (restless, "greedy_wrong"),
    ],
)
def test_a_wrong_greedy_search_is_named(patient, model, search, cause):
    causes = first_causes(replace(patient, greedy=partial(search, model)))
    assert causes and causes[0] == cause


def test_the_start_token_is_the_one_that_training_used(patient, model):
    sick = replace(patient, greedy=partial(greedy, model, first=PAD))
    (finding,) = found(sick)
    assert finding.says == "decoding begins with token 0, training with 1"
    assert found(replace(sick, beam=None), training_start=PAD) == []
    by_batch = replace(sick, beam=None, batch=(SRC, rows([PAD, 5, EOS])))
    assert found(by_batch) == []
    assert first_causes(patient, training_start=PAD) == ["start_token"] * 2


def test_outputs_may_be_lists_without_start_and_end(patient, model):
    def lists(src):
        rows = greedy(model, src).tolist()
        return [[i for i in row if i not in (PAD, BOS, EOS)] for row in rows]

    assert found(replace(patient, greedy=lists)) == []


def test_outputs_that_end_at_once_are_not_what_the_model_says(patient, model):
    model.eval()

    def silent(src):
        return [[] for _ in src]

    assert "greedy_wrong" in first_causes(replace(patient, greedy=silent))
    alone = replace(patient, greedy=silent, module=nn.Linear(2, 3))  # not listened to
    assert "greedy_wrong" in first_causes(alone)


def test_one_sentence_at_a_time_will_do(patient, model):
    def alone(src):
        assert len(src) == 1, "one sentence, please"
        return greedy(model, src)[0]

    assert found(replace(patient, greedy=alone)) == []


def test_a_near_tie_is_no_disagreement(patient, model):
    with torch.no_grad():
        model.out.weight[9], model.out.bias[9] = model.out.weight[8], model.out.bias[8]
        model.out.bias[8:10] += 9.0

    def other(logits, dim):
        best = logits.argmax(dim)
        return torch.where(best == 8, 9, best)

    assert found(replace(patient, greedy=partial(greedy, model, pick=other))) == []


def test_which_tokens_are_never_said_is_the_readers_choice(patient, model):
    with torch.no_grad():
        model.out.bias[[PAD, BOS]] += 9.0
        model.out.bias[UNK] += 6.0

    def some(logits, dim):
        return logits.index_fill(-1, torch.tensor([PAD, BOS]), -9.0).argmax(dim)

    def words(logits, dim):
        return logits.index_fill(-1, torch.tensor([PAD, BOS, UNK]), -9.0).argmax(dim)

    for pick in (torch.argmax, some, words):
        search = partial(greedy, model, pick=pick)
        assert found(replace(patient, greedy=search, beam=None)) == []


def test_training_mode_without_dropout_is_no_fault(patient, model):
    model.dropout.p = 0.0
    assert found(replace(patient, greedy=partial(restless, model))) == []


def test_a_search_that_fails_is_a_finding_with_its_line(patient):
    def broken(src):
        return {}["key"]

    (finding,) = found(replace(patient, greedy=broken))
    assert "KeyError: 'key' (line " in finding.says
    assert finding.says.endswith("of test_doctor_using.py)")


@pytest.mark.parametrize("output", ["words", None, [[1.5]], [["a"]], [], {}])
def test_what_is_no_row_of_ids_is_said(patient, output):
    (finding,) = found(replace(patient, greedy=lambda src: output))
    assert "no 1 rows of ids" in finding.says or "rows of ids" in finding.says


def test_a_search_without_end_is_stopped(patient, model):
    def endless(src):
        ids = torch.full((len(src), 1), BOS)
        while True:
            try:
                model(src, ids)
            except Exception:
                continue

    (finding,) = found(replace(patient, greedy=endless))
    assert finding.causes[0] == "end_token_ignored" and "300 steps" in finding.says


def test_a_decoder_alone_goes_on_from_its_text():
    class Alone(Small):
        def forward(self, ids):
            return super().forward(ids[:, :1], ids)

    torch.manual_seed(2)
    model = Alone()

    @torch.no_grad()
    def search(src, pick=torch.argmax):
        model.eval()
        for _ in range(9):
            src = torch.cat([src, pick(model(src)[:, -1], -1)[:, None]], 1)
            if (src == EOS).any(-1).all():
                break
        return src

    patient = Patient(model=model, vocab_size=VOCAB, decoder_only=True, greedy=search)
    assert found(patient) == []
    wrong = partial(search, pick=second_best)
    assert "greedy_wrong" in first_causes(replace(patient, greedy=wrong))


# Beam search


@pytest.mark.parametrize("fault", [{"add": False}, {"follow": False}])
def test_a_wrong_beam_search_is_named(patient, model, fault):
    causes = first_causes(replace(patient, beam=partial(beam, model, **fault)))
    assert causes and set(causes) == {"beam_wrong"}


def test_a_beam_that_is_greedy_is_named(patient, model):
    def one(src, beam_size):
        return greedy(model, src)

    assert first_causes(replace(patient, beam=one)) == ["beam_wrong"]


@torch.no_grad()
def cached_beam(steps, src, beam_size, *, follow=True, tile=False):
    """Two or more sentences at once, with the cache."""
    n, k = len(src), beam_size
    steps.model.eval()
    state = steps.start(src.repeat(k, 1) if tile else src.repeat_interleave(k, 0))
    ids = torch.full((n * k, 1), BOS)
    scores = torch.full((n, k), -torch.inf)
    scores[:, 0] = 0.0
    for _ in range(LONGEST):
        logits, state = steps.step(ids[:, -1], state)
        new = logits.log_softmax(-1)
        done = (ids == EOS).any(-1)
        new[done], new[done, PAD] = -torch.inf, 0.0
        scores, index = (scores[..., None] + new.view(n, k, -1)).flatten(1).topk(k)
        order = (index // VOCAB + k * torch.arange(n)[:, None]).flatten()
        state = steps.reorder(state, order) if follow else state
        ids = torch.cat([ids[order], (index % VOCAB).view(-1, 1)], 1)
        if (ids == EOS).any(-1).all():
            break
    return ids.view(n, k, -1)[:, 0]


def test_beams_with_a_cache_are_right(patient, model):
    search = partial(cached_beam, Steps(model))
    assert found(replace(patient, beam=search)) == []


@pytest.mark.parametrize("fault", [{"follow": False}, {"tile": True}])
@pytest.mark.parametrize("seed", range(3))
def test_beams_that_leave_their_cache_are_named(fault, seed):
    torch.manual_seed(seed)
    model = Small()
    search = partial(cached_beam, Steps(model), **fault)
    (finding,) = found(Patient(model=model, vocab_size=VOCAB, beam=search))
    assert list(finding.causes) == ["cache_not_reordered", "beam_wrong"]


# The cache


@pytest.mark.parametrize(
    ("steps", "causes"),
    [
        (RestartedSteps, ["cache_positions", "cache_wrong"]),
        (ForgetfulSteps, ["cache_wrong", "cache_positions"]),
        (UnorderedSteps, ["cache_not_reordered", "cache_wrong"]),
    ],
)
def test_a_wrong_cache_is_named(patient, model, steps, causes):
    (finding,) = found(replace(patient, cache=steps(model).cache()))
    assert list(finding.causes) == causes


def test_a_cache_must_hide_padding_as_the_model_does(patient, model):
    def hiding(src, tgt):
        end = (src[0] != PAD).sum()  # one row at a time, without its padding
        return model(src[:, :end], tgt)

    def one_by_one(src, tgt):
        pairs = zip(src[:, None], tgt[:, None], strict=True)
        return torch.cat([hiding(*pair) for pair in pairs])

    sick = replace(patient, model=one_by_one, module=model)
    (finding,) = found(replace(sick, greedy=None, beam=None))
    assert "with padded sources" in finding.says
    assert finding.causes[0] == "cache_wrong"


def test_where_the_cache_is_wrong_a_search_with_it_is_not_blamed_first(patient, model):
    steps = RestartedSteps(model)
    search = partial(cached_beam, steps)
    first, *rest = found(replace(patient, cache=steps.cache(), beam=search))
    assert first.causes[0] == "cache_positions" and first.weight > rest[0].weight
    assert [result.causes[0] for result in rest] == ["cache_positions"]


def test_a_cache_may_give_log_probabilities(patient, model):
    steps = Steps(model)

    def step(ids, state):
        logits, state = steps.step(ids, state)
        return logits.log_softmax(-1), state

    assert found(replace(patient, cache=replace(steps.cache(), step=step))) == []


def test_a_cache_without_reorder_asks_for_it(patient):
    cache = replace(patient.cache, reorder=None)
    skipped = found(replace(patient, cache=cache), "skipped")
    assert skipped[0].says == "give Cache(reorder=...)"


# The script


def test_a_script_needs_nothing_but_the_columns(model):
    """A decoder whose forward is never called: embedding and output layer are heard."""
    visit, src = Visit(Patient(model=model, vocab_size=VOCAB)), torch.tensor([[7, EOS]])
    script = Script(visit, src, {None: {5: 0.9}, 5: {6: 0.9}})
    steps = Steps(model)
    with script.played():
        state = steps.start(src.expand(2, -1))
        logits, state = steps.step(torch.tensor([BOS, BOS]), state)
        assert logits.argmax(-1).tolist() == [5, 5]
        logits, state = steps.step(torch.tensor([5, 9]), state)
        assert logits.argmax(-1).tolist() == [6, 5]
    assert script.start == BOS and script.steps == 2


def test_a_script_counts_to_its_limit(model):
    ids, visit = torch.tensor([[BOS]]), Visit(Patient(model=model, vocab_size=VOCAB))
    script = Script(visit, torch.tensor([[7, EOS]]))
    with pytest.raises(TooLong), script.played(steps=3):
        while True:
            model(ids, ids)
    assert script.steps == 4 and not model._forward_hooks


# The tokenizer and the data


class Words:
    """Whole words that it has seen; the rest is unknown."""

    def __init__(self, lines, lossy=False):
        self.words = sorted({word for line in lines for word in line.split()})
        self.lossy = lossy

    def encode(self, text):
        known = {word: i for i, word in enumerate(self.words, 4)}
        return [BOS, *(known.get(word, UNK) for word in text.split()), EOS]

    def decode(self, ids):
        assert BOS not in ids and EOS not in ids
        words = [self.words[i - 4] if i > 3 else "<unk>" for i in ids]
        return " ".join(words[1:] if self.lossy else words)


LINES = ("Ein Hund läuft 3 Meter .", "Eine Katze liest .")


@pytest.mark.parametrize(
    ("words", "texts", "causes"),
    [
        (Words(LINES), LINES, []),
        (Words(LINES, lossy=True), LINES, ["tokenizer_lossy"]),
        (Words(LINES[:1]), LINES, ["unknown_words"]),
        (Words([" ".join(map(str, range(30)))]), ("3 4 29",), ["vocab_size"]),
        (Words(LINES), (), []),  # the doctor's own lines may be strange to it
    ],
)
def test_the_tokenizer(model, words, texts, causes):
    patient = Patient(
        model=model, vocab_size=VOCAB, unk=UNK, tokenizer=words, texts=texts
    )
    assert first_causes(patient) == causes


def rows(*lists):
    width = max(map(len, lists))
    return torch.tensor([[*row, *[PAD] * (width - len(row))] for row in lists])


SRC = rows([5, 6, EOS], [7, EOS], [8, 9, EOS])


@pytest.mark.parametrize(
    ("tgt", "causes"),
    [
        (rows([BOS, 5, EOS], [BOS, 6, EOS], [BOS, 7, 8, EOS]), []),
        (rows([BOS, 5, EOS], [BOS, 6, EOS], [BOS, 7, 8, 9]), []),  # one is cut
        (rows([BOS, 5], [BOS, 6], [BOS, 7, 8]), ["end_token_untrained"]),
        (rows([BOS, 5, EOS], [BOS, VOCAB, EOS], [BOS, EOS]), ["vocab_size"]),
    ],
)
def test_the_batch(model, tgt, causes):
    patient = Patient(model=model, vocab_size=VOCAB, batch=(SRC, tgt))
    assert first_causes(patient) == causes


def test_a_batch_that_begins_otherwise_is_a_note(model):
    tgt = rows([UNK, 5, EOS], [UNK, 6, EOS], [UNK, 7, EOS])
    (note,) = found(Patient(model=model, vocab_size=VOCAB, batch=(SRC, tgt)), "note")
    assert "begin with [3]; the start token is 1" in note.says


def test_a_trained_model_must_need_its_source():
    src = torch.randint(4, VOCAB, (8, 5), generator=torch.Generator().manual_seed(0))
    tgt = torch.cat([torch.full((8, 1), BOS), src, torch.full((8, 1), EOS)], 1)

    def copy(given, tgt_in):
        """Says the source, word by word, and the end."""
        labels = torch.cat([given, torch.full((len(given), 1), EOS)], 1)
        return 9.0 * nn.functional.one_hot(labels, VOCAB)[:, : tgt_in.size(1)]

    def deaf(given, tgt_in):
        return copy(src[:1].expand(len(given), -1), tgt_in)

    given = {"vocab_size": VOCAB, "batch": (src, tgt), "trained": True}
    assert found(Patient(model=copy, **given)) == []
    assert first_causes(Patient(model=deaf, **given)) == ["memory_ignored"]
    assert found(Patient(model=deaf, **given | {"trained": False})) == []
    same = Patient(model=copy, greedy=lambda src: [[5, EOS]] * len(src), **given)
    assert "memory_ignored" in first_causes(same)
