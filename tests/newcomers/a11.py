"""nn.Transformer for translation, sequence first inside, float causal mask."""

import math

import torch
from torch import nn

PAD, BOS, EOS = 0, 1, 2
VOCAB_SIZE = 250
D_MODEL = 32


def subsequent_mask(sz, device):
    mask = torch.triu(torch.ones(sz, sz, device=device)) == 1
    mask = mask.transpose(0, 1).float()
    mask = mask.masked_fill(mask == 0, float("-inf"))
    return mask.masked_fill(mask == 1, 0.0)


def padding_mask(tokens):
    mask = torch.zeros(tokens.shape, device=tokens.device)
    return mask.masked_fill(tokens == PAD, float("-inf"))


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, dropout=0.1, max_len=400):
        super().__init__()
        self.dropout = nn.Dropout(p=dropout)
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(
            torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model)
        )
        pe = torch.zeros(max_len, 1, d_model)
        pe[:, 0, 0::2] = torch.sin(position * div_term)
        pe[:, 0, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe)

    def forward(self, x):
        """x: (length, batch, features)"""
        return self.dropout(x + self.pe[: x.size(0)])


class TransformerTranslator(nn.Module):
    def __init__(self):
        super().__init__()
        self.src_emb = nn.Embedding(VOCAB_SIZE, D_MODEL)
        self.tgt_emb = nn.Embedding(VOCAB_SIZE, D_MODEL)
        self.pos = PositionalEncoding(D_MODEL)
        self.core = nn.Transformer(D_MODEL, 2, 2, 2, 4 * D_MODEL, dropout=0.1)
        self.to_words = nn.Linear(D_MODEL, VOCAB_SIZE)
        self.init_weights()

    def init_weights(self):
        for emb in (self.src_emb, self.tgt_emb):
            nn.init.uniform_(emb.weight, -0.3, 0.3)
        nn.init.uniform_(self.to_words.weight, -0.1, 0.1)
        nn.init.zeros_(self.to_words.bias)

    def forward(self, src, tgt):
        src_pad, tgt_pad = padding_mask(src), padding_mask(tgt)
        src_x = self.pos(self.src_emb(src.t()) * math.sqrt(D_MODEL))
        tgt_x = self.pos(self.tgt_emb(tgt.t()) * math.sqrt(D_MODEL))
        out = self.core(
            src_x,
            tgt_x,
            tgt_mask=subsequent_mask(tgt.size(1), tgt.device),
            src_key_padding_mask=src_pad,
            tgt_key_padding_mask=tgt_pad,
            memory_key_padding_mask=src_pad.clone(),
        )
        return self.to_words(out).permute(1, 0, 2)


def build():
    model = TransformerTranslator()
    criterion = nn.CrossEntropyLoss(ignore_index=PAD, label_smoothing=0.1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-4)

    def train_step(batches):
        model.train()
        optimizer.zero_grad()
        losses = []
        for src, tgt in batches:
            predictions = model(src, tgt[:, :-1])
            loss = criterion(predictions.transpose(1, 2), tgt[:, 1:])
            (loss / len(batches)).backward()
            losses.append(loss.item())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return sum(losses) / len(losses)

    def translate(src, max_len=40):
        model.eval()
        answer = [[BOS] for _ in src]
        with torch.inference_mode():
            for i, sentence in enumerate(src):
                sentence = sentence[sentence != PAD].unsqueeze(0)
                while len(answer[i]) < max_len:
                    so_far = torch.tensor([answer[i]], device=src.device)
                    best = int(model(sentence, so_far)[0, -1].argmax())
                    answer[i].append(best)
                    if best == EOS:
                        break
        return answer

    return {
        "model": model,
        "vocab_size": VOCAB_SIZE,
        "train_step": train_step,
        "greedy": translate,
    }
