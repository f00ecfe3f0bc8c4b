"""char_lm works: it trains, resumes after interruptions, samples, evaluates."""
import fcntl
import itertools
import json
import math
import os
import pty
import random
import re
import shutil
import signal
import struct
import subprocess
import termios
import time
import unittest

import runs
from runs import metrics_of, read_safetensors


class Training(runs.CharLmTest):
    def test_run_directory_and_metrics(self):
        run = self.train("run", "--epochs", 3, "--batch", 2)
        self.assertEqual(sorted(path.name for path in run.iterdir()),
                         runs.FILES)
        config = json.loads((run / "config.json").read_text())
        self.assertEqual((config["hidden"], config["seq_len"], config["model"]), (12, 10, "lstm"))
        lines = metrics_of(run)
        steps = (2700 - 1) // 2 // 10  # an epoch
        self.assertEqual([line["step"] for line in lines],
                         [100, steps, 200, 2 * steps, 300, 400, 3 * steps])
        for line in lines:
            is_epoch = line["step"] % 100 != 0
            self.assertEqual(list(line), [key for key in runs.METRIC_KEYS
                                          if is_epoch or key != "valid_loss"])
            clip = line.pop("clip")
            self.assertEqual(clip["steps"], 100 if not is_epoch else steps)
            self.assertTrue(all(math.isfinite(number)
                                for number in (*line.values(), *clip.values())))
        losses = [line["valid_loss"] for line in lines if "valid_loss" in line]
        self.assertLess(losses[-1], losses[0])
        self.assertLess(losses[0], math.log(len(config["vocabulary"])))

    def test_every_model_and_optimizer(self):
        for i, words in enumerate((["--model", "rnn"], ["--model", "gru", "--dtype", "f64"],
                      ["--optimizer", "sgd"], ["--optimizer", "rmsprop", "--layers", 1],
                      ["--optimizer", "adamw", "--clip", 0, "--dropout", 0.3])):
            with self.subTest(words):
                run = self.train(f"run{i}", "--epochs", 1, *words)
                self.assertIn(b"total", self.succeed("info", "--run", run))
                self.succeed("sample", "--run", run, "--length", 5)

    def test_products_in_bf16(self):
        in_f32 = self.train("f32", "--epochs", 1)
        in_bf16 = self.train("bf16", "--epochs", 1, "--matmul", "bf16")
        losses = [metrics_of(run)[-1]["valid_loss"] for run in (in_f32, in_bf16)]
        self.assertNotEqual(*losses)
        self.assertAlmostEqual(*losses, delta=0.02)
        other = shutil.copytree(in_bf16, self.folder / "other")
        config = other / "config.json"
        config.write_text(config.read_text().replace('"bf16"', '"f32"'))
        self.refuse(1, "eval", "--run", other, "--part", "valid", says="not the model of the run")
        found = []
        for precision in ("f32", "bf16"):  # with the same weights
            run = self.train(f"still-{precision}", "--lr", 1e-30, "--epochs", 1, "--matmul", precision)
            found.append(self.run_it("eval", "--run", run, "--part", "valid", "--json"))
        self.assertNotEqual(*(done.stdout for done in found))
        self.assertEqual(found[0].stderr, b"")
        self.assertRegex(found[1].stderr, rb"\A(note   products in bf16 are not faster [^\n]+\n)?\Z")
        whole = self.train("whole", "--epochs", 2, "--matmul", "bf16")
        self.succeed("train", "--resume", "--run", in_bf16, "--epochs", 2)
        self.assertEqual(*((run / "model.safetensors").read_bytes() for run in (whole, in_bf16)))

    def test_learning_rate_decays(self):
        run = self.train("run", "--epochs", 4, "--lr-decay", 0.5, "--lr-decay-after", 2)
        self.assertEqual([line["lr"] for line in metrics_of(run) if "valid_loss" in line],
                         [0.002, 0.002, 0.001, 0.0005])

    def test_schedules(self):
        steps = self.train("steps", "--epochs", 1)
        a = metrics_of(steps)[-1]["step"]  # in an epoch
        for words, rates in (
                (["--schedule", "constant"], [0.002, 0.002, 0.002]),
                (["--schedule", "constant", "--warmup", 2 * a], [0.001, 0.002, 0.002]),
                (["--schedule", "cosine"],
                 [0.001 * (1 + math.cos(math.pi * (n * a - 1) / (3 * a))) for n in (1, 2, 3)])):
            with self.subTest(words):
                run = self.train("run" + "".join(map(str, words)), "--epochs", 3, *words)
                for line, rate in zip([line for line in metrics_of(run) if "valid_loss" in line],
                                      rates):
                    self.assertAlmostEqual(line["lr"], rate)
        self.refuse(1, "train", "--text", self.text, "--run", self.folder / "new", *self.small,
                    "--warmup", 99999, says="--warmup 99999 is not less than the")

    def test_the_rate_is_halved_where_validation_does_not_improve(self):
        run = self.train("run", "--epochs", 8, "--schedule", "plateau", "--lr", 1)
        rate, best, rates = 1, math.inf, []
        for line in metrics_of(run):
            if "valid_loss" in line:
                rates.append(line["lr"])
                self.assertEqual(line["lr"], rate)
                rate /= 1 if line["valid_loss"] < best * (1 - 1e-4) else 2
                best = min(best, line["valid_loss"])
        self.assertLess(rates[-1], 1)

    def test_the_length_of_a_cosine_is_part_of_the_run(self):
        run = self.train("run", "--epochs", 2, "--schedule", "cosine")
        self.refuse(1, "train", "--resume", "--run", run, "--epochs", 3,
                    says="--epochs 3 contradicts the run in")

    def test_an_average_of_the_weights(self):
        plain, average = self.train("plain"), self.train("average", "--ema", 0.9)
        # The weights are those of a training without it, bit for bit; only validation and what
        # comes after use the average.
        header, data = read_safetensors(plain / "model.safetensors")
        averaged, other_data = read_safetensors(average / "model.safetensors")
        for name in header:
            if not name.startswith(("__", "run.")):
                ours, theirs = (slice(*h[name]["data_offsets"]) for h in (header, averaged))
                self.assertEqual(data[ours], other_data[theirs], name)
        self.assertNotEqual(metrics_of(plain)[-1]["valid_loss"],
                            metrics_of(average)[-1]["valid_loss"])
        losses = [json.loads(self.succeed("eval", "--run", run, "--text", self.text, "--json"))
                  for run in (plain, average)]
        self.assertNotEqual(*losses)

    def test_without_validation(self):
        run = self.train("run", "--train-frac", 1)
        self.assertNotIn("valid_loss", metrics_of(run)[-1])

    @unittest.skipIf(runs.SANITIZED, "an epoch of it takes half a minute")
    def test_the_default_text(self):
        run = self.folder / "run"
        report = self.succeed("train", "--run", run, "--epochs", 1, "--hidden", 4, "--embed", 4,
                              "--layers", 1, "--batch", 200, "--seq-len", 40)
        self.assertIn(b"Reel's own sources", report)

    def test_a_text_in_other_alphabets(self):
        self.text = self.file("text.txt", "зима, лето, 春夏秋冬 🌍 naïve\n" * 60)
        run = self.train("run")
        written = self.succeed("sample", "--run", run, "--prime", "зим", "--length", 20).decode()
        self.assertEqual((len(written), written[:3]), (23, "зим"))

    def test_bytes(self):
        self.text = self.file("data", bytes(range(256)) * 8)
        run = self.train("run", "--bytes")
        written = self.succeed("sample", "--run", run, "--length", 40)
        self.assertEqual(len(written), 40)

    def test_a_report_nobody_reads_does_not_stop_it(self):
        read_end, write_end = os.pipe()
        os.close(read_end)
        run = self.folder / "run"
        done = self.run_it("train", "--text", self.text, "--run", run, *self.small,
                           stdout=write_end)
        os.close(write_end)
        self.assertEqual(done.returncode, 0, done)
        self.assertIn("valid_loss", metrics_of(run)[-1])


