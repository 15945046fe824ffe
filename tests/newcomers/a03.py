"""Language translation on nn.Transformer, sequence first, after the usual tutorial."""

import math

import torch
from torch import Tensor, nn

PAD_IDX, BOS_IDX, EOS_IDX = 0, 1, 2
SRC_VOCAB_SIZE = TGT_VOCAB_SIZE = 150


class PositionalEncoding(nn.Module):
    def __init__(self, emb_size: int, dropout: float, maxlen: int = 500):
        super().__init__()
        den = torch.exp(-torch.arange(0, emb_size, 2) * math.log(10000) / emb_size)
        pos = torch.arange(0, maxlen).reshape(maxlen, 1)
        pos_embedding = torch.zeros((maxlen, emb_size))
        pos_embedding[:, 0::2] = torch.sin(pos * den)
        pos_embedding[:, 1::2] = torch.cos(pos * den)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("pos_embedding", pos_embedding.unsqueeze(-2))

    def forward(self, token_embedding: Tensor):
        length = token_embedding.size(0)
        return self.dropout(token_embedding + self.pos_embedding[:length, :])


class TokenEmbedding(nn.Module):
    def __init__(self, vocab_size: int, emb_size: int):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, emb_size)
        self.emb_size = emb_size

    def forward(self, tokens: Tensor):
        return self.embedding(tokens.long()) * math.sqrt(self.emb_size)


def generate_square_subsequent_mask(size, device):
    ones = torch.ones((size, size), device=device)
    return torch.triu(ones, diagonal=1).bool()


def create_mask(src, tgt):
    tgt_mask = generate_square_subsequent_mask(tgt.shape[0], tgt.device)
    src_padding_mask = (src == PAD_IDX).transpose(0, 1)
    tgt_padding_mask = (tgt == PAD_IDX).transpose(0, 1)
    return tgt_mask, src_padding_mask, tgt_padding_mask


class Seq2SeqTransformer(nn.Module):
    def __init__(self, num_layers, emb_size, nhead, ffn, dropout=0.1):
        super().__init__()
        self.transformer = nn.Transformer(
            d_model=emb_size,
            nhead=nhead,
            num_encoder_layers=num_layers,
            num_decoder_layers=num_layers,
            dim_feedforward=ffn,
            dropout=dropout,
        )
        self.generator = nn.Linear(emb_size, TGT_VOCAB_SIZE)
        self.src_tok_emb = TokenEmbedding(SRC_VOCAB_SIZE, emb_size)
        self.tgt_tok_emb = TokenEmbedding(TGT_VOCAB_SIZE, emb_size)
        self.positional_encoding = PositionalEncoding(emb_size, dropout)
        for p in self.parameters():
            if p.dim() > 1:
                nn.init.xavier_uniform_(p)

    def forward(self, src: Tensor, trg: Tensor):
        src, trg = src.transpose(0, 1), trg.transpose(0, 1)
        tgt_mask, src_padding_mask, tgt_padding_mask = create_mask(src, trg)
        outs = self.transformer(
            self.positional_encoding(self.src_tok_emb(src)),
            self.positional_encoding(self.tgt_tok_emb(trg)),
            tgt_mask=tgt_mask,
            src_key_padding_mask=src_padding_mask,
            tgt_key_padding_mask=tgt_padding_mask,
        )
        return self.generator(outs).transpose(0, 1)


def build():
    transformer = Seq2SeqTransformer(num_layers=2, emb_size=64, nhead=4, ffn=128)
    loss_fn = nn.CrossEntropyLoss(ignore_index=PAD_IDX)
    optimizer = torch.optim.Adam(
        transformer.parameters(), lr=0.0005, betas=(0.9, 0.98), eps=1e-9
    )

    def train_step(batches):
        transformer.train()
        optimizer.zero_grad()
        for src, tgt in batches:
            tgt_input, tgt_out = tgt[:, :-1], tgt[:, 1:]
            logits = transformer(src, tgt_input)
            loss = loss_fn(
                logits.reshape(-1, logits.shape[-1]),
                tgt_out.reshape(-1),
            )
            (loss / len(batches)).backward()
        optimizer.step()

    def greedy_decode(src, max_len=30):
        transformer.eval()
        sentences = []
        with torch.no_grad():
            for row in src:
                row = row.unsqueeze(0)
                ys = torch.full((1, 1), BOS_IDX, dtype=torch.long, device=src.device)
                for _ in range(max_len):
                    prob = transformer(row, ys)[:, -1]
                    next_word = prob.argmax(dim=1).item()
                    ys = torch.cat([ys, ys.new_full((1, 1), next_word)], dim=1)
                    if next_word == EOS_IDX:
                        break
                sentences.append(ys[0].tolist())
        return sentences

    return {
        "model": transformer,
        "vocab_size": TGT_VOCAB_SIZE,
        "train_step": train_step,
        "greedy": greedy_decode,
    }
