"""Which states of a run are saved, and what becomes of a loss that is not finite."""
import signal
import struct
import subprocess
import time
import unittest

import runs
from runs import metrics_of, read_safetensors, write_safetensors


def numbers_of(file):
    texts = read_safetensors(file)[0]["__metadata__"]
    return {key[len("run.number."):]: float(value) for key, value in texts.items()
            if key.startswith("run.number.")}


def change(file, metadata=None, drop=(), tensors=None):
    """Rewrites a state, with other texts, and other bytes at an offset into a tensor."""
    header, data = read_safetensors(file)
    data = bytearray(data)
    for name, (offset, content) in (tensors or {}).items():
        begin = header[name]["data_offsets"][0] + offset
        data[begin:begin + len(content)] = content
    texts = {**header["__metadata__"], **(metadata or {})}
    for key in ("run.checksum", *drop):
        texts.pop(key, None)
    write_safetensors(file, {**header, "__metadata__": texts}, bytes(data))


class Saves(runs.CharLmTest):
    def test_last_best_and_kept(self):
        run = self.train("run", "--save-every", 20, "--keep", 3)  # 67 steps an epoch
        names = sorted(path.name for path in (run / "steps").iterdir())
        self.assertEqual(names, [f"step-{step:06}.safetensors" for step in (100, 120, 134)])
        last = (run / "model.safetensors").read_bytes()
        self.assertEqual((run / "steps" / names[-1]).read_bytes(), last)
        self.assertEqual((run / "best.safetensors").read_bytes(), last)
        shown = {name: self.succeed("info", "--run", run, "--checkpoint", name)
                 for name in ("last", "best", "100")}
        self.assertEqual(shown["last"], shown["best"])
        self.assertIn(b"step 100, 1 of 2 epochs", shown["100"])
        written = [self.succeed("sample", "--run", run, "--checkpoint", name, "--length", 200)
                   for name in ("last", "best", "100")]
        self.assertEqual(written[0], written[1])
        self.assertNotEqual(written[0], written[2])
        losses = [self.succeed("eval", "--run", run, "--text", self.text, "--checkpoint", name)
                  for name in ("last", "100")]
        self.assertNotEqual(*losses)
        self.refuse(1, "sample", "--run", run, "--checkpoint", 101,
                    says="step 101 is not kept; there are 100, 120, 134")
        for odd in ("first", "", "-1", "1.5", 30 * "9"):
            self.refuse(2, "info", "--run", run, "--checkpoint", odd, says="last, best or")

    def test_the_best_is_not_the_last(self):
        # A rate that explodes in the second epoch makes the first one the best.
        run = self.train("run", "--epochs", 3, "--keep", 9, "--optimizer", "sgd", "--lr", 0.3,
                         "--lr-decay", 100, "--lr-decay-after", 1)
        losses = [line["valid_loss"] for line in metrics_of(run) if "valid_loss" in line]
        self.assertEqual(losses.index(min(losses)), 0, losses)
        self.assertEqual(numbers_of(run / "best.safetensors")["step"], 67)
        self.assertEqual((run / "best.safetensors").read_bytes(),
                         (run / "steps" / "step-000067.safetensors").read_bytes())
        for name in ("without-validation", "never"):
            self.train(name, "--train-frac", 1, "--epochs", 1)
            self.refuse(1, "sample", "--run", self.folder / name, "--checkpoint", "best",
                        says="there is no best state")
        self.refuse(1, "sample", "--run", self.folder / "never", "--checkpoint", 1,
                    says=["step 1 is not kept", "--keep"])

    def test_keeping_does_not_change_the_training(self):
        plain = self.train("plain")
        kept = self.train("kept", "--save-every", 7, "--keep", 2)
        self.assertEqual(*((run / "model.safetensors").read_bytes() for run in (plain, kept)))
        resumed = self.train("resumed", "--epochs", 1)
        self.succeed("train", "--resume", "--run", resumed, "--epochs", 2, "--save-every", 7,
                     "--keep", 2, "--on-nan", "skip")
        self.assertEqual(*((run / "model.safetensors").read_bytes() for run in (plain, resumed)))
        self.assertIn('"keep": 2', (resumed / "config.json").read_text())

    def test_another_version(self):
        run = self.train("run", "--epochs", 1)
        change(run / "model.safetensors", {"reel": "0.0.9"})
        words = ["train", "--resume", "--run", run, "--epochs", 2]
        self.refuse(1, *words, says=["model.safetensors", "0.0.9", "--force"])
        self.succeed("sample", "--run", run)  # reads every version
        self.succeed(*words, "--force")
        whole = self.train("whole")
        self.assertEqual(*((run / "model.safetensors").read_bytes() for run in (whole, run)))

    def test_a_run_of_before_there_was_a_version(self):
        run, whole = self.train("run", "--epochs", 1), self.train("whole")
        first = {"step", "epoch", "window", "epoch_loss", "recent_loss", "grad_norm", "best_loss",
                 "best_epoch", "metrics_lines"}
        change(run / "model.safetensors", drop=["reel", *(
            f"run.number.{name}" for name in numbers_of(run / "model.safetensors")
            if name not in first)])
        words = ["train", "--resume", "--run", run, "--epochs", 2]
        self.refuse(1, *words, says=["model.safetensors", "it is of Reel 0.1.0", "--force"])
        self.succeed(*words, "--force")
        self.assertEqual(*((run / "model.safetensors").read_bytes() for run in (whole, run)))