class SameBits(runs.CharLmTest):
    """Equal settings give equal bytes, however a run was interrupted."""

    long = ["--epochs", 5, "--hidden", 24, "--dropout", 0.2, "--batch", 3, "--seq-len", 5]

    def model_of(self, run):
        return (run / "model.safetensors").read_bytes()

    def without_times(self, run):
        return [{key: value for key, value in line.items()
                 if key not in ("chars_per_s", "elapsed_s")} for line in metrics_of(run)]

    def assert_same(self, run, other):
        self.assertEqual(self.model_of(run), self.model_of(other))
        self.assertEqual(*((one / "best.safetensors").read_bytes() for one in (run, other)))
        self.assertEqual(self.without_times(run), self.without_times(other))
        elapsed = [line["elapsed_s"] for line in metrics_of(run)]
        self.assertEqual(elapsed, sorted(elapsed))

    def test_threads(self):
        words = ["--hidden", 64, "--batch", 16]
        for model in ("lstm", "gru", "rnn"):
            one, two = (self.train(f"{model}{n}", *words, "--model", model, "--threads", n)
                        for n in (1, 2))
            self.assert_same(one, two)

    def test_seed(self):
        one, two = self.train("one", "--seed", 7), self.train("two", "--seed", 8)
        self.assertNotEqual(self.model_of(one), self.model_of(two))

    def test_more_epochs_later(self):
        whole, parts = self.train("whole", "--epochs", 3), self.train("parts", "--epochs", 1)
        self.succeed("train", "--resume", "--run", parts, "--epochs", 3)
        self.assert_same(whole, parts)
        before = runs.hash_of(parts)
        self.assertIn(b"nothing left to do", self.succeed("train", "--resume", "--run", parts))
        self.assertEqual(runs.hash_of(parts), before)

    def test_updates_and_windows_of_one_length(self):
        windows = self.train("windows")
        self.assert_same(windows, self.train("told", "--tbptt-update", 10, "--tbptt-length", 10))
        config = json.loads((windows / "config.json").read_text())
        self.assertEqual((config["tbptt_update"], config["tbptt_length"]), (10, 10))
        del config["tbptt_update"], config["tbptt_length"]  # as before there were these settings
        (windows / "config.json").write_text(json.dumps(config))
        self.succeed("train", "--resume", "--run", windows, "--epochs", 3)
        self.assert_same(windows, self.train("more", "--epochs", 3))

    def test_updates_that_look_back_further(self):
        words = ["--tbptt-update", 4, "--tbptt-length", 10, "--seq-len", 4]
        runs_of = [self.train(f"run{n}", *words, "--hidden", 64, "--threads", n) for n in (1, 2)]
        self.assert_same(*runs_of)
        steps = (2700 - 1) // 4 // 4  # an update every 4 time steps of 4 streams
        self.assertEqual([line["step"] for line in metrics_of(runs_of[0]) if "valid_loss" in line],
                         [steps, 2 * steps])
        info = self.succeed("info", "--run", runs_of[0]).decode()
        self.assertRegex(info, r"(?m)^seq-len +4\ntbptt-update +4\ntbptt-length +10$")
        windows = self.train("windows", "--seq-len", 4, "--hidden", 64)
        self.assertNotEqual(metrics_of(windows)[-1]["train_loss"],
                            metrics_of(runs_of[0])[-1]["train_loss"])

    def test_looking_back_is_resumed_anywhere(self):
        for update, length in ((5, 17), (4, 12), (6, 2))[:1 if runs.SANITIZED else 3]:
            words = ["--tbptt-update", update, "--tbptt-length", length, "--seq-len", update]
            begin = time.monotonic()
            whole = self.train(f"whole{update}", *self.long, *words)
            duration = time.monotonic() - begin
            source = random.Random(update)
            for which in (signal.SIGINT, signal.SIGKILL):
                with self.subTest((update, length, which)):
                    run = self.folder / f"{which.name}{update}"
                    delays = [source.uniform(0.01, duration / 3) for _ in range(6)]
                    self.assertGreater(self.interrupted(run, which, delays, words), 0)
                    self.assert_same(whole, run)

    def interrupted(self, run, which, delays, more=()):
        """Trains to the end, stopped by `which` after each of the delays; returns how often."""
        stopped = 0
        words = ["train", "--text", self.text, "--run", run, *self.small, *self.long, *more]
        for delay in [*delays, None]:
            process = subprocess.Popen(self.command(*words), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE, preexec_fn=runs.default_signals)
            if delay is not None:
                time.sleep(delay)
                process.send_signal(which)
            error = process.communicate()[1]
            begun = (run / "config.json").exists()
            ways_to_end = {-which} if which == signal.SIGKILL else {128 + which, -which}
            self.assertIn(process.returncode, {0} if delay is None else {0} | ways_to_end, error)
            if process.returncode != 0:
                stopped += 1
                if begun and (run / "model.safetensors").exists():
                    self.succeed("info", "--run", run)
            if begun:
                words = ["train", "--resume", "--run", run]
        return stopped

    def test_interrupted_anywhere(self):
        begin = time.monotonic()
        whole = self.train("whole", *self.long)
        duration = time.monotonic() - begin
        source = random.Random(2)
        total = 0
        for which, i in itertools.product((signal.SIGINT, signal.SIGTERM, signal.SIGKILL),
                                          range(20 if runs.LONG else 1)):
            with self.subTest(which, round=i):
                run = self.folder / f"{which.name}{i}"
                delays = [source.uniform(0.01, duration / 3) for _ in range(6)]
                total += self.interrupted(run, which, delays)
                self.assert_same(whole, run)
                self.assertEqual(sorted(path.name for path in run.iterdir()), runs.FILES)  # killed while saving or not
        print(f"stopped and resumed {total} times")
        self.assertGreater(total, 0)  # delays may be longer than a training, but not all of them

    def test_killed_with_any_optimizer_schedule_and_average(self):
        kinds = [(name, schedule) for name, schedule in zip(
            ("adadelta", "nadam", "adam", "adamw", "radam", "adamax", "rmsprop", "adagrad", "lion",
             "sgd"), itertools.cycle(("plateau", "cosine", "constant", "exponential")))]
        source = random.Random(3)
        total = 0
        for optimizer, schedule in kinds if runs.LONG else kinds[:2]:
            words = ["--optimizer", optimizer, "--schedule", schedule, "--warmup", 7, "--ema", 0.9]
            begin = time.monotonic()
            whole = self.train(f"{optimizer}-whole", *self.long, *words)
            duration = time.monotonic() - begin
            for i in range(4 if runs.LONG else 1):
                with self.subTest(optimizer, round=i):
                    run = self.folder / f"{optimizer}{i}"
                    delays = [source.uniform(0.01, duration / 3) for _ in range(6)]
                    total += self.interrupted(run, signal.SIGKILL, delays, words)
                    self.assert_same(whole, run)
        print(f"killed and resumed {total} times")

    def test_interrupted_saves_and_says_how_to_go_on(self):
        run = self.folder / "a run"
        process = subprocess.Popen(
            self.command("train", "--text", self.text, "--run", run, *self.small, "--epochs", 9999),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=runs.default_signals)
        while process.poll() is None and not (run / "metrics.jsonl").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        report, error = process.communicate()
        self.assertEqual((process.returncode, error), (130, b""))
        self.assertIn(f"train --resume --run '{run}'".encode(), report)
        header, _ = read_safetensors(run / "model.safetensors")
        saved = int(header["__metadata__"]["run.number.step"])
        self.assertGreaterEqual(saved, metrics_of(run)[-1]["step"])
        self.assertIn(f"after step {saved}".encode(), report)

    def test_lines_after_the_checkpoint_are_cut_off(self):
        run = self.train("run", "--epochs", 1)
        metrics = run / "metrics.jsonl"
        kept = metrics.read_text()
        metrics.write_text(kept + '{"step":999}\n{"half')
        self.succeed("train", "--resume", "--run", run)
        self.assertEqual(metrics.read_text(), kept)


