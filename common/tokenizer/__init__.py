"""Llama 3's tokenizer: one for all recipes."""

from common.tokenizer.hugging_face import write_hugging_face
from common.tokenizer.tokenizer import TINY, Encoded, Tokenizer, load

__all__ = ["TINY", "Encoded", "Tokenizer", "load", "write_hugging_face"]