class NotFinite(runs.CharLmTest):
    patience = 0.3 if runs.SANITIZED else 0.003  # seconds before a training is stopped once more

    # The rate explodes in the second epoch.
    wild = ["--optimizer", "sgd", "--clip", 0, "--lr", 0.1, "--lr-decay", 1e9,
            "--lr-decay-after", 1]

    def stopped_at_times(self, words):
        """Trains to the end, interrupted and killed several times after some of its steps."""
        run, stopped = words[words.index("--run") + 1], 0
        for which in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM, None):
            process = subprocess.Popen(self.command(*words), stdout=subprocess.DEVNULL,
                                       stderr=subprocess.PIPE, preexec_fn=runs.default_signals)
            if which is not None:
                while process.poll() is None and not (run / "samples.jsonl").exists():
                    time.sleep(0.001)
                time.sleep(self.patience)
                process.send_signal(which)
            error = process.communicate()[1]
            stopped += process.returncode != 0
            if "--resume" not in words:
                words = ["train", "--resume", "--run", run]
        self.assertEqual((process.returncode, error), (0, b""))
        self.assertGreater(stopped, 0)

    def test_stop_says_what_may_help(self):
        done = self.run_it("train", "--text", self.text, "--run", "run", *self.small, *self.wild)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode(), r"\Achar_lm: step \d+: the loss is [^\n]* keeps the "
                         r"state of step 67; go on with --resume --on-nan rollback or skip, or ")
        report = self.succeed("train", "--resume", "--run", "run", "--on-nan", "rollback")
        self.assertIn(b"; back to step 67, with 0.5 of the learning rate", report)

    def test_rollback(self):
        run = self.folder / "run"
        report = self.succeed("train", "--text", self.text, "--run", run, *self.small, *self.wild,
                              "--on-nan", "rollback", "--save-every", 10)
        self.assertRegex(report, rb"step \d+: the loss is \S+; back to step \d+, with 0.5 of")
        numbers, lines = numbers_of(run / "model.safetensors"), metrics_of(run)
        self.assertGreater(numbers["rollbacks"], 0)
        self.assertEqual(numbers["rate_factor"], 0.5 ** numbers["rollbacks"])
        self.assertEqual([line["step"] for line in lines], [67, 100, 134])
        self.assertAlmostEqual(lines[-1]["lr"] / (1e8 * numbers["rate_factor"]), 1)
        again = self.folder / "again"
        self.stopped_at_times(["train", "--text", self.text, "--run", again, *self.small, *self.wild,
                               "--on-nan", "rollback", "--save-every", 10, "--sample-every", 10])
        self.assertEqual(*((one / "model.safetensors").read_bytes() for one in (run, again)))

    def test_rollback_without_hope(self):
        done = self.run_it("train", "--text", self.text, "--run", "run", *self.small, *self.wild,
                           "--lr-decay", 1e20, "--on-nan", "rollback")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout.count(b"; back to step 67"), 10)
        self.assertRegex(done.stderr.decode(), r"\Achar_lm: step \d+: the loss is \S+ after 10 "
                                               r"rollbacks, so training stopped; [^\n]*step 67; try")

    def poisoned(self, name):
        """A run whose model has a loss of 1e9 where the only Z of the text is to be predicted."""
        self.text.write_text(runs.small_text(1300) + "Z" + runs.small_text(1700))
        run = self.train(name, "--epochs", 1, "--on-nan", "skip")
        symbols = sorted(set(self.text.read_text()))
        for file in ("model.safetensors",):
            change(run / file, tensors={"head.b": (4 * symbols.index("Z"), struct.pack("<f", -1e9))})
        return run

    def test_skip(self):
        run = self.poisoned("run")
        words = ["train", "--resume", "--run", run]
        report = self.succeed(*words, "--epochs", 3)
        self.assertEqual(report.count(b"the loss is "), 2)
        self.assertIn(b"skipped, 2 so far", report)
        numbers = numbers_of(run / "model.safetensors")
        self.assertEqual((numbers["skipped"], numbers["skipped_in_row"]), (2, 0))
        for line in metrics_of(run):
            self.assertLess(line["train_loss"], 4)
        self.assertEqual(metrics_of(run)[-1]["clip"]["steps"], 66)
        self.assertEqual([line.get("skipped", 0) for line in metrics_of(run)], [0, 0, 1, 2, 2])
        self.assertRegex(self.succeed("info", "--run", run), rb"skipped +2 steps\n")
        again = self.poisoned("again")
        self.stopped_at_times(["train", "--resume", "--run", again, "--epochs", 30,
                               "--sample-every", 10])
        self.succeed(*words, "--epochs", 30)
        self.assertEqual(numbers_of(run / "model.safetensors")["skipped"], 29)
        self.assertEqual(*((one / "model.safetensors").read_bytes() for one in (run, again)))

    def test_nothing_but_skipped(self):
        done = self.run_it("train", "--text", self.text, "--run", "run", *self.small, *self.wild,
                           "--lr-decay", 1e20, "--on-nan", "skip")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(done.stdout.count(b"; skipped, "), 9)
        self.assertRegex(done.stderr.decode(), r"after 9 steps skipped in a row, so training stopped")


if __name__ == "__main__":
    unittest.main()
