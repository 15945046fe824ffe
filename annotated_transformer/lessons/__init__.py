"""What the notebooks share: claims in words, seeded numbers, small models to watch."""

# ruff: noqa: F401
from annotated_transformer.lessons.averages import (
    Forks,
    Weights,
    mean_weights,
)
from annotated_transformer.lessons.bleu import (
    Texts,
    bleu_gain,
    bleu_lost,
    bleu_of,
    bleu_rows,
    bootstrap,
    draws,
    interval,
    mean_interval,
    ngrams,
    statistics,
)
from annotated_transformer.lessons.blots import (
    Captions,
    Reading,
    Trained,
    blotted,
    by_seed,
    captions,
    choose,
    reading,
    train_on_captions,
)
from annotated_transformer.lessons.claims import (
    check,
    refuted,
    seeded,
    spread,
)
from annotated_transformer.lessons.heads import (
    attention_stack,
    first_heads,
    influence,
    random_layers,
)
from annotated_transformer.lessons.links import (
    LINKED,
    STAND_INS,
    TWO_PART,
    Link,
    linked_words,
    particle_weights,
    stand_in_weights,
    two_part,
)
from annotated_transformer.lessons.looking import (
    ATTENTIONS,
    Head,
    Maps,
    Span,
    all_heads,
    edited,
    effects,
    encoder_words,
    flat,
    looks,
    off,
    sentence_losses,
    untrained,
    watch,
    words,
    written_log_probs,
)
from annotated_transformer.lessons.positions import (
    BACK,
    LONG,
    SEEN,
    SYMBOLS,
    Finder,
    NoPositions,
    finder_accuracy,
    finder_batch,
    frequencies,
    shift,
    train_finder,
    turn_by,
    waves,
)
from annotated_transformer.lessons.reader import (
    Reader,
    english_sentences,
    train_reader,
)
from annotated_transformer.lessons.sorting import (
    History,
    Sorter,
    Stack,
    adam_step,
    clip_each,
    side_by_side,
    sorting_losses,
    stack_of,
    train_sorters,
)
from annotated_transformer.lessons.subwords import (
    Cuts,
    SymbolPair,
    best_pair,
    cut_word,
    learn_merges,
    merge,
    pair_counts,
)
from annotated_transformer.lessons.training_captions import (
    TrainingCaptions,
)
from annotated_transformer.lessons.twins import (
    Twins,
    layer_pairs,
    shaken,
    torch_twin,
    twin_features,
    weight_pairs,
)
from annotated_transformer.lessons.why_attention import (
    NAMES,
    VALUES,
    Layer,
    Numbers,
    Pairs,
    Recall,
    RecallFixed,
    RecallGRU,
    Task,
    layers_needed,
    longest_chain,
    operations,
    recall,
    recall_accuracy,
    train_recall,
)
from annotated_transformer.lessons.witness import (
    Made,
    Witness,
    train_small,
    witnessed,
)
