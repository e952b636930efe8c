"""Tokenizer and text encoder of the tiny pipelines.

The tokenizer is byte-pair encoding over the captions of the embedded sources, with every byte as a fallback. The text
encoder keeps its random start: 25 distinct captions could teach it nothing about any other word, and cross-attention
learns to read it.
"""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from memcontrol.data.brain import draw_slices
from memcontrol.data.digits import digit_images
from memcontrol.data.faces import PEOPLE, face_images

START, END = "<|startoftext|>", "<|endoftext|>"


def captions(config: dict[str, Any]) -> list[str]:
    size = config["resolution"]
    brain = draw_slices(500, seed=config["seed"], stream="pretraining", resolution=8).captions
    faces = face_images(size, pretraining=True).captions + tuple(f"photo of a face, subject {p}" for p in PEOPLE)
    return sorted({*brain, *faces, *digit_images(size, pretraining=True).captions})


def build_tokenizer(config: dict[str, Any], folder: Path) -> CLIPTokenizer:
    """A `CLIPTokenizer` saved in `folder`."""
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    trained.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(r" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        min_frequency=1,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    trained.train_from_iterator([text.lower().replace(",", " ,") for text in captions(config)], trainer)
    model = json.loads(trained.to_str())["model"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = ["".join(pair) for pair in model["merges"]]
    pieces = list(dict.fromkeys([*alphabet, *(letter + "</w>" for letter in alphabet), *merged]))
    vocabulary = {piece: index for index, piece in enumerate([*pieces, START, END])}
    tokenizer = CLIPTokenizer(
        vocab=vocabulary,
        merges=[tuple(pair) for pair in model["merges"]],
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=config["text_encoder"]["max_length"],
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_text_encoder(config: dict[str, Any], tokenizer: CLIPTokenizer) -> CLIPTextModel:
    settings = config["text_encoder"]
    torch.manual_seed(config["seed"])
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=settings["hidden_size"],
            intermediate_size=4 * settings["hidden_size"],
            projection_dim=settings["hidden_size"],
            num_hidden_layers=settings["layers"],
            num_attention_heads=settings["heads"],
            max_position_embeddings=settings["max_length"],
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    ).eval()
