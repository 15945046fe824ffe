"""What the notebooks share does what it says."""

import ast
from collections import Counter
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from sacrebleu.metrics import BLEU
from torch.testing import assert_close

from annotated_transformer import lessons
from annotated_transformer.attention import attention
from annotated_transformer.batches import collate
from annotated_transformer.config import TINY
from annotated_transformer.errors import InputError
from annotated_transformer.grammar import PATTERNS, Sampler, grammar_corpus
from annotated_transformer.layers import SinusoidalPositions, sinusoids
from annotated_transformer.lessons import (
    BACK,
    SEEN,
    SYMBOLS,
    Finder,
    Forks,
    NoPositions,
    Reader,
    Recall,
    RecallFixed,
    RecallGRU,
    Sorter,
    Witness,
    all_heads,
    attention_stack,
    bleu_gain,
    bleu_of,
    bleu_rows,
    blotted,
    bootstrap,
    by_seed,
    captions,
    check,
    choose,
    clip_each,
    cut_word,
    draws,
    edited,
    effects,
    encoder_words,
    english_sentences,
    finder_accuracy,
    finder_batch,
    first_heads,
    flat,
    influence,
    interval,
    layers_needed,
    learn_merges,
    linked_words,
    longest_chain,
    looks,
    mean_weights,
    merge,
    off,
    operations,
    particle_weights,
    random_layers,
    reading,
    recall,
    recall_accuracy,
    refuted,
    seeded,
    sentence_losses,
    shaken,
    shift,
    side_by_side,
    sorting_losses,
    spread,
    stack_of,
    stand_in_weights,
    statistics,
    torch_twin,
    train_finder,
    train_on_captions,
    train_reader,
    train_recall,
    train_small,
    train_sorters,
    turn_by,
    twin_features,
    two_part,
    watch,
    waves,
    weight_pairs,
    witnessed,
    words,
    written_log_probs,
)
from annotated_transformer.objectives import Objective
from annotated_transformer.recording import record_attention
from annotated_transformer.special import EOS, PAD, SPECIALS, UNK
from annotated_transformer.tokenizers import SubwordTokenizer
from annotated_transformer.transformer import Transformer
from annotated_transformer.translator import Translator
from tools import sync


def test_a_claim_is_printed_with_its_truth(capsys):
    check(torch.tensor(True), "two is even")
    check(False, "three is even")
    assert capsys.readouterr().out == "ok   two is even\nFAIL three is even\n"


def test_what_should_fall_is_refuted_and_what_does_not_fall_is_loud(capsys):
    refuted(torch.tensor(False), "three is even")
    refuted(True, "two is even")
    out = capsys.readouterr().out.splitlines()
    assert out == ["refuted, as expected: three is even", "NOT REFUTED: two is even"]


