"""What char_lm train prints and writes besides its metrics: nothing of it changes the training."""
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import time
import unittest

import event_files
import runs
from runs import metrics_of

TIMES = ("chars_per_s", "elapsed_s")


def without_times(lines):
    return [{key: value for key, value in line.items() if key not in TIMES} for line in lines]


def samples_of(run):
    return [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]


class Printed(runs.CharLmTest):
    def words(self, run):
        return ["train", "--text", self.text, "--run", self.folder / run, *self.small, "--batch", 2]

    def test_quiet_prints_the_last_line_only(self):
        said = self.succeed(*self.words("run"), "--quiet").decode()
        best = min(line["valid_loss"] for line in metrics_of(self.folder / "run")
                   if "valid_loss" in line)
        self.assertRegex(said, rf"\Afinished after step 268; best validation loss {best:.4f} "
                               r"nats/char, after epoch [12]\n\Z")
        again = self.succeed("train", "--resume", "--run", self.folder / "run", "--quiet").decode()
        self.assertEqual(again, said)
        without = self.succeed(*self.words("plain"), "--quiet", "--train-frac", 1).decode()
        self.assertRegex(without, r"\Afinished after step \d+; there is no validation loss\n\Z")

    def test_json_prints_the_lines_of_the_files(self):
        said = self.succeed(*self.words("run"), "--json", "--sample-every", 100).decode()
        run = self.folder / "run"
        lines = said.splitlines()
        metrics = (run / "metrics.jsonl").read_text().splitlines()
        self.assertEqual([line for line in lines if "train_loss" in json.loads(line)], metrics)
        self.assertEqual([line for line in lines if "text" in json.loads(line)],
                         (run / "samples.jsonl").read_text().splitlines())
        best = [(line["valid_loss"], line["epoch"]) for line in map(json.loads, metrics)
                if "valid_loss" in line]
        self.assertEqual(json.loads(lines[-1]), {
            "end": "finished", "step": 268, "epochs": 2, "best_valid_loss": min(best)[0],
            "best_epoch": min(best)[1]})
        self.assertEqual(len(lines), len(metrics) + 2 + 1)

    def test_both_are_refused(self):
        self.refuse(2, *self.words("run"), "--quiet", "--json", says=["--quiet", "--json"])

    def test_json_of_info(self):
        run = self.train("run")
        told = json.loads(self.succeed("info", "--run", run, "--json"))
        config = json.loads((run / "config.json").read_text())
        self.assertEqual(told["config"], {key: value for key, value in config.items()
                                          if key not in ("text", "vocabulary")})
        self.assertEqual((told["vocabulary"], told["step"], told["epochs"]),
                         (len(config["vocabulary"]), 134, 2))
        header, _ = runs.read_safetensors(run / "model.safetensors")
        for row in told["parameters"]:
            self.assertEqual(row["shape"], header[row["name"]]["shape"])
            self.assertEqual(row["count"], math.prod(row["shape"]))
        text = self.succeed("info", "--run", run).decode()
        self.assertEqual([f"{row['norm']:.4f}" for row in told["parameters"]],
                         re.findall(r"(?m)^\S+ +\[.*\] +[\d,]+ +(\S+)$", text))

    def test_version(self):
        said = self.succeed("--version").decode()
        self.assertRegex(said, r"\Achar_lm of Reel \d+\.\d+\.\d+\n(g\+\+|clang\+\+) [\d.]+, \S+\n"
                               r"Eigen [\d.]+, fmt [\d.]+, nlohmann-json [\d.]+, CLI11 [\d.]+\n\Z")


