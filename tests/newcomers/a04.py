"""Encoder, decoder and Seq2Seq modules with learned positions and post-norm."""

import torch
from torch import nn


class MultiHeadAttentionLayer(nn.Module):
    def __init__(self, hid_dim, n_heads, dropout):
        super().__init__()
        assert hid_dim % n_heads == 0
        self.n_heads = n_heads
        self.head_dim = hid_dim // n_heads
        self.fc_q = nn.Linear(hid_dim, hid_dim)
        self.fc_k = nn.Linear(hid_dim, hid_dim)
        self.fc_v = nn.Linear(hid_dim, hid_dim)
        self.fc_o = nn.Linear(hid_dim, hid_dim)
        self.dropout = nn.Dropout(dropout)
        self.scale = self.head_dim**0.5

    def split(self, x):
        batch_size = x.shape[0]
        x = x.view(batch_size, -1, self.n_heads, self.head_dim)
        return x.permute(0, 2, 1, 3)

    def forward(self, query, key, value, mask=None):
        batch_size = query.shape[0]
        q = self.split(self.fc_q(query))
        k = self.split(self.fc_k(key))
        v = self.split(self.fc_v(value))
        energy = torch.matmul(q, k.permute(0, 1, 3, 2)) / self.scale
        if mask is not None:
            energy = energy.masked_fill(mask == 0, -1e10)
        weights = torch.softmax(energy, dim=-1)
        x = torch.matmul(self.dropout(weights), v)
        x = x.permute(0, 2, 1, 3).contiguous()
        return self.fc_o(x.view(batch_size, -1, self.n_heads * self.head_dim))


class PositionwiseFeedforward(nn.Module):
    def __init__(self, hid_dim, pf_dim, dropout):
        super().__init__()
        self.fc_1 = nn.Linear(hid_dim, pf_dim)
        self.fc_2 = nn.Linear(pf_dim, hid_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return self.fc_2(self.dropout(torch.relu(self.fc_1(x))))


class EncoderLayer(nn.Module):
    def __init__(self, hid_dim, n_heads, pf_dim, dropout):
        super().__init__()
        self.self_attn_norm = nn.LayerNorm(hid_dim)
        self.ff_norm = nn.LayerNorm(hid_dim)
        self.self_attention = MultiHeadAttentionLayer(hid_dim, n_heads, dropout)
        self.feedforward = PositionwiseFeedforward(hid_dim, pf_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, src, src_mask):
        _src = self.self_attention(src, src, src, src_mask)
        src = self.self_attn_norm(src + self.dropout(_src))
        _src = self.feedforward(src)
        return self.ff_norm(src + self.dropout(_src))


class DecoderLayer(nn.Module):
    def __init__(self, hid_dim, n_heads, pf_dim, dropout):
        super().__init__()
        self.self_attn_norm = nn.LayerNorm(hid_dim)
        self.enc_attn_norm = nn.LayerNorm(hid_dim)
        self.ff_norm = nn.LayerNorm(hid_dim)
        self.self_attention = MultiHeadAttentionLayer(hid_dim, n_heads, dropout)
        self.encoder_attention = MultiHeadAttentionLayer(hid_dim, n_heads, dropout)
        self.feedforward = PositionwiseFeedforward(hid_dim, pf_dim, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, trg, enc_src, trg_mask, src_mask):
        _trg = self.self_attention(trg, trg, trg, trg_mask)
        trg = self.self_attn_norm(trg + self.dropout(_trg))
        _trg = self.encoder_attention(trg, enc_src, enc_src, src_mask)
        trg = self.enc_attn_norm(trg + self.dropout(_trg))
        _trg = self.feedforward(trg)
        return self.ff_norm(trg + self.dropout(_trg))


class Embedder(nn.Module):
    def __init__(self, vocab, hid_dim, dropout, max_length=200):
        super().__init__()
        self.tok_embedding = nn.Embedding(vocab, hid_dim)
        self.pos_embedding = nn.Embedding(max_length, hid_dim)
        self.dropout = nn.Dropout(dropout)
        self.scale = hid_dim**0.5

    def forward(self, ids):
        pos = torch.arange(ids.shape[1], device=ids.device).unsqueeze(0)
        words = self.tok_embedding(ids) * self.scale
        return self.dropout(words + self.pos_embedding(pos))


class Encoder(nn.Module):
    def __init__(self, vocab, hid_dim, n_layers, n_heads, pf_dim, dropout):
        super().__init__()
        self.embedder = Embedder(vocab, hid_dim, dropout)
        self.layers = nn.ModuleList(
            [EncoderLayer(hid_dim, n_heads, pf_dim, dropout) for _ in range(n_layers)]
        )

    def forward(self, src, src_mask):
        src = self.embedder(src)
        for layer in self.layers:
            src = layer(src, src_mask)
        return src


class Decoder(nn.Module):
    def __init__(self, vocab, hid_dim, n_layers, n_heads, pf_dim, dropout):
        super().__init__()
        self.embedder = Embedder(vocab, hid_dim, dropout)
        self.layers = nn.ModuleList(
            [DecoderLayer(hid_dim, n_heads, pf_dim, dropout) for _ in range(n_layers)]
        )
        self.fc_out = nn.Linear(hid_dim, vocab)

    def forward(self, trg, enc_src, trg_mask, src_mask):
        trg = self.embedder(trg)
        for layer in self.layers:
            output = layer(trg, enc_src, trg_mask, src_mask)
        return self.fc_out(output)


class Seq2Seq(nn.Module):
    def __init__(self, encoder, decoder, src_pad_idx, trg_pad_idx):
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.src_pad_idx = src_pad_idx
        self.trg_pad_idx = trg_pad_idx

    def make_src_mask(self, src):
        return (src != self.src_pad_idx).unsqueeze(1).unsqueeze(2)

    def make_trg_mask(self, trg):
        pad_mask = (trg != self.trg_pad_idx).unsqueeze(1).unsqueeze(2)
        trg_len = trg.shape[1]
        sub_mask = torch.tril(torch.ones((trg_len, trg_len), device=trg.device)).bool()
        return pad_mask & sub_mask

    def forward(self, src, trg):
        src_mask = self.make_src_mask(src)
        trg_mask = self.make_trg_mask(trg)
        enc_src = self.encoder(src, src_mask)
        return self.decoder(trg, enc_src, trg_mask, src_mask)


def initialize_weights(m):
    if hasattr(m, "weight") and m.weight.dim() > 1:
        nn.init.xavier_uniform_(m.weight.data)


def build():
    sizes = {"hid_dim": 64, "n_layers": 3, "n_heads": 8, "pf_dim": 128}
    encoder = Encoder(200, dropout=0.1, **sizes)
    decoder = Decoder(200, dropout=0.1, **sizes)
    model = Seq2Seq(encoder, decoder, 0, 0)
    model.apply(initialize_weights)
    return model
