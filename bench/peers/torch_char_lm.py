#!/usr/bin/env python3
"""Trains the character-level language model of `char_lm train` in PyTorch, on the same windows.

The text is read as UTF-8 code points; the vocabulary is the sorted set of them; the first
--train-frac of the characters trains, the rest validates. Either part is cut into B contiguous
streams of floor((n - 1) / B) characters, and each stream into windows of T: inputs x[t], targets
x[t + 1]. The state is zero when an epoch (or a validation) starts, carried from window to window
and detached. Model: embedding, stacked recurrent layers, linear. Adam, clipping by global norm,
forget-gate bias 1, and from epoch --lr-decay-after + 1 on a factor --lr-decay every epoch.

    torch_char_lm.py --text FILE --epochs 2     one line an epoch: losses in nats/char

Exits 77 (skipped)
when PyTorch is not installed. Debian's PyTorch multiplies with whatever libblas.so.3 is: with the
reference BLAS it is about ten times slower than with OpenBLAS (libopenblas0-pthread), so the
BLAS in use is printed and the reference one draws a warning.
"""
import argparse
import ctypes
import json
import os
import re
import sys
import time

# Read when PyTorch loads: threads that spin while they wait halve its speed on two cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

try:
    import torch
    from torch import nn
except ImportError:
    print("torch_char_lm: skipped, no PyTorch for this Python (Debian: apt install python3-torch)")
    sys.exit(77)


class CharLm(nn.Module):
    def __init__(self, kind, vocabulary, embed, hidden, layers):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, embed)
        layer = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]
        self.recurrent = layer(embed, hidden, layers)
        self.linear = nn.Linear(hidden, vocabulary)
        if kind == "lstm":
            self.set_forget_bias(hidden)

    def set_forget_bias(self, hidden):
        """Gate order is i, f, g, o; the two biases of a gate add up to 1."""
        with torch.no_grad():
            for name, bias in self.recurrent.named_parameters():
                if name.startswith("bias"):
                    bias[hidden : 2 * hidden] = float(name.startswith("bias_ih"))

    def forward(self, tokens, state):
        y, state = self.recurrent(self.embedding(tokens), state)
        return self.linear(y), state


def detach(state):
    if isinstance(state, (tuple, list)):
        return tuple(detach(part) for part in state)
    return None if state is None else state.detach()


def windows(tokens, batch, seq_len):
    """Time-major (inputs, targets) of the consecutive windows, each [T, B]."""
    length = (len(tokens) - 1) // batch
    if length < seq_len:
        sys.exit(f"torch_char_lm: {len(tokens)} characters are too few: batch {batch} x seq-len "
                 f"{seq_len} needs at least {batch * seq_len + 1} in each part")
    inputs = tokens[: batch * length].view(batch, length).t().contiguous()
    targets = tokens[1 : batch * length + 1].view(batch, length).t().contiguous()
    starts = range(0, length - seq_len + 1, seq_len)
    return [(inputs[s : s + seq_len], targets[s : s + seq_len]) for s in starts]


def cross_entropy(logits, targets):
    return nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())


def train_step(model, optimizer, window, state, clip):
    """One update; returns the loss in nats per character and the state to carry on."""
    inputs, targets = window
    optimizer.zero_grad()
    logits, state = model(inputs, detach(state))
    loss = cross_entropy(logits, targets)
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.item(), state


@torch.no_grad()
def evaluate(model, data):
    state, total = None, 0.0
    for inputs, targets in data:
        logits, state = model(inputs, state)
        total += cross_entropy(logits, targets).item()
    return total / len(data)


def train(model, optimizer, train_data, valid_data, args, report):
    for epoch in range(1, args.epochs + 1):
        lr = args.lr * args.lr_decay ** max(0, epoch - args.lr_decay_after)
        for group in optimizer.param_groups:
            group["lr"] = lr
        state, total, start = None, 0.0, time.perf_counter()
        for window in train_data:
            loss, state = train_step(model, optimizer, window, state, args.clip)
            total += loss
        seconds = time.perf_counter() - start
        report({"epoch": epoch, "train_loss": round(total / len(train_data), 4),
                "valid_loss": round(evaluate(model, valid_data), 4), "lr": lr,
                "chars_per_s": round(len(train_data) * args.batch * args.seq_len / seconds)})


def loaded_blas():
    """Path of the BLAS library that PyTorch found, or the name of the one built into it."""
    if "BLAS_INFO=mkl" in torch.__config__.show():
        return "mkl"
    with open("/proc/self/maps", encoding="utf-8") as maps:
        found = re.search(r"/\S*/lib(blas|openblas|blis)[^/\s]*", maps.read())
    return found.group() if found else "built in"


def set_threads(count):
    """Threads of PyTorch and of OpenBLAS, which PyTorch leaves alone; returns the BLAS."""
    torch.set_num_threads(count)
    blas = loaded_blas()
    if blas.startswith("/"):
        library = ctypes.CDLL(blas)
        if hasattr(library, "openblas_set_num_threads"):
            library.openblas_set_num_threads(count)
    if re.search(r"/blas/libblas", blas):
        print(f"torch_char_lm: {blas} is the slow reference BLAS, so this is not PyTorch's speed; "
              "install libopenblas0-pthread", file=sys.stderr)
    return os.path.basename(blas)


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--text", required=True, help="UTF-8 text file")
    add("--model", choices=["lstm", "gru", "rnn"], default="lstm")
    add("--layers", type=positive, default=2)
    add("--hidden", type=positive, default=128)
    add("--embed", type=positive, default=64)
    add("--seq-len", type=positive, default=50, help="T, characters in a window")
    add("--batch", type=positive, default=50, help="B, streams")
    add("--epochs", type=positive, default=10)
    add("--lr", type=float, default=2e-3)
    add("--lr-decay", type=float, default=0.97)
    add("--lr-decay-after", type=int, default=10, help="last epoch at the full rate")
    add("--clip", type=float, default=5.0)
    add("--train-frac", type=float, default=0.9)
    add("--seed", type=int, default=123)
    add("--threads", type=positive, default=1)
    add("--json", action="store_true", help="print JSON lines")
    return parser.parse_args()


def read_text(path):
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:  # without a mark
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"torch_char_lm: cannot read {path}: {error}")


def main():
    args = parse_arguments()
    torch.manual_seed(args.seed)
    blas = set_threads(args.threads)

    text = read_text(args.text)
    vocabulary = {char: index for index, char in enumerate(sorted(set(text)))}
    tokens = torch.tensor([vocabulary[char] for char in text])
    n_train = int(args.train_frac * len(tokens))
    train_data = windows(tokens[:n_train], args.batch, args.seq_len)

    model = CharLm(args.model, len(vocabulary), args.embed, args.hidden, args.layers)
    optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    setup = {"peer": "pytorch", "version": torch.__version__, "blas": blas,
             "threads": args.threads, "model": args.model,
             "parameters": sum(p.numel() for p in model.parameters()),
             "vocabulary": len(vocabulary), "windows": len(train_data)}

    def report(values):
        if args.json:
            print(json.dumps(values), flush=True)
        else:
            print("  ".join(f"{key} {value}" for key, value in values.items()), flush=True)

    report(setup)
    train(model, optimizer, train_data, windows(tokens[n_train:], args.batch, args.seq_len), args,
          report)


if __name__ == "__main__":
    main()
