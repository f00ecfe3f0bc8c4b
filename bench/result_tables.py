"""What docs/results.md measures: a table for each claim, its rows, and the numbers they end with."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Quantity:
    heading: str
    pattern: str  # of the line with the number, which is its group
    digits: int = 4  # significant ones


def result(heading, begin, digits=4):
    """A number that a program of examples/ ends with: result: BEGIN ... = NUMBER (...)."""
    return Quantity(heading, rf"^result: {begin}.* = (\S+) \(", digits)


@dataclasses.dataclass(frozen=True)
class Row:
    setting: str
    command: str  # "adding --cell gru"; DATA/ stands for the folder of the data
    published: str = ""
    seeds: tuple = (1, 2, 3)


@dataclasses.dataclass(frozen=True)
class Table:
    name: str
    quantities: tuple
    rows: tuple


CELLS = (("RNN", "rnn"), ("GRU", "gru"), ("LSTM", "lstm"))
TEST_LOSS = Quantity("test, nats/char", r"test[_ ]loss ([\d.]+)")
SHAKESPEARE = "char_lm train --text DATA/tinyshakespeare.txt --train-frac 0.3 --test-frac 0.6"
SMALL_WORDS = ("word_lm --recipe zaremba-small --train DATA/tinyshakespeare.txt --words 2000"
               " --epochs 3")
CHORALES = "music --data DATA/jsb-chorales-quarter.json --cell"
EWT_DEV = "tagger --train DATA/en_ewt-ud-dev.conllu"
TREEBANK = ("tagger --train DATA/en_ewt-ud-train.conllu --valid DATA/en_ewt-ud-dev.conllu"
            " --test DATA/en_ewt-ud-test.conllu")
PTB = "word_lm --train DATA/ptb.train.txt --valid DATA/ptb.valid.txt --test DATA/ptb.test.txt"


def layers(count):
    return f"{count} layer{'s' * (count > 1)}"


GATES = (
    Table("adding", (result("mean squared error", "squared error", 2),), (
        *(Row(f"{name}, 200 steps", f"adding --cell {cell} --length 200") for name, cell in CELLS),
        *(Row(f"{name}, 600 steps", f"adding --cell {cell} --length 600 --epochs 15")
          for name, cell in CELLS[:2]),
        Row("LSTM, 600 steps, forget bias 3", "adding --cell lstm --length 600 --epochs 12 "
            "--learning-rate 0.01 --forget-bias 3"))),
    Table("copying", (result("share of the loss without memory", "loss of a", 2),), (
        *(Row(f"{name}, 30 blanks", f"copy_memory --cell {cell} --blanks 30")
          for name, cell in CELLS),
        Row("LSTM, 30 blanks, forget bias 3", "copy_memory --cell lstm --blanks 30 --forget-bias 3"),
        Row("GRU, 100 blanks", "copy_memory --cell gru --blanks 100 --epochs 20"))),
    *(Table(task, tuple(result(f"% right, {length} steps", f"accuracy .* over {length} steps")
                        for length in (64, 256, 1024)), tuple(
        Row(name, f"classify --task {task} --cell {cell}")
        for name, cell in (*CELLS, ("minGRU", "min_gru"))))
      for task in ("parity", "permutations", "majority")),
    Table("costs", tuple(result(f"{cell}, {what}", f"{what} of {cell}, times", 3)
                         for what in ("weights", "time")
                         for cell in ("GRU", "LSTM", "minGRU")), tuple(
        Row(f"{hidden} units", f"cell_costs --hidden {hidden}") for hidden in (64, 256, 512))),
)

TRAINING = (
    Table("forget-bias", (result("share of the loss without memory", "loss of a", 2),), tuple(
        Row(f"LSTM, bias {bias}", "copy_memory --cell lstm --blanks 30"
            + (f" --forget-bias {bias}" if bias != 1 else ""))
        for bias in (0, 1, 3))),
    Table("clipping", (result("test perplexity", "test perplexity"),), tuple(
        Row(name, f"{SMALL_WORDS} --clip {limit}")
        for name, limit in (("norm at most 1", 1), ("norm at most 5", 5), ("norm at most 25", 25),
                            ("no limit", 1000000)))),
    Table("truncation", (TEST_LOSS,
                         Quantity("characters a second", r"train .* ([\d,]+) chars/s")), tuple(
        Row(f"k1 = {update}, k2 = {length}", f"{SHAKESPEARE} --layers 1 --epochs 5 "
            f"--tbptt-update {update} --tbptt-length {length}")
        for update, length in ((5, 5), (10, 10), (50, 50), (200, 200),
                               (10, 20), (10, 50), (10, 100), (50, 100)))),
    Table("depth", (result("nats a frame", "test loss"),), tuple(
        Row(f"{layers(count)}{name}", f"{CHORALES} gru --layers {count}{rates}")
        for name, rates in ((", no dropout", " --input-dropout 0 --hidden-dropout 0 "
                             "--output-dropout 0"), (", dropout", ""))
        for count in (1, 2, 3, 4))),
)

TASKS = (
    Table("tagging", (result("% of words", "% of the test's words"),), (
        Row("LSTM, both directions", EWT_DEV),
        Row("GRU, both directions", f"{EWT_DEV} --cell gru"),
        Row("LSTM, forwards", f"{EWT_DEV} --one-way"),
        Row("GRU, forwards", f"{EWT_DEV} --cell gru --one-way"),
        Row("LSTM, both directions, CRF", f"{EWT_DEV} --crf"),
        Row("the whole treebank", TREEBANK, seeds=(1,)))),
    Table("names", (result("F1, %", "F1 of names"),
                    result("% of sentences with an impossible label", "% of sentences", 2)), (
        Row("LSTM, softmax", "ner"),
        Row("LSTM, CRF", "ner --crf"))),
    Table("words", (result("validation perplexity", "validation perplexity"),
                    result("test perplexity", "test perplexity")), (
        Row("LSTM, 2 x 200", f"{PTB} --recipe zaremba-small", "120.7, 114.5", seeds=(1,)),)),
    Table("characters", (Quantity("validation, nats/char", r"best[ _]valid\w*[ _]loss ([\d.]+)"),
                         TEST_LOSS), tuple(
        Row(name, f"{program} --text DATA/warpeace_input.txt --layers 1 --hidden 128", "1.277",
            seeds=(1,))
        for name, program in (("Reel, LSTM, 1 x 128", "char_lm train --recipe karpathy"),
                              ("PyTorch, the same", "karpathy.py")))),
    Table("music", (result("nats a frame", "test loss"),), tuple(
        Row(name, f"{CHORALES} {cell}", published)
        for (name, cell), published in zip(CELLS, ("8.91", "8.43", "8.45")))),
    Table("variants", (result("nats a frame", "test loss"),), (
        Row("without peepholes (NP)", f"{CHORALES} lstm"),
        Row("with peepholes (V)", f"{CHORALES} V"),
        Row("input and forget gate coupled (CIFG)", f"{CHORALES} CIFG"),
        Row("no input gate (NIG)", f"{CHORALES} NIG"),
        Row("no forget gate (NFG)", f"{CHORALES} NFG"),
        Row("no output gate (NOG)", f"{CHORALES} NOG"),
        Row("no input activation (NIAF)", f"{CHORALES} NIAF"),
        Row("no output activation (NOAF)", f"{CHORALES} NOAF"),
        Row("gates see all gates (FGR)", f"{CHORALES} FGR"))),
    Table("series", (Quantity("root mean squared error", r"root mean .* = (\S+) \("),
                     Quantity("linear", r"\((\S+) of a linear"),
                     Quantity("nothing changes", r"(\S+) if nothing changes"),
                     result("in the interval for 0.8", "share in the interval", 2)), tuple(
        Row(f"{data}, {forecast}", f"series --data {data} --forecast {forecast}")
        for data in ("seasonal", "chaotic")
        for forecast in ("direct", "iterated"))),
    Table("transcription", (result("% label errors", "% label errors of .*, the best of", 2),), (
        Row("LSTM, both directions, CTC", "transcribe"),)),
    Table("strings", (result("% exactly right", "% exactly right"),), (
        Row("dates, additive attention", "seq2seq"),
        Row("dates, dot attention", "seq2seq --attention dot"),
        Row("reversed, additive attention", "seq2seq --task reverse"))),
    Table("second-order", (Quantity("error", r"^result: .* = (\S+) \("),
                           Quantity("without it", r"\((\S+) (?:before|after joint) training")), (
        Row("an LSTM generates, its critic's gradient is penalised", "gan"),
        Row("learned initial values, three steps of SGD", "maml"))),
)

TABLES = GATES + TRAINING + TASKS