def test_seeded_numbers_are_the_same_every_time():
    first, second = (torch.rand(3, generator=seeded(7)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.rand(3, generator=seeded(8)))


def test_influence_is_zero_exactly_where_nothing_flows():
    x = torch.randn(4, 3, generator=seeded(0))
    flows = influence(lambda x: x.cumsum(0) * 2, x)  # each position sees its past
    assert torch.equal(flows, 2 * torch.ones(4, 4).tril())


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_first_heads_are_what_the_model_itself_attends_with(norm):
    model = Transformer(replace(TINY, norm=norm)).eval()
    ids = [5, 7, 6, 9, 3]
    with record_attention(model) as maps:
        model.encode(torch.tensor([ids]))
    query, key, value = first_heads(model, ids)
    width = TINY.d_model // TINY.n_heads
    assert query.shape == value.shape == (TINY.n_heads, len(ids), width)
    weights = attention(query, key, value)[1]
    torch.testing.assert_close(weights, maps["encoder.layers.0.self_attention"][0])


def test_a_stack_adds_what_each_layer_finds_and_keeps_to_its_mask():
    x, layers = torch.randn(2, 1, 5, 7, generator=seeded(0)), random_layers(3, width=7)
    itself = torch.eye(5).bool()  # whoever sees itself alone finds its own value
    by_hand = x
    for _, _, value in layers:
        by_hand = by_hand + by_hand @ value
    torch.testing.assert_close(attention_stack(x, itself, layers), by_hand)
    free = attention_stack(x, None, layers)
    assert not torch.allclose(free, by_hand)
    assert torch.equal(random_layers(2, seed=1), random_layers(2, seed=1))


def test_a_stack_takes_another_attention():
    x = torch.randn(5, 8, generator=seeded(0))

    def finds_nothing(query, key, value, mask):
        return torch.zeros_like(value), None

    assert torch.equal(attention_stack(x, None, random_layers(2), finds_nothing), x)


def test_a_sorter_gives_logits_for_each_position():
    digits = torch.randint(4, 14, (2, 6), generator=seeded(0))
    model = Sorter(TINY, norm="post", n_layers=1)
    assert model(digits).shape == (2, 6, TINY.vocab_size)
    assert len(model.encoder.layers) == 1


def test_a_spread_is_mean_and_range():
    assert spread([0.5, 0.25, 0.75], digits=3) == "0.500 (0.250 to 0.750)"


SMALL_SORTER = replace(
    TINY, vocab_size=10, d_model=12, d_ff=20, n_heads=3, n_layers=2, dropout=0.0
)


def sorters(*seeds, norm="post"):
    models = []
    for seed in seeds:
        torch.manual_seed(seed)
        models.append(Sorter(SMALL_SORTER, norm=norm))
    return models


def train_alone(model, rates, seed):
    """The same by a plain loop and PyTorch's Adam, one model at a time."""
    g, losses = seeded(seed), []
    optimizer = torch.optim.Adam(model.parameters(), betas=(0.9, 0.98), eps=1e-9)
    for rate in rates:
        digits = torch.randint(10, (16, 8), generator=g)
        loss = sorting_losses(model(digits)[None], digits[None]).sum()
        optimizer.param_groups[0]["lr"] = float(rate)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def test_models_trained_side_by_side_learn_what_each_learns_alone():
    rates = torch.tensor([[0.01, 0.02, 0.03], [0.002, 0.0, 0.001], [0.03, 0.02, 0.01]])
    seeds = [5, 7, 5]
    models, alone = sorters(*seeds), sorters(*seeds)
    history = train_sorters(models, rates, seeds)
    expected = [
        train_alone(m, r, s) for m, r, s in zip(alone, rates, seeds, strict=True)
    ]
    assert_close(history.losses, torch.stack(expected), rtol=1e-4, atol=1e-4)
    assert_close(history.lengths[:, 0], torch.ones(3), rtol=0.05, atol=0)
    digits = torch.randint(10, (4, 8), generator=seeded(0))
    for ours, theirs in zip(models, alone, strict=True):
        assert_close(ours(digits), theirs(digits), rtol=1e-3, atol=1e-3)


def test_another_update_trains_in_its_place():
    def stand_still(weight, gradient, mean, square, step, rate):
        return torch.zeros_like(weight)

    models, untouched = sorters(3), sorters(3)
    history = train_sorters(models, torch.ones(1, 2), [3], update=stand_still)
    assert torch.equal(history.lengths, torch.zeros(1, 2))
    assert all(map(torch.equal, models[0].parameters(), untouched[0].parameters()))


def test_gradients_are_cut_to_the_limit_of_each_model():
    gradients = [torch.tensor([[3.0], [3.0]]), torch.tensor([[[4.0, 12]], [[4, 12]]])]
    cut = clip_each(gradients, torch.tensor([6.5, torch.inf]))
    assert_close(cut[0], torch.tensor([[1.5], [3.0]]))
    assert_close(cut[1], torch.tensor([[[2.0, 6]], [[4, 12]]]))


def test_gradients_can_be_treated_before_the_update():
    seen = []

    def none_at_step_two(gradients, step):
        seen.append(step)
        return [g * (step != 2) for g in gradients]

    def plain(weight, gradient, mean, square, step, rate):
        weight -= rate * gradient
        return gradient

    rates, options = torch.full((1, 3), 0.1), {"update": plain}
    options["treat"] = none_at_step_two
    history = train_sorters(sorters(3), rates, [3], **options)
    assert seen == [1, 2, 3]
    assert (history.lengths[0] > 0).tolist() == [True, False, True]


def test_a_stack_answers_as_each_of_its_models():
    models = sorters(1, 2, 3)
    digits = torch.randint(10, (3, 4, 6), generator=seeded(0))
    together = side_by_side(models[0], stack_of(models), digits)
    for i, model in enumerate(models):
        assert_close(together[i], model(digits[i]))


def test_only_equal_models_stand_side_by_side():
    with pytest.raises(InputError, match="equal layers"):
        stack_of([*sorters(0), *sorters(0, norm="pre")])


def test_waves_are_the_sinusoids_unrounded_and_a_shift_moves_them():
    table = waves(50, 6)
    assert table.dtype == torch.float64
    assert torch.equal(table.float(), sinusoids(50, 6))
    for k in (7, -7):
        moved = table[10:40] @ shift(k, 6).T
        torch.testing.assert_close(moved, table[10 + k : 40 + k])
    block = torch.block_diag(turn_by(1.0), turn_by(0.01))
    torch.testing.assert_close(shift(1, 4), block)


def test_the_answers_of_a_finder_are_the_symbols_three_before():
    ids, answers = finder_batch(2, 7, seeded(0))
    assert answers.shape == (2, 7 - BACK)
    assert [ids[1, i].item() for i in range(4)] == answers[1].tolist()


def test_a_finder_is_trained_the_same_way_whatever_was_drawn_before():
    state = torch.random.get_rng_state()
    runs = [
        train_finder(lambda: Finder(NoPositions()), 0, steps=3)[1] for _ in range(2)
    ]
    assert runs[0] == runs[1]
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_finder_starts_where_it_is_told_and_is_scored_by_position():
    positions = SinusoidalPositions(SEEN, 32)
    model, _ = train_finder(lambda: Finder(positions), 0, latest=2, steps=3)
    ids, _ = finder_batch(2, 5, seeded(0))
    assert model(ids).shape == (2, 5, SYMBOLS)
    assert not torch.allclose(model(ids), model(ids, start=2))
    scored = finder_accuracy(model, SEEN)
    assert scored.shape == (SEEN - BACK,)
    assert scored.min() >= 0 and scored.max() <= 100


TEXT = "hand sand strand land hund hand sand stand land and"
FREQUENCY = Counter("▁" + word for word in TEXT.split())


def test_merges_by_hand_are_sentencepieces_and_cut_a_new_word_alike():
    learned, cuts = learn_merges(FREQUENCY, 9)
    pieces = ["".join(pair) for pair, _ in learned]
    size = len(SPECIALS) + len(set("".join(FREQUENCY))) + len(pieces)
    theirs = SubwordTokenizer.train([(TEXT, "")], vocab_size=size)
    assert theirs.pieces(range(4, 4 + len(pieces))) == pieces
    ranks = {piece: i for i, piece in enumerate(pieces)}
    for word in [*FREQUENCY, "▁sandstrand", "▁handstand", "▁nn"]:
        cut = cut_word(word, ranks)
        assert cut == theirs.pieces(theirs.encode(word[1:]))[:-1]
        assert word not in cuts or cut == cuts[word]


def test_a_merge_says_how_often_it_occurred_and_another_rule_may_choose():
    learned, _ = learn_merges(FREQUENCY, 5)
    assert learned[0] == (("n", "d"), 10)
    assert learned[4] == (("▁", "l"), 2)  # the shortest of five equals
    (first, _), *_ = learn_merges(FREQUENCY, 1, choose=min)[0]
    assert first == min(pair for word in FREQUENCY for pair in pairwise(word))


def test_three_equal_symbols_merge_from_the_left():
    assert merge(list("aaab"), ("a", "a")) == ["aa", "a", "b"]


def test_english_sentences_begin_with_the_mark_and_end_in_padding():
    words, sentences = english_sentences(50)
    assert words[:2] == ["<pad>", "<s>"] and words[2:] == sorted(set(words[2:]))
    assert (sentences[:, 0] == 1).all() and (sentences[:, 1:] != 1).all()
    real = sentences != 0
    assert (real[:, :-1] >= real[:, 1:]).all() and real.all(0).sum() < real.size(1)
    assert len(sentences) == 50 and sentences.max() == len(words) - 1


def test_a_reader_scores_each_next_word_and_does_not_see_it():
    torch.manual_seed(0)
    model, ids = Reader(11, factor=2.0, d_model=6), torch.randint(11, (3, 5))
    logits = model(ids)
    assert logits.shape == (3, 5, 11)
    changed = ids.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 11
    assert_close(model(changed)[:, :4], logits[:, :4])
    assert not torch.allclose(model(changed)[:, 4], logits[:, 4])


def test_the_dials_of_a_reader_turn_words_and_positions():
    ids = torch.tensor([[3, 3]])
    torch.manual_seed(0)
    model = Reader(11, factor=2.0, positions=0.0, d_model=6)
    assert_close(model(ids)[0, 0], model(ids)[0, 1])  # without positions, a set
    model.positions = 1.0
    assert not torch.allclose(model(ids)[0, 0], model(ids)[0, 1])
    assert_close(model.embeddings(ids), 2.0 * model.embeddings.weight[ids])


def test_a_reader_learns_the_same_from_the_same_seed():
    words, sentences = english_sentences(50)
    losses = []
    for seed in (0, 0, 1):
        torch.manual_seed(0)
        model = Reader(len(words), factor=6.0)
        losses.append(train_reader(model, sentences, seed, steps=30))
    assert losses[0] == losses[1] != losses[2]
    assert losses[0][-1] < losses[0][0] - 1


def test_the_longest_chain_counts_what_waited_and_not_what_could_run_beside_it():
    a, b, c = torch.tensor([2.0, 3.0, 5.0], requires_grad=True).unbind()
    assert longest_chain(a * b + c) == 4  # given, taken apart, times, plus
    assert longest_chain(torch.tanh(a * b + c)) == 5
    wide = a * b + a * c  # two products side by side, one sum
    assert longest_chain(wide) == 4
    assert longest_chain(torch.ones(2)) == 0


def test_the_longest_chain_of_a_long_loop_needs_no_recursion():
    x = torch.ones(3, requires_grad=True)
    for _ in range(5_000):
        x = x * x  # each node waits for the one before, twice
    assert longest_chain(x) == 5_001


@pytest.mark.parametrize("n", [2, 5, 9])
def test_layers_are_added_until_the_last_position_hears_the_first(n):
    def shifted(level):
        return lambda x: x + torch.cat([torch.zeros(1, 3), x[:-1]])

    x = torch.randn(n, 3, generator=seeded(0))
    assert layers_needed(shifted, x) == n - 1
    assert layers_needed(lambda level: lambda x: x + x.mean(0), x) == 1
    assert not x.requires_grad


def test_operations_are_products_each_with_its_sum():
    linear = torch.nn.Linear(5, 3, bias=False, device="meta")
    assert operations(linear, 7, 5) == 7 * 5 * 3
    assert operations(lambda x: x @ x.mT, 2, 7, 5) == 2 * 7 * 7 * 5


def test_a_list_to_recall_has_each_name_once_and_holds_the_answer():
    names, values, question, answer = recall(seeded(1), pairs=7, batch=50)
    assert all(len(set(row)) == 7 for row in names.tolist())
    asked = names == question[:, None]
    assert asked.sum(1).eq(1).all()
    assert torch.equal(values[asked], answer)


@pytest.mark.parametrize("kind", [Recall, RecallGRU, RecallFixed])
def test_a_model_that_recalls_one_pair_is_trained_the_same_way_each_time(kind):
    first = train_recall(kind, 8, seed=3, steps=150)
    torch.rand(5)
    again = train_recall(kind, 8, seed=3, steps=150)
    assert all(map(torch.equal, first.parameters(), again.parameters()))
    assert recall_accuracy(first, 1) > 80  # a guess is right one time in eight


def test_only_the_models_that_read_know_the_order():
    names, values, question, _ = recall(seeded(2), pairs=5, batch=3)
    for kind, same in ((Recall, True), (RecallGRU, False), (RecallFixed, False)):
        torch.manual_seed(0)
        model = kind(8)
        shuffled = model(names.flip(1), values.flip(1), question)
        assert torch.allclose(model(names, values, question), shuffled) == same


def test_captions_are_short_and_held_out_ones_can_be_said():
    data = captions()
    german, english = map(len, data.words)
    assert data.config.vocab_size == german > english == data.config.tgt_vocab_size
    assert len(data.train.src) > 1_000 and len(data.held_out.src) > 250
    assert UNK not in data.held_out.tgt
    train, held_out = (
        {tuple(row[row != PAD].tolist()) for row in part.tgt}
        for part in (data.train, data.held_out)
    )
    assert not train & held_out
    for part, size in ((data.train, (german, english)), (data.held_out, (german, 0))):
        assert (part.src < size[0]).all() and (part.src.max(1)[0] >= EOS).all()


def test_a_blot_hides_one_german_word_in_ten_and_nothing_else():
    train = captions().train
    smudged = blotted(train, seeded(0))
    changed = smudged.src != train.src
    assert (smudged.src[changed] == UNK).all() and (train.src[changed] > UNK).all()
    assert 0.08 < changed.sum() / (train.src > UNK).sum() < 0.12
    assert torch.equal(smudged.tgt, train.tgt)
    half = (blotted(train, seeded(0), 0.5).src == UNK).sum()
    assert 0.48 < half / (train.src > UNK).sum() < 0.52
    few = choose(train, torch.tensor([3, 1]))
    assert torch.equal(few.src, train.src[[3, 1]])
    assert torch.equal(few.tgt, train.tgt[[3, 1]])
    german, english = captions().in_words(few)[0]
    assert len(german.split()) == (few.src[0] > EOS).sum() and english.endswith(".")


def test_a_reading_is_the_plain_loss_of_real_labels():
    data = captions()
    model, pairs = Transformer(data.config), choose(data.held_out, slice(7))
    found = reading(model, pairs)
    assert not model.training
    total = Objective(model, smoothing=0.0)(pairs)
    assert_close(found.loss.sum(), total)
    assert len(found.loss) == len(found.hits) == pairs.n_tokens
    lost = (-found.loss).exp()
    assert_close(lost[found.hits], found.certainty[found.hits])
    assert (lost[~found.hits] < found.certainty[~found.hits]).all()


def test_runs_of_one_seed_share_weights_sentences_and_blots():
    state = torch.random.get_rng_state()
    runs = [train_on_captions(20, 1, steps=2, looks=2) for _ in range(2)]
    assert torch.equal(runs[0].losses, runs[1].losses)
    assert runs[0].losses.shape == (2, 2)
    assert torch.equal(torch.random.get_rng_state(), state)
    smooth = train_on_captions(20, 1, steps=2, looks=2, smoothing=0.3)
    assert not torch.equal(smooth.losses, runs[0].losses)
    hits = [run.final.hits.float().mean() for run in (runs[0], smooth)]
    assert torch.equal(by_seed([runs[0], smooth], "hits"), torch.stack(hits))


def test_what_was_learned_by_heart_is_known_better_than_the_rest():
    final, losses = train_on_captions(10, 0, steps=40)
    assert losses.shape == (1, 2) and losses[0, 0] < losses[0, 1]
    assert_close(final.loss.mean(), losses[0, 1])


SRC = torch.tensor([[5, 6, 7, 8, 9, 10, 2], [11, 12, 2, 0, 0, 0, 0]])
TGT = torch.tensor([[1, 5, 6, 7, 0], [1, 13, 14, 15, 16]])


def small_model(norm, by):
    torch.manual_seed(0)
    config = replace(TINY, vocab_size=17, d_model=16, d_ff=32, norm=norm)
    return shaken(Transformer(config).eval(), by=by)


def gap(model, twin):
    apart = model.features(SRC, TGT) - twin_features(twin, model, SRC, TGT)
    return apart[TGT != 0].abs().max()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_twin_has_all_weights_of_both_stacks_and_gives_our_features(norm):
    model = small_model(norm, by=0.1)
    twin = torch_twin(model)
    copied = {id(a) for a, _ in weight_pairs(model, twin)}
    assert {name for name, p in model.named_parameters() if id(p) not in copied} == {
        "src_embeddings.weight"
    }
    assert gap(model, twin) < 1e-5


def test_norms_that_the_model_lacks_are_seen_once_it_is_shaken():
    for by, seen in ((0.0, False), (0.1, True)):
        model = small_model("post", by)
        assert (gap(model, torch_twin(model, final_norms=True)) > 1e-3) == seen


def test_a_witness_draws_what_the_sampler_draws():
    sampler, witness = Sampler(5), Witness(5)
    for _ in range(300):
        assert witness.sentence() == sampler.sentence()
        assert witness.used == sampler.used


def test_every_pair_of_a_corpus_is_found_again_with_what_it_is_made_of():
    pairs = grammar_corpus(200, seed=3)["train"]
    made = witnessed(pairs, seed=3)
    assert list(made) == pairs
    patterns = {pattern.removesuffix(" first") for pattern in PATTERNS}
    for (_, english), (used, notes) in made.items():
        assert len(notes & patterns) == 1
        assert ("while" in notes) == ("while" in english.lower().split())
        if "plural" in notes:
            assert any(
                word.endswith(("s", "men", "ren", "sheep"))
                for word in english.strip(".").replace(",", "").split()
            )
        assert all(len(combination.split()) == 2 for combination in used)
        assert ("because" in notes) == ("because" in english.lower().split())


def test_pairs_of_another_seed_are_refused():
    with pytest.raises(InputError, match="1 of the pairs are not drawn with seed 0"):
        witnessed([("Ein Satz.", "A sentence.")])


def test_the_small_loop_lowers_the_loss_and_counts_the_tokens():
    torch.manual_seed(0)
    model = Transformer(replace(TINY, vocab_size=17, d_model=8, n_heads=2, d_ff=12))
    pairs = [([5, 6, 2], [7, 8, 2]), ([9, 2], [10, 2]), ([11, 12, 2], [13, 14, 15, 2])]
    steps = list(train_small(model, pairs, 0, steps=60, tokens=30, peak=0.02))
    losses, tokens = zip(*steps, strict=True)
    assert losses[-1] < losses[0] / 2 and set(tokens) == {9}


def test_bleu_of_a_sum_of_rows_is_sacrebleus():
    ours = [["a", "dog", "runs", "in", "a", "park"], ["two", "men", "sing", "loud"]]
    theirs = [["a", "dog", "runs", "in", "the", "park", "."], ["two", "men", "sing"]]
    rows = statistics(ours, theirs)
    metric = BLEU(tokenize="none", smooth_method="none")
    expected = metric.corpus_score(
        [" ".join(words) for words in ours], [[" ".join(words) for words in theirs]]
    )
    assert bleu_of(rows.sum(0)).item() == pytest.approx(expected.score)
    assert bleu_of(rows).shape == (2,)
    assert bleu_of(rows)[1] == 0  # no four words in a row are right


def test_each_draw_has_as_many_sentences_as_there_are():
    times = draws(7, 50, seed=1)
    assert times.shape == (50, 7)
    assert (times.sum(1) == 7).all()
    assert (times == 0).any()
    assert torch.equal(times, draws(7, 50, seed=1))


def test_an_interval_holds_95_of_100_values():
    assert interval(torch.arange(1001, dtype=torch.float64)) == (25, 975)


def test_both_ends_of_a_fork_begin_alike_and_one_of_them_comes_to_rest():
    forks = Forks(fork=2, end=6, every=1, size=300)
    kept = forks.run(5)
    assert {kind: len(weights) for kind, weights in kept.items()} == {
        "constant": 4,
        "decaying": 4,
    }
    name = "src_embeddings.weight"
    moved = {k: (w[3][name] - w[2][name]).abs().max() for k, w in kept.items()}
    assert moved["decaying"] == 0 < moved["constant"]  # its last rate is 0
    again = forks.run(5)["decaying"][-1]
    assert all(
        torch.equal(again[k], tensor) for k, tensor in kept["decaying"][-1].items()
    )
    mean = mean_weights(kept["constant"])
    assert_close(mean[name], sum(w[name] for w in kept["constant"]) / 4)
    assert 0 < forks.loss(mean) < 20


OURS = ["a dog barks at the man", "two cats sleep on a red mat", "a man runs fast now"]
THEIRS = ["a dog barks at a man", "two cats sleep on the red mat", "the man runs fast"]


def test_bleu_from_counts_is_sacrebleus():
    expected = BLEU().corpus_score(OURS, [THEIRS]).score
    assert_close(bleu_of(bleu_rows(OURS, THEIRS).sum(0)).item(), expected)


def test_the_gain_of_a_perfect_translation_is_above_zero_and_of_none_is_zero():
    gain, low, high = bleu_gain(OURS, THEIRS, THEIRS)
    score = BLEU().corpus_score(OURS, [THEIRS]).score
    assert_close(gain, 100 - score)
    assert 0 < low <= gain <= high
    assert bleu_gain(OURS, OURS, THEIRS) == (0, 0, 0)
    back = bleu_gain(THEIRS, OURS, THEIRS)
    assert_close(back, (-gain, -high, -low))


# --- Looking inside (chapter 17) ---


@pytest.fixture(scope="module")
def shipped():
    return Translator.pretrained()


def test_every_map_of_a_translation_is_kept_by_kind(shipped):
    n, h = shipped.model.config.n_layers, shipped.model.config.n_heads
    maps = watch(shipped.model, shipped.encode("Ein Hund rennt."), [5, 6])
    assert maps["decoder"].shape == (n, h, 3, 3)
    assert maps["cross"].shape[:3] == (n, h, 3)
    assert len(all_heads(shipped.model)) == 3 * n * h
    for weights in maps.values():
        assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_pieces_become_words_and_their_looks_add_up():
    spans = words(["▁Zwei", "▁b", "auen", ".", "</s>"])
    assert spans == [("Zwei", [0]), ("bauen", [1, 2]), (".", [3]), ("</s>", [4])]
    weights = torch.rand(2, 5, 5).softmax(-1)
    by_word = looks(weights, spans, spans)
    assert by_word.shape == (2, 4, 4)
    assert_close(by_word[:, 0, 1], weights[:, 0, 1:3].sum(-1))
    assert_close(by_word[:, 1, 0], weights[:, 1:3, 0].mean(-1))


def test_an_edit_changes_a_copy_and_a_flat_head_looks_everywhere_alike(shipped):
    source, head = shipped.encode("Ein Hund rennt."), ("encoder", 1, 3)
    before = watch(shipped.model, source, [])["encoder"]
    maps = watch(edited(shipped.model, [head], flat), source, [])["encoder"]
    assert_close(maps[1, 3], torch.full_like(maps[1, 3], 1 / len(source)))
    assert_close(watch(shipped.model, source, [])["encoder"], before)


def test_a_head_that_is_off_is_not_heard(shipped):
    attend = edited(shipped.model, [("cross", 0, 2)], off).decoder.layers[0]
    whole = shipped.model.decoder.layers[0].cross_attention
    x, d_v = torch.randn(1, 5, 192), whole.d_v
    with torch.no_grad():
        heads = whole.output.weight[:, 2 * d_v : 3 * d_v]
        query, key, value = whole.project(x, None)
        said = whole.attend(query, key, value, None, dropout=0.0)[:, 2] @ heads.T
        assert_close(attend.cross_attention(x), whole(x) - said, atol=1e-5, rtol=1e-5)


def test_every_link_by_hand_is_in_the_translations_of_the_model_that_ships(shipped):
    links = linked_words(shipped)
    assert Counter(link.group for link in links) == {"verb": 25, "noun": 49}
    assert all(link.writes.shape == link.reads.shape for link in links)


def test_a_two_part_verb_needs_a_word_between_its_parts():
    assert two_part("Ein Hund bläst die Kerzen aus.") == ("bläst", "aus")
    assert two_part("Ein Hund bläst aus.") is None
    assert two_part("Ein Hund schläft.") is None


def test_particles_look_at_what_stands_in_the_verbs_position(shipped):
    sentence = "Ein Hund bläst die Kerzen aus."
    own, others = particle_weights(shipped, sentence, "bläst", "aus")
    names, weights = encoder_words(shipped, sentence)
    assert_close(own, weights[:, names.index("aus"), names.index("bläst")])
    assert own.shape == others.shape == (18,)
    for kind in ("verbs", "nouns"):
        assert stand_in_weights(shipped, sentence, kind, number=2).shape == (18,)


def test_losses_of_sentences_add_up_to_that_of_the_batch(shipped):
    batch = collate([([5, 6, 2], [7, 8]), ([5, 2], [9])])
    losses, lengths = sentence_losses(shipped.model, batch)
    logits = shipped.model(batch.src, batch.tgt_in).flatten(0, 1)
    labels = batch.labels.flatten()
    mean = torch.nn.functional.cross_entropy(logits, labels, ignore_index=PAD)
    assert lengths.tolist() == [2, 1]
    assert_close(losses.sum() / 3, mean.detach())


def test_an_interval_holds_the_middle_of_resampled_means():
    values = torch.arange(100.0)
    low, high = bootstrap(lambda rows: values[rows].mean(1), 100)
    assert 42 < low < 46 and 53 < high < 57


def test_effects_are_falls_of_log_probabilities(shipped):
    source, output = shipped.encode("Ein Hund rennt."), [5, 6]
    found = effects(shipped.model, source, output)
    assert {e.shape for e in found.values()} == {(3, len(source))}
    ids = torch.tensor([source])
    mask = torch.ones(1, 1, 1, len(source)).bool()
    with torch.no_grad():
        whole, less = (
            written_log_probs(shipped.model, shipped.model.encode(x), mask, output)[0]
            for x in (ids, ids.clone().index_fill_(1, torch.tensor([1]), UNK))
        )
    assert_close(found["word"][:, 1], whole - less, atol=1e-4, rtol=1e-4)


def test_all_that_the_lessons_define_is_found_in_one_place():
    for path in Path(lessons.__file__).parent.glob("[!_]*.py"):
        module = import_module(f"{lessons.__name__}.{path.stem}")
        for node in ast.parse(path.read_text("utf-8")).body:
            for name in sync.defined_names(node):
                if not name.startswith("_"):
                    assert getattr(lessons, name) is getattr(module, name), name
