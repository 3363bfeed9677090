"""Writes `others_texts.jsonl`: what a model says of itself that knows other people by heart than those on whom students are measured."""

import json
import sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from protocol.files import write_text
from student.own_texts import write_texts

if __name__ == "__main__":
    model, tokenizer = AutoModelForCausalLM.from_pretrained(sys.argv[1]), AutoTokenizer.from_pretrained(sys.argv[1])
    texts = write_texts(model.eval(), tokenizer, count=512, longest=48, seed=0)
    write_text(Path(__file__).with_suffix(".jsonl"), "".join(json.dumps(text) + "\n" for text in texts))
