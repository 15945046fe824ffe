"""The causes that the doctor knows: what is wrong, how to confirm it, where to read."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """What may be wrong, how to be sure, and the chapter that explains it."""

    name: str
    title: str
    confirm: str
    chapter: str


def table(*rows: tuple[str, str, str, str]) -> dict[str, Cause]:
    """Causes by name."""
    return {row[0]: Cause(*row) for row in rows}


ATTENTION, MASKS, HEADS = "02_attention", "03_masks", "04_multi_head_attention"
EMBEDDINGS, POSITIONS = "05_feed_forward_and_embeddings", "06_positional_encoding"
NORMS, WHOLE = "07_residuals_and_layer_norm", "08_the_transformer"
LOOP, OPTIMIZER = "09_training_loop", "10_optimizer_and_schedule"
LOSS, TEXT, DECODING = "11_regularization", "13_from_text_to_batches", "15_decoding"

CAUSES = table(
    (
        "vocab_size",
        "The vocabulary's size is wrong",
        "Compare len(tokenizer), the embedding's rows and the output's columns.",
        TEXT,
    ),
    (
        "swapped",
        "Source and target are exchanged",
        "Print the shapes that the encoder and the decoder receive.",
        WHOLE,
    ),
    (
        "memory_ignored",
        "The decoder does not use the encoder's output",
        "Keys and values of cross-attention must be made from the memory.",
        WHOLE,
    ),
    (
        "outputs_shifted",
        "Logits are cut out at the wrong place",
        "The logits at a position must depend on the target token there: print both "
        "lengths before the slice.",
        WHOLE,
    ),
    (
        "state_kept",
        "Something of an earlier batch is kept and used again",
        "Look for masks and states stored on self, and reused when the shape is the "
        "same.",
        MASKS,
    ),
    (
        "encoder_detached",
        "The encoder's output is detached: it learns nothing",
        "Look for detach(), .data, no_grad() or a copy through NumPy before the "
        "decoder.",
        LOOP,
    ),
    (
        "unregistered",
        "Parameters are not registered: no optimizer will see them",
        "Keep layers in nn.ModuleList, not in a list; weights in nn.Parameter.",
        LOOP,
    ),
    (
        "parameters_frozen",
        "Parameters are frozen",
        "requires_grad is False: nn.Embedding.from_pretrained freezes by default.",
        LOOP,
    ),
    (
        "unused_parameters",
        "Parameters are never used, or their gradient is cut off",
        "Follow the first module named from forward to the loss.",
        LOOP,
    ),
    (
        "shared_layer",
        "One layer stands in for several",
        "[layer] * N repeats one module; build each layer anew, or deepcopy it.",
        WHOLE,
    ),
    (
        "tied_copy",
        "Weights meant to be tied are two copies",
        "output.weight = embeddings.weight must assign the parameter, not its data.",
        EMBEDDINGS,
    ),
    (
        "positions_missing",
        "Positions never reach the tokens",
        "Check that the sum of embedding and position is what the first layer gets.",
        POSITIONS,
    ),
    (
        "positions_wrong",
        "The table of positions is wrong",
        "Plot its columns: wavelengths should grow from 2 pi to 10,000 times 2 pi. "
        "Look for // and for pos / 10000 ** (2 * i) / d_model.",
        POSITIONS,
    ),
    (
        "embeddings_small",
        "Embeddings drown in the positions",
        "Multiply the embeddings by the root of d_model (§3.4).",
        EMBEDDINGS,
    ),
    (
        "heads_mixed",
        "Heads are split or joined with view where a transpose is due",
        "view(batch, length, heads, d_k).transpose(1, 2), and the same way back.",
        HEADS,
    ),
    (
        "batch_axis",
        "The batch and the positions are exchanged",
        "nn.Transformer expects (length, batch, d_model), unless batch_first=True.",
        WHOLE,
    ),
    (
        "scale_missing",
        "Scores are not divided by the root of d_k",
        "Divide query @ key.mT by sqrt(d_k), where d_k is one head's width.",
        ATTENTION,
    ),
    (
        "scale_twice",
        "Scores are scaled more than once",
        "A fused attention scales by itself; so may your query.",
        ATTENTION,
    ),
    (
        "softmax_axis",
        "Softmax runs over the wrong axis",
        "softmax(-1), over the keys: each query's weights must sum to 1.",
        ATTENTION,
    ),
    (
        "causal_mask_missing",
        "No causal mask reaches the scores",
        "Print the scores before softmax: the upper triangle should be -inf.",
        MASKS,
    ),
    (
        "padding_mask_missing",
        "No padding mask reaches the scores",
        "Encoder and cross-attention both need it: print their weights on padding.",
        MASKS,
    ),
    (
        "mask_inverted",
        "A mask is inverted: it hides what should be seen",
        "Say what True means. nn.MultiheadAttention: hide; the fused call: may look.",
        MASKS,
    ),
    (
        "mask_axis",
        "A mask lies along the wrong axis",
        "Rows are queries, columns keys: padding hides columns. For rows of batch * "
        "heads, repeat_interleave each sentence's mask, as nn.MultiheadAttention has "
        "them.",
        MASKS,
    ),
    (
        "mask_shifted",
        "A causal mask is off by one",
        "Position i may see 0 to i: tril() shows, triu(diagonal=1) hides.",
        MASKS,
    ),
    (
        "mask_after_softmax",
        "A mask is applied after softmax",
        "Mask the scores; masked weights no longer sum to 1.",
        MASKS,
    ),
    (
        "mask_tiny",
        "Masked scores get a small number instead of minus infinity",
        "masked_fill(..., float('-inf')); 1e-9 and -1e-9 are zero.",
        MASKS,
    ),
    (
        "residual_missing",
        "A residual connection is missing",
        "x + sublayer(x), around attention and feed-forward alike.",
        NORMS,
    ),
    (
        "norm_axis",
        "A norm runs over the wrong axis",
        "LayerNorm is over d_model alone, never over positions or the batch.",
        NORMS,
    ),
    (
        "dropout_in_eval",
        "Dropout stays active in eval()",
        "F.dropout needs training=self.training.",
        LOSS,
    ),
    (
        "dropout_never",
        "Dropout is set and never happens",
        "Call the module, and train() after each validation.",
        LOSS,
    ),
    (
        "dropout_high",
        "Dropout leaves too little",
        "nn.Dropout(p) takes the probability to drop, 0.1 in §5.4, not to keep.",
        LOSS,
    ),
    (
        "output_activation",
        "An activation follows the output layer",
        "The last layer is linear: logits are of both signs and of any size.",
        WHOLE,
    ),
    (
        "zero_weights",
        "Weights or gains start at zero",
        "Print each parameter's largest value; zero the biases alone.",
        NORMS,
    ),
    (
        "init_large",
        "Weights start too large",
        "Glorot for matrices; std 1/sqrt(d_model) for tied embeddings.",
        NORMS,
    ),
    (
        "labels_not_shifted",
        "Labels are not shifted: the model is shown what it must say",
        "Input tgt[:, :-1], labels tgt[:, 1:].",
        LOOP,
    ),
    (
        "labels_shifted_twice",
        "Labels are shifted twice: the next token is skipped",
        "Shift in one place; many libraries shift inside the model.",
        LOOP,
    ),
    (
        "start_token",
        "Training and decoding begin with different tokens",
        "Print the decoder's first input in both.",
        DECODING,
    ),
    (
        "end_token_untrained",
        "The end token is never a label",
        "The label after the last word must be the end token.",
        TEXT,
    ),
    (
        "loss_scrambled",
        "The loss sees the logits of one position under another's label",
        "reshape moves no axis: transpose(1, 2) for (batch, vocab, length), or flatten "
        "both.",
        LOSS,
    ),
    (
        "padding_in_loss",
        "Padding counts in the loss",
        "ignore_index=pad, or leave padded positions out.",
        LOSS,
    ),
    (
        "softmax_twice",
        "Softmax is applied before a loss that applies it again",
        "cross_entropy takes logits; nll_loss takes log-probabilities.",
        LOSS,
    ),
    (
        "mean_over_padding",
        "The loss is divided by padded positions, too",
        "Divide by the number of real labels.",
        LOSS,
    ),
    (
        "mean_of_means",
        "Micro-batches count alike, though their tokens are fewer or more",
        "Divide each piece's sum by the tokens of the whole batch.",
        LOOP,
    ),
    (
        "accumulation_not_divided",
        "Accumulated gradients are summed, not averaged",
        "Divide each piece's loss by their number, or by all tokens.",
        LOOP,
    ),
    (
        "gradients_cleared",
        "Gradients are cleared between micro-batches",
        "zero_grad() once an update, before the loop over its pieces.",
        LOOP,
    ),
    (
        "schedule_per_microbatch",
        "The schedule advances with each micro-batch",
        "scheduler.step() belongs after optimizer.step().",
        OPTIMIZER,
    ),
    (
        "rate_zero",
        "The learning rate is zero",
        "Print optimizer.param_groups[0]['lr'] over the first steps.",
        OPTIMIZER,
    ),
    (
        "rate_large",
        "The learning rate is far too large",
        "Adam moves each weight by about the rate: 1e-4 to 1e-3. Print the schedule.",
        OPTIMIZER,
    ),
    (
        "optimizer_settings",
        "The optimizer's settings keep it from moving",
        "Adam's eps is 1e-8 or 1e-9 (§5.3), far below a gradient.",
        OPTIMIZER,
    ),
    (
        "optimizer_incomplete",
        "The optimizer does not hold all parameters",
        "Give it model.parameters(), all of them.",
        OPTIMIZER,
    ),
    (
        "optimizer_stale",
        "The optimizer holds tensors that the model no longer has",
        "Build it after tying, moving and re-initializing.",
        OPTIMIZER,
    ),
    (
        "no_update",
        "The training step makes no update",
        "backward() before step(), zero_grad() before backward().",
        LOOP,
    ),
    (
        "gradients_kept",
        "Gradients of earlier updates are still there",
        "zero_grad() once an update, before the first backward().",
        LOOP,
    ),
    (
        "cache_positions",
        "Cached decoding restarts the positions",
        "The new token's position is the number of tokens before it.",
        DECODING,
    ),
    (
        "cache_not_reordered",
        "The cache does not follow the beams",
        "When beam i continues beam j, its keys and values must be those of j.",
        DECODING,
    ),
    (
        "cache_wrong",
        "Cached decoding computes something else",
        "Compare keys and values step by step with an uncached pass.",
        DECODING,
    ),
    (
        "greedy_wrong",
        "Decoding does not take the likeliest next token",
        "Take the last position's argmax, in eval(), and append it.",
        DECODING,
    ),
    (
        "beam_wrong",
        "A beam of one is not greedy search",
        "Log-probabilities add up; candidates must keep their own history.",
        DECODING,
    ),
    (
        "end_token_ignored",
        "Decoding goes on after the end token",
        "Stop a row at the first end token.",
        DECODING,
    ),
    (
        "batch_ends_early",
        "One sentence's end token ends the whole batch",
        "Go on until all rows have ended, not any; what follows an end is padding.",
        DECODING,
    ),
    (
        "tokenizer_lossy",
        "The tokenizer does not give back what it was given",
        "decode(encode(text)) == text, but for spaces and case you meant to drop.",
        TEXT,
    ),
    (
        "unknown_words",
        "Many words are unknown to the vocabulary",
        "Build it on the training text; use subwords.",
        TEXT,
    ),
)
