"""A small language model under a Trainer, with the settings of one case as JSON: `trainer_course.py` starts it."""

from __future__ import annotations

import json
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from stopctl import Every, NonFinite, OnBest, Patience
from stopctl_torch.transformers import train

case = {"mode": "folder", "every": 0, "lora": False, "best": False, "patience": 9, "arguments": {}}
case |= json.loads(sys.argv[1])
sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def made():
    return LlamaForCausalLM(LlamaConfig(vocab_size=32, attention_dropout=0.1, **sizes))


model = made()
if case["lora"]:
    from peft import LoraConfig, get_peft_model

    with torch.random.fork_rng():  # the base is not saved by the Trainer: it is the same at each start
        torch.manual_seed(3)
        model = made()
    parts = {"lora_dropout": 0.1, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
    model = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, **parts))
tokens = torch.randint(0, 32, (34, 8), generator=torch.Generator().manual_seed(0))
rows = [{"input_ids": each, "labels": each} for each in tokens]
arguments = {"num_train_epochs": 4, "per_device_train_batch_size": 4, "learning_rate": 1e-2, "report_to": []}
arguments |= {"use_cpu": True, "eval_strategy": "epoch", "logging_steps": 3, "disable_tqdm": True}
args = TrainingArguments("out", **arguments | case["arguments"])
trainer = Trainer(model, args, train_dataset=rows[:26], eval_dataset=rows[26:])
save = Every(steps=case["every"]) if case["every"] else Every(epochs=1) | OnBest()
rules = {"stop": Patience(case["patience"]) | NonFinite(), "save": save}
output = train(trainer, "run", mode=case["mode"], best=case["best"], **rules)