class Samples(runs.CharLmTest):
    extras = ["--sample-every", 20, "--sample-length", 30]

    def test_training_is_the_same(self):
        for i, words in enumerate(([], ["--dropout", 0.3], ["--tbptt-update", 4, "--tbptt-length",
                                                            10, "--seq-len", 4])):
            plain = self.train(f"plain{i}", *words)
            told = self.train(f"told{i}", *words, *self.extras, "--tensorboard", "--diagnose")
            self.assertEqual((plain / "model.safetensors").read_bytes(),
                             (told / "model.safetensors").read_bytes())
            self.assertFalse((plain / "samples.jsonl").exists())
            samples = samples_of(told)
            steps = metrics_of(told)[-1]["step"]
            self.assertEqual([sample["step"] for sample in samples], list(range(20, steps + 1, 20)))
            self.assertEqual({len(sample["text"]) for sample in samples}, {30})
            self.assertGreater(len({sample["text"] for sample in samples}), 1)
        again = self.train("again", *words, *self.extras)
        self.assertEqual(samples_of(again), samples)

    def test_they_are_printed(self):
        said = self.succeed("train", "--text", self.text, "--run", self.folder / "run", *self.small,
                            *self.extras).decode()
        for sample in samples_of(self.folder / "run"):
            lines = "".join(f"  {line}\n" for line in sample["text"].rstrip("\n").split("\n"))
            self.assertIn(f"sample after step {sample['step']}:\n{lines}", said)

    def test_resumed_they_are_the_same(self):
        whole = self.train("whole", *self.extras, "--epochs", 9)
        run = self.folder / "run"
        words = ["train", "--text", self.text, "--run", run, *self.small, "--epochs", 9]
        for which in (signal.SIGINT, signal.SIGKILL, signal.SIGKILL, signal.SIGINT, None):
            process = subprocess.Popen(self.command(*words, *self.extras),
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                       preexec_fn=runs.default_signals)
            if which:
                time.sleep(0.15)
                process.send_signal(which)
            process.communicate()
            if (run / "config.json").exists():
                words = ["train", "--resume", "--run", run]
        self.assertEqual((run / "samples.jsonl").read_bytes(),
                         (whole / "samples.jsonl").read_bytes())

    def test_later_lines_are_cut_off(self):
        run = self.train("run", *self.extras)
        path = run / "samples.jsonl"
        kept = path.read_text()
        path.write_text(kept + '{"step": 999, "epoch": 9, "text": ""}\n{"half')
        self.succeed("train", "--resume", "--run", run)
        self.assertEqual(path.read_text(), kept)
        path.write_text("nothing\n")
        self.refuse(1, "train", "--resume", "--run", run, "--epochs", 3,
                    says=["samples.jsonl: line 1", "delete the line"])

    def test_of_bytes(self):
        self.text = self.file("data", bytes(range(256)) * 8)
        run = self.train("run", "--bytes", *self.extras)
        for sample in samples_of(run):
            self.assertEqual(len(sample["text"].encode("latin-1")), 30)
        self.succeed("report", run)

    def test_refusals(self):
        for words in (["--sample-every", -1], ["--sample-every", "x"], ["--sample-length", 0]):
            self.refuse(2, "train", "--run", "new", *words, says=words[0] + " is")


