"""What the benchmark measures: the only list of its rows, and the amount of work of each.

A row is a dictionary that a worker gets as JSON. Its `work` is

    forward    layers over a sequence, without a gradient
    training   the same with the gradients of the weights and of the input
    packed     training, of sequences with the row's `lengths`
    diagnosed  training under nn::Diagnostics
    tbptt      truncated backpropagation: an update for every `k1` steps looks back over `k2`
    unroll     training, with a cell in ops run step by step
    char_lm    a step of `char_lm train`: embedding, layers, linear, cross entropy, clipping, Adam,
               or with `optimizer` "sgd" plain gradient descent, as in Zaremba's models of words
    stepping   one layer at batch 1, `steps` calls of one step, each fed with the state before
    streaming  one layer as an nn::Stream, `steps` samples of a signal one at a time
    matmul     [m, k] x [k, n]; `packed`: with the right factor packed before, where a library can
    scan       linear_scan over [steps, batch, hidden]
    copy       a copy that moves as many bytes as that: the speed of memory

Kinds are those of PyTorch, mingru, LSTMs with an option (peephole, projection to half of the units,
layer_norm, zoneout) and own (that with peepholes as a program's own cell).
`inputs` is the size of the input, `compared` whether the peers do the row too, or the name of the
only one that does, `quick` whether it is part of a quick run, `precision` bf16 where the factors of
products are rounded.
"""

GATES = {"rnn": 1, "gru": 3, "lstm": 4, "mingru": 2, "peephole": 4, "own": 4,
         "projection": 4, "layer_norm": 4, "zoneout": 4}
KINDS = ("rnn", "gru", "lstm")


def layers(work, kind, hidden, layers, batch, steps, inputs=None, compared=True, quick=False,
           **more):
    name = f"{kind} {work} H{hidden} L{layers} B{batch} T{steps}"
    if inputs is not None:
        name += f" D{inputs}"
    return {"name": name, "work": work, "kind": kind, "inputs": inputs or hidden, "hidden": hidden,
            "layers": layers, "batch": batch, "steps": steps, "compared": compared, "quick": quick,
            **more}


def word_model(symbols, optimizer):
    row = layers("char_lm", "lstm", 200, 2, 20, 20, inputs=200, symbols=symbols, quick=True,
                 optimizer=optimizer)
    row["name"] += f" V{symbols}"
    if optimizer == "sgd":
        row.update(name=row["name"] + " SGD", compared="PyTorch")
    return row


def stepping(kind):
    return {"name": f"{kind} 100 steps H128 B1", "work": "stepping", "kind": kind, "inputs": 128,
            "hidden": 128, "layers": 1, "batch": 1, "steps": 100, "compared": True, "quick": True}


def streaming(kind, hidden):
    return {"name": f"{kind} 1000 samples H{hidden}", "work": "streaming", "kind": kind,
            "inputs": 1, "hidden": hidden, "layers": 1, "batch": 1, "steps": 1000,
            "compared": "RTNeural", "quick": True}


def matmul(m, k, n, packed=False):
    return {"name": f"matmul {m}x{k} {k}x{n}" + (" packed" if packed else ""), "work": "matmul",
            "m": m, "k": k, "n": n, "packed": packed, "compared": True, "quick": True}


def over_memory(work, steps, batch, hidden):
    return {"name": f"{work} T{steps} B{batch} H{hidden}", "work": work, "steps": steps,
            "batch": batch, "hidden": hidden, "compared": False, "quick": True}


def all_rows():
    rows = []
    for hidden, count, batch in ((512, 2, 64), (256, 2, 64), (128, 1, 32), (64, 1, 16)):
        for kind in KINDS:
            for work in ("forward", "training"):
                rows.append(layers(work, kind, hidden, count, batch, 64, quick=hidden <= 128))
    rows.append(layers("forward", "lstm", 1024, 1, 64, 64))
    for work, hidden, count in (("training", 512, 2), ("forward", 1024, 1)):
        rows.append(layers(work, "lstm", hidden, count, 64, 64, compared="PyTorch",
                           precision="bf16"))
        rows[-1]["name"] += " bf16"
    for hidden, batch, steps in ((128, 50, 50), (512, 64, 64)):
        for kind in ("gru", "lstm"):
            quick = hidden == 128
            rows.append(layers("training", kind, hidden, 2, batch, steps, inputs=64,
                               compared=False, quick=quick))
            rows.append(layers("char_lm", kind, hidden, 2, batch, steps, inputs=64, symbols=65,
                               quick=quick))
    # Zaremba's small model of words: the head has most of the work.
    rows += [word_model(10_000, "adam"), word_model(10_000, "sgd"), word_model(33_000, "sgd")]
    for hidden in (256, 512):
        for work, kind in (("training", "lstm"), ("unroll", "lstm"), ("training", "mingru")):
            rows.append(layers(work, kind, hidden, 1, 64, 64, compared=False,
                               quick=hidden == 256))
    for work, kind, more in (("packed", "lstm", {"lengths": [1 + 37 * i % 64 for i in range(64)]}),
                             ("training", "peephole", {}), ("training", "own", {}),
                             ("training", "projection", {}), ("training", "layer_norm", {}),
                             ("training", "zoneout", {}), ("diagnosed", "lstm", {}),
                             ("tbptt", "lstm", {"k1": 16, "k2": 64})):
        rows.append(layers(work, kind, 256, 1, 64, 64, compared=work == "packed", quick=True,
                           **more))
    rows += [over_memory(work, 256, 32, 512) for work in ("scan", "copy")]
    rows += [stepping("gru"), stepping("lstm")]
    rows += [streaming(kind, hidden) for kind in ("lstm", "gru")
             for hidden in (8, 16, 32, 64, 128)]
    rows += [matmul(512, 8192, 2048), matmul(8192, 512, 2048), matmul(64, 512, 2048, packed=True),
             matmul(64, 256, 1024, packed=True), matmul(32, 128, 512, packed=True)]
    for steps in (10, 100, 1000, 10_000, 100_000):
        rows.append(layers("training", "lstm", 64, 1, 8, steps, compared=False,
                           quick=steps <= 1000))
    return rows


def tokens(row):
    """Steps of a sequence that a call goes through; 0 for rows that are not about sequences."""
    return sum(row["lengths"]) if "lengths" in row else row.get("batch", 0) * row.get("steps", 0)


def flop(row):
    """Floating-point operations of a call: those of its matrix products, as is customary."""
    if row["work"] == "matmul":
        return 2 * row["m"] * row["k"] * row["n"]
    if row["work"] in ("scan", "copy"):
        return 0
    hidden = row["hidden"]
    fed = row["inputs"] + (row["layers"] - 1) * hidden
    if row["kind"] != "mingru":  # whose gates do not see the state
        fed += row["layers"] * hidden
    if row["kind"] == "projection":  # to half: U is half as wide, and R is an eighth of 4 H
        fed -= hidden // 2 - hidden // 8
    token = 2 * GATES[row["kind"]] * hidden * fed
    if row["work"] == "char_lm":
        token += 2 * hidden * row["symbols"]
    backward = 2 * row["k2"] // row["k1"] if row["work"] == "tbptt" else 2
    passes = 1 if row["work"] in ("forward", "stepping", "streaming") else 1 + backward
    return passes * token * tokens(row)
