"""Small encoders of the families that the kernels know, as runtimes load them, with weights that FP16 holds."""

import copy

import torch
from transformers import (
    BertConfig,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertForTokenClassification,
)
from transformers import (
    DistilBertForSequenceClassification as DistilBertForTexts,
)

from ceilings.models.families.text_encoder import TextEncoder

DISTILBERT = {"dim": 80, "n_heads": 5, "n_layers": 2, "hidden_dim": 112, "vocab_size": 100}
BERT = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 96, "vocab_size": 100}

TEXTS, TOKENS = "sequence-classification", "token-classification"
FAMILIES = {
    "distilbert texts": (DistilBertForTexts, DistilBertConfig(**DISTILBERT, max_position_embeddings=64), TEXTS),
    "distilbert tokens": (DistilBertForTokenClassification, DistilBertConfig(**DISTILBERT), TOKENS),
    "bert texts": (BertForSequenceClassification, BertConfig(**BERT), TEXTS),
    "bert answers": (BertForQuestionAnswering, BertConfig(**BERT), "question-answering"),
    "bert embedding": (BertModel, BertConfig(**BERT), "sentence-embedding"),
    "bert-base layer": (BertForSequenceClassification, BertConfig(num_hidden_layers=1, vocab_size=100), TEXTS),
}


def encoder(name, dtype=torch.float32, device="cpu"):
    """A model by its name in ``FAMILIES``: the same weights each time, of a size that tells heads and words apart."""
    kind, config, task = FAMILIES[name]
    torch.manual_seed(7)
    without = {"add_pooling_layer": False} if task == "sentence-embedding" else {}
    model = kind(copy.deepcopy(config), **without).eval()
    with torch.no_grad():
        for values in model.parameters():
            values.copy_((values + 0.05 * torch.randn_like(values)).half())
    model.config._attn_implementation = "sdpa"
    return TextEncoder(model.to(dtype), task).eval().requires_grad_(False).to(device)


def request(batch, sequence, device="cpu"):
    """Ids, and a mask with padding."""
    torch.manual_seed(batch * 100 + sequence)
    ids = torch.randint(0, 100, (batch, sequence))
    mask = (torch.arange(sequence) < torch.randint(1, sequence + 1, (batch, 1))).long()
    return ids.to(device), mask.to(device)