class TensorBoard(runs.CharLmTest):
    def events(self, run):
        return [event_files.read(path) for path in sorted((run / "tensorboard").iterdir())]

    def test_events(self):
        run = self.train("run", "--batch", 2, "--tensorboard", "--diagnose", "--sample-every", 100)
        (first, *events), = self.events(run)
        self.assertEqual(first["file_version"], "brain.Event:2")
        values = {}
        for event in events:
            self.assertAlmostEqual(event["wall_time"], time.time(), delta=600)
            for tag, value in event["values"].items():
                values.setdefault(tag, []).append((event["step"], value))
        metrics = metrics_of(run)
        epochs = [line for line in metrics if "valid_loss" in line]
        hundreds = [line for line in metrics if "valid_loss" not in line]
        for tag, key, lines in (("steps/train_loss", "train_loss", hundreds),
                                ("steps/lr", "lr", hundreds),
                                ("steps/grad_norm", "grad_norm", hundreds),
                                ("epoch/train_loss", "train_loss", epochs),
                                ("epoch/valid_loss", "valid_loss", epochs)):
            self.assertEqual([step for step, _ in values[tag]], [line["step"] for line in lines])
            for (_, value), line in zip(values[tag], lines):
                self.assertAlmostEqual(value / line[key], 1, places=6)
        self.assertEqual(len(values["steps/chars_per_s"]), len(hundreds))
        for line in hundreds:  # of all parameters together the norm, which is not clipped here
            squares = [counts["sum_squares"] for tag, found in values.items()
                       for step, counts in found
                       if tag.startswith("gradients/") and step == line["step"]]
            self.assertEqual(len(squares), 9)
            self.assertAlmostEqual(math.sqrt(sum(squares)) / line["grad_norm"], 1, places=4)
        header, data = runs.read_safetensors(run / "model.safetensors")
        step, counts = values["weights/head.w"][-1]
        begin, end = header["head.w"]["data_offsets"]
        weights = event_files.floats(data[begin:end])
        self.assertEqual((step, counts["num"]), (metrics[-1]["step"], len(weights)))
        self.assertEqual((counts["min"], counts["max"]), (min(weights), max(weights)))
        self.assertAlmostEqual(counts["sum"], math.fsum(weights), places=9)
        self.assertAlmostEqual(counts["sum_squares"], math.fsum(w * w for w in weights), places=9)
        self.assertEqual(sum(counts["bucket"]), len(weights))
        self.assertEqual(counts["bucket_limit"], sorted(counts["bucket_limit"]))
        layer = metrics[-1]["diagnostics"]["layers"][0]
        self.assertEqual(values["gates/rnn.0/input"][-1][1]["bucket"],
                         layer["gates"][0]["histogram"])
        self.assertAlmostEqual(values["gradient/rnn.0/last_time_step"][-1][1],
                               layer["gradient_norms"][-1], delta=1e-3 * layer["gradient_norms"][-1])
        samples = samples_of(run)
        self.assertEqual(values["sample"],
                         [(s["step"], {"plugin": "text", "text": "    " + s["text"].replace(
                             "\n", "\n    ")}) for s in samples])

    def resumed(self):
        run = self.train("run", "--batch", 2, "--epochs", 1, "--tensorboard")
        runs.lengthen_metrics(run)
        self.stop_at_next_line(run, "--epochs", 3, "--tensorboard")  # its events are beyond 200
        self.succeed("train", "--resume", "--run", run, "--tensorboard")
        return run

    def test_a_resumed_run_takes_back_later_events(self):
        run = self.resumed()
        whole = self.train("whole", "--batch", 2, "--epochs", 3, "--tensorboard")
        # The gradients of the step whose line could not be written are gone.
        lost = [event for event in event_files.merged(self.events(whole))
                if event[0] != 200 or not event[1].startswith("gradients/")]
        self.assertEqual(event_files.merged(self.events(run)), lost)
        self.assertIn((100, "gradients/head.b"), [event[:2] for event in lost])
        starts = [event["step"] for events in self.events(run) for event in events
                  if event.get("session") == 1]
        self.assertEqual(starts, [1, 135, 201])  # the first file has nothing to take back
        before = runs.hash_of(run)
        self.succeed("train", "--resume", "--run", run, "--tensorboard")  # nothing is left to do
        self.assertEqual(runs.hash_of(run), before)

    def test_nothing_is_left_of_a_training_that_fails_at_once(self):
        self.refuse(1, "train", "--text", self.text, "--run", "new", *self.small, "--optimizer",
                    "sgd", "--lr", 1e30, "--clip", 0, "--tensorboard", "--sample-every", 100,
                    says="training stopped")
        (self.folder / "new" / "tensorboard").mkdir(parents=True)
        self.refuse(1, "train", "--text", self.text, "--run", "new", *self.small,
                    says="there is a run in it already")

    @unittest.skipUnless(importlib.util.find_spec("tensorboard"), "there is no tensorboard")
    def test_tensorboard_reads_it(self):
        from tensorboard.backend.event_processing import event_accumulator
        run = self.resumed()
        reader = event_accumulator.EventAccumulator(str(run / "tensorboard"), {"histograms": 0})
        reader.Reload()
        self.assertEqual([event.step for event in reader.Scalars("steps/train_loss")],
                         [line["step"] for line in metrics_of(run) if "valid_loss" not in line])
        self.assertEqual([event.step for event in reader.Histograms("weights/head.b")],
                         [134, 268, 402])