class Terminal(runs.CharLmTest):
    def on_terminal(self, columns, *words, **environment):
        """The program's output on a terminal of that width."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        process = subprocess.Popen(self.command(*words), stdin=theirs, stdout=theirs, stderr=theirs,
                                   cwd=self.folder,
                                   env={**os.environ, "TERM": "xterm", **environment})
        os.close(theirs)
        output = b""
        try:
            while chunk := os.read(ours, 65536):
                output += chunk
        except OSError:  # the other end is closed
            pass
        os.close(ours)
        self.assertEqual(process.wait(), 0, output)
        return output.decode()

    def test_one_line_is_redrawn(self):
        for columns in (80, 30):
            with self.subTest(columns):
                output = self.on_terminal(columns, "train", "--text", "text.txt", "--run",
                                          f"run{columns}", *self.small, "--seq-len", 5,
                                          "--epochs", 9, "--hidden", 16 if runs.SANITIZED else 128)
                self.assertNotRegex(output, r"\x1b\[[^K]")  # no colours
                drawn = re.findall(r"\r?(epoch \d/9  step [^\r\n]*)\r\x1b\[K", output)
                self.assertGreater(len(drawn), 1)
                self.assertTrue(all(len(line) < columns for line in drawn), drawn)
                self.assertEqual("chars/s" in drawn[-1] and " left" in drawn[-1], columns == 80)
                self.assertEqual(len(re.findall(r"epoch \d/9  train .*\r\n", output)), 9)

    def test_plain_lines_elsewhere(self):
        words = ["train", "--text", self.text, *self.small, "--seq-len", 5]
        piped = self.succeed(*words, "--run", self.folder / "piped").decode()
        self.assertNotRegex(piped, r"[\r\x1b]")
        self.assertRegex(piped, r"\nepoch 1/2  step 100/268  loss \d\.\d+  [\d,]+ chars/s  "
                         r".* left  rate 0\.002  memory \d+ MB, peak \d+\n")
        dumb = self.on_terminal(80, *words, "--run", "dumb", TERM="dumb")
        self.assertNotIn("\x1b", dumb)

    def test_a_sample_ends_its_line(self):
        run = self.train("run", "--epochs", 1)
        words = ["sample", "--run", run, "--length", 30]
        self.assertEqual(self.on_terminal(80, *words).replace("\r\n", "\n").encode(),
                         self.succeed(*words) + b"\n")


class Using(runs.CharLmTest):
    def setUp(self):
        super().setUp()
        self.trained = self.train("run")

    def sample(self, *words):
        return self.succeed("sample", "--run", self.trained, *words)

    def test_sample_follows_its_seed(self):
        self.assertEqual(self.sample("--seed", 5), self.sample("--seed", 5))
        self.assertNotEqual(self.sample("--seed", 5), self.sample("--seed", 6))
        self.assertEqual(self.sample("--temperature", 0, "--seed", 5),
                         self.sample("--top-k", 1, "--seed", 6))
        self.assertEqual(self.sample("--temperature", 0), self.sample("--top-p", 1e-9))
        self.assertEqual(self.sample("--temperature", 0), self.sample("--min-p", 1))
        self.assertEqual(self.sample(), self.sample("--min-p", 0, "--repetition-penalty", 1))

    def test_what_was_there_already_can_be_penalised(self):
        words = ["--prime", "the", "--length", 5, "--temperature", 0]
        self.assertLess(len(set(self.sample(*words).decode())), 8)
        penalised = self.sample(*words, "--repetition-penalty", 1e6).decode()
        self.assertEqual(len(set(penalised)), 8)  # nothing twice

    def test_sample_length_counts_after_the_prime(self):
        written = self.sample("--prime", "the naïve", "--length", 17).decode()
        self.assertTrue(written.startswith("the naïve"))
        self.assertEqual(len(written), len("the naïve") + 17)

    def test_sample_streams_and_ends_with_its_reader(self):
        process = subprocess.Popen(
            self.command("sample", "--run", self.trained, "--length", 100000000),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertTrue(process.stdout.read(1))
        process.stdout.close()
        self.assertEqual(process.stderr.read(), b"")
        self.assertEqual(process.wait(), -signal.SIGPIPE)
        process.stderr.close()

    def test_sample_starts_at_once(self):
        best = math.inf
        for _ in range(5):
            begin = time.monotonic()
            with subprocess.Popen(self.command("sample", "--run", self.trained),
                                  stdout=subprocess.PIPE) as process:
                process.stdout.read(1)
                best = min(best, time.monotonic() - begin)
                process.stdout.read()
        self.assertLess(best, 1 if runs.SANITIZED else 0.05)

    def test_eval_of_a_model_that_knows_nothing(self):
        model = self.trained / "model.safetensors"
        header, data = read_safetensors(model)
        data = bytearray(data)
        for name in ("head.w", "head.b"):
            begin, end = header[name]["data_offsets"]
            data[begin:end] = bytes(end - begin)
        del header["__metadata__"]["run.checksum"]
        runs.write_safetensors(model, header, bytes(data))
        symbols = len(set(runs.small_text()))
        result = json.loads(self.succeed("eval", "--run", self.trained, "--text", self.text,
                                         "--json"))
        self.assertEqual(result["chars"], 2999)
        self.assertAlmostEqual(result["nats_per_char"], math.log(symbols), places=5)
        self.assertAlmostEqual(result["bits_per_char"], math.log2(symbols), places=5)
        self.assertAlmostEqual(result["perplexity"], symbols, places=3)

    def test_eval_is_better_than_knowing_nothing(self):
        lines = self.succeed("eval", "--run", self.trained, "--text", self.text).decode()
        self.assertRegex(lines, r"\A[\d.]+ nats/char\n[\d.]+ bits/char\n[\d.]+ perplexity\n\Z")
        self.assertLess(float(lines.split()[0]), math.log(len(set(runs.small_text()))))

    def test_info(self):
        text = self.succeed("info", "--run", self.trained).decode()
        symbols = len(set(runs.small_text()))
        self.assertRegex(text, r"(?m)^hidden +12$")
        self.assertRegex(text, r"(?m)^trained +step 134, 2 of 2 epochs$")
        self.assertRegex(text, rf"(?m)^head\.w +\[{symbols}, 12\] +{12 * symbols} +\d+\.\d+$")
        counts = [int(count.replace(",", ""))
                  for count in re.findall(r"(?m)^\S+ +\[.*\] +([\d,]+) +\d+\.\d+$", text)]
        total = int(re.search(r"(?m)^total +([\d,]+)$", text)[1].replace(",", ""))
        self.assertEqual(sum(counts), total)

    def test_a_run_can_be_moved(self):
        moved = self.folder / "elsewhere"
        shutil.move(self.trained, moved)
        text = self.text.rename(self.folder / "renamed.txt")
        self.refuse(1, "train", "--resume", "--run", moved, "--epochs", 3, says="text.txt")
        self.succeed("train", "--resume", "--run", moved, "--epochs", 3, "--text", text)
        self.succeed("train", "--resume", "--run", moved, "--epochs", 4)  # the new path is stored
        self.succeed("sample", "--run", moved)


if __name__ == "__main__":
    unittest.main()
