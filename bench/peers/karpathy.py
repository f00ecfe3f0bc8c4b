#!/usr/bin/env python3
"""Trains `char_lm train --recipe karpathy` in PyTorch, on the same windows.

The settings are those of Karpathy, Johnson and Li, "Visualizing and understanding recurrent
networks", 2015: one-hot characters, every parameter uniform in [-0.08, 0.08], sequences of 100 in
100 streams, RMSProp (2e-3, decay 0.95), the rate times 0.95 an epoch after the tenth, gradients
clipped elementwise at 5, the text split 80/10/10. Like Reel's layers it has one bias a gate: that
of PyTorch's second is zero and stays so.

    karpathy.py --text FILE --hidden 128 --epochs 50     one line an epoch: losses in nats/char

At the end the loss on the last tenth of the text, of the weights of least validation loss. Exits 77
(skipped) when PyTorch is not installed.
"""
import argparse
import copy
import math
import time

from torch_char_lm import detach, evaluate, positive, read_text, set_threads, windows
from torch_char_lm import cross_entropy, nn, torch  # after its check that there is one

BOUND, RATE, DECAY, CLIP = 0.08, 2e-3, 0.95, 5
RATE_DECAY, FULL_RATE_EPOCHS = 0.95, 10


class CharLm(nn.Module):
    def __init__(self, kind, vocabulary, hidden, layers, dropout):
        super().__init__()
        self.vocabulary = vocabulary
        layer = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[kind]
        self.recurrent = layer(vocabulary, hidden, layers, dropout=dropout)
        self.linear = nn.Linear(hidden, vocabulary)
        for name, parameter in self.named_parameters():
            nn.init.uniform_(parameter, -BOUND, BOUND)
            if "bias_hh" in name and kind != "gru":
                nn.init.zeros_(parameter)
                parameter.requires_grad = False

    def forward(self, tokens, state):
        x = nn.functional.one_hot(tokens, self.vocabulary).to(self.linear.weight.dtype)
        y, state = self.recurrent(x, state)
        return self.linear(y), state


def train_epoch(model, optimizer, data):
    """Returns the mean loss."""
    model.train()
    state, total = None, 0.0
    for inputs, targets in data:
        optimizer.zero_grad()
        logits, state = model(inputs, detach(state))
        loss = cross_entropy(logits, targets)
        loss.backward()
        nn.utils.clip_grad_value_(model.parameters(), CLIP)
        optimizer.step()
        total += loss.item()
    return total / len(data)


def train(model, data, args):
    """Prints a line after each epoch; leaves the weights of least validation loss in the model."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.RMSprop(trained, lr=RATE, alpha=DECAY, eps=1e-8)
    best, weights = math.inf, None
    chars = len(data["train"]) * args.batch * args.seq_len
    for epoch in range(1, args.epochs + 1):
        rate = RATE * RATE_DECAY ** max(0, epoch - FULL_RATE_EPOCHS)
        optimizer.param_groups[0]["lr"] = rate
        start = time.perf_counter()
        train_loss = train_epoch(model, optimizer, data["train"])
        seconds = time.perf_counter() - start
        model.eval()
        valid_loss = evaluate(model, data["valid"])
        if valid_loss < best:
            best, weights = valid_loss, copy.deepcopy(model.state_dict())
        print(f"epoch {epoch}  train_loss {train_loss:.4f}  valid_loss {valid_loss:.4f}  "
              f"lr {rate:.6g}  chars_per_s {chars / seconds:.0f}", flush=True)
    model.load_state_dict(weights)
    return best


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--text", required=True, help="UTF-8 text file")
    add("--model", choices=["lstm", "gru", "rnn"], default="lstm")
    add("--layers", type=positive, default=1)
    add("--hidden", type=positive, default=128)
    add("--dropout", type=float, default=0)
    add("--seq-len", type=positive, default=100, help="T, characters in a window")
    add("--batch", type=positive, default=100, help="B, streams")
    add("--epochs", type=positive, default=50)
    add("--seed", type=int, default=123)
    add("--threads", type=positive, default=1)
    return parser.parse_args()


def main():
    args = parse_arguments()
    torch.manual_seed(args.seed)
    set_threads(args.threads)

    text = read_text(args.text)
    vocabulary = {char: index for index, char in enumerate(sorted(set(text)))}
    tokens = torch.tensor([vocabulary[char] for char in text])
    n_train, n_test = int(0.8 * len(tokens)), int(0.1 * len(tokens))
    cuts = {"train": tokens[:n_train], "valid": tokens[n_train:-n_test], "test": tokens[-n_test:]}
    data = {name: windows(part, args.batch, args.seq_len) for name, part in cuts.items()}

    model = CharLm(args.model, len(vocabulary), args.hidden, args.layers, args.dropout)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"pytorch {torch.__version__}  {args.model} {args.layers} x {args.hidden}  "
          f"parameters {trained}  vocabulary {len(vocabulary)}  windows {len(data['train'])}",
          flush=True)
    best = train(model, data, args)
    print(f"best_valid_loss {best:.4f}  test_loss {evaluate(model, data['test']):.4f}")


if __name__ == "__main__":
    main()