class Signals(runs.CharLmTest):
    def test_while_a_text_is_read(self):
        os.mkfifo(self.folder / "pipe")
        for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process = subprocess.Popen(
                self.command("train", "--text", self.folder / "pipe", "--run", "new"),
                cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                preexec_fn=runs.default_signals)
            with open(self.folder / "pipe", "wb", buffering=0) as pipe:
                for _ in range(10):  # a text that comes slowly
                    pipe.write(b"some text, ")
                    time.sleep(0.02)
                process.send_signal(which)
                begin = time.monotonic()
                process.communicate(timeout=20)
            self.assertLess(time.monotonic() - begin, 2)
            self.assertEqual(process.returncode, -which)
            self.assertFalse((self.folder / "new").exists())

    def test_from_the_first_moment(self):
        self.text = self.file("text.txt", runs.small_text() * (300 if runs.SANITIZED else 6000))
        for delay in (0, 0.01, 0.05, 0.1):  # of what takes longer: 18 MB
            process = subprocess.Popen(
                self.command("train", "--text", self.text, "--run", self.folder / "new",
                             *self.small), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                preexec_fn=runs.default_signals)
            time.sleep(delay)
            process.send_signal(signal.SIGHUP)
            error = process.communicate(timeout=20)[1]
            self.assertIn(process.returncode, (-signal.SIGHUP, 128 + signal.SIGHUP), error)
            if process.returncode < 0:
                self.assertFalse((self.folder / "new" / "config.json").exists())


class Conversation(runs.CharLmTest):
    def setUp(self):
        super().setUp()
        self.trained = self.train("run")

    def talk(self, text, *words):
        return self.succeed("sample", "--run", self.trained, "--interactive", "--length", 20,
                            *words, stdin=None, input=text.encode()).decode()

    def test_lines_are_continued(self):
        for end in ("", ":quit\nthe"):
            answers = self.talk("the cat\n\n" + end)
            self.assertTrue(answers.startswith("the cat"))
            self.assertEqual(len(answers), 7 + 20 + 1 + 20 + 1)

    def test_a_prime_comes_first(self):
        once = self.succeed("sample", "--run", self.trained, "--prime", "the cat", "--length", 20)
        self.assertEqual("the cat" + self.talk("\n", "--prime", "the cat"), once.decode() + "\n")
        self.assertNotEqual(self.talk("\n", "--prime", "the cat"), self.talk("\n"))
        self.refuse(1, "sample", "--run", "run", "--interactive", "--prime", "春",
                    says="--prime: the model has never seen")

    def test_settings(self):
        safe = self.talk(":temperature 0\nthe\n")
        self.assertEqual(self.talk(":seed 7\n:temperature 0\nthe\n"), safe)
        self.assertEqual(self.talk(":seed 7\nthe\n"), self.talk("the\n", "--seed", 7))
        self.assertNotEqual(self.talk(":seed 7\nthe\n"), self.talk("the\n"))

    def test_errors_do_not_end_it(self):
        for line, says in ((":tempo 3", '":tempo" is unknown'), (":temperature -1", "temperature is"),
                           ("春", "the model has never seen"), (":seed", "seed is"),
                           (":\x1b[31m", r"\u001b[31m")):
            answers = self.talk(f"{line}\nthe\n")
            self.assertIn(says, answers)
            self.assertRegex(answers, r"\nthe")
        self.refuse(1, "sample", "--run", "run", "--interactive", stdin=None,
                    input=b"x" * (2 << 20), says="the line is longer")


class PerChar(runs.CharLmTest):
    def test_what_characters_cost(self):
        run = self.train("run")
        words = ["eval", "--run", run, "--text", self.text]
        plain = json.loads(self.succeed(*words, "--json"))
        told = json.loads(self.succeed(*words, "--json", "--per-char"))
        rows = told.pop("per_char")
        self.assertEqual(told, plain)
        text = runs.small_text()[1:]
        self.assertEqual({row["character"]: row["count"] for row in rows},
                         {c: text.count(c) for c in {row["character"] for row in rows}})
        shares = [row["share"] for row in rows]
        self.assertEqual(shares, sorted(shares, reverse=True))
        self.assertEqual(len(rows), min(20, len(set(text))))
        total = plain["bits_per_char"] * plain["chars"]
        for row in rows:
            self.assertAlmostEqual(row["bits"] * row["count"] / total, row["share"], places=5)
        table = self.succeed(*words, "--per-char").decode()
        self.assertTrue(table.startswith(self.succeed(*words).decode() + "\n"))
        first = re.findall(r"(?m)^'.*?' \(U\+\w+\) +([\d,]+) +([\d.]+) +([\d.]+) %$", table)
        self.assertEqual(len(first) + table.count("U+000A") * (not re.search(r"'\\n'", table)),
                         len(rows), table)


if __name__ == "__main__":
    unittest.main()
