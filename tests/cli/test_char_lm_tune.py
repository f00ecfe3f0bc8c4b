"""char_lm tune: what a search tries, keeps and tells, however it is interrupted."""
import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
import unittest

import runs
from pages import Page
from runs import metrics_of


class TuneTest(runs.CharLmTest):
    fixed = ["--embed", 6, "--batch", 4, "--seq-len", 10, "--epochs", 4, "--threads", 1]
    over = ["--over", "lr=1e-4..1e-1", "--over", "model=gru,lstm", "--over", "hidden=8..16"]

    def words(self, run, *more, trials=5):
        return ["tune", "--run", run, "--text", self.text, "--trials", trials, *self.fixed, *more]

    def search(self, run, *more, trials=5):
        """A whole search; returns the objects that it printed."""
        said = self.succeed(*self.words(run, "--json", *(more or self.over), trials=trials))
        return [json.loads(line) for line in said.splitlines()]

    def resume(self, run, *more):
        said = self.succeed("tune", "--resume", "--run", run, "--json", *more)
        return [json.loads(line) for line in said.splitlines()]

    def settings_of(self, run):
        """The settings of the trials, from the first to the last."""
        configs = [json.loads((path / "config.json").read_text())
                   for path in sorted((self.folder / run).glob("trial-*"))]
        return [(config["lr"], config["model"], config["hidden"]) for config in configs]

    def result_of(self, run):
        """What does not depend on the time that a search took: its end, and its models."""
        end = self.resume(run)[-1]
        del end["best"]["elapsed_s"]
        models = {path.parent.name: path.read_bytes()
                  for path in sorted((self.folder / run).glob("trial-*/model.safetensors"))}
        return end, models


class Searching(TuneTest):
    def test_the_better_half_goes_on(self):
        *lines, end = self.search("search")
        self.assertEqual([line["epoch"] for line in lines], [1] * 5 + [2] * 3 + [4] * 2)
        kept = [line["trial"] for line in lines[:5]]
        self.assertEqual(kept, [f"trial-00{i}" for i in range(1, 6)])
        for first, last, count in ((0, 5, 3), (5, 8, 2), (8, 10, 1)):
            rung = sorted(lines[first:last], key=lambda line: line["valid_loss"])
            best = {line["trial"] for line in rung[:count]}
            after = {line["trial"] for line in lines[last:]} or {end["best"]["trial"]}
            self.assertEqual(after, best)
        for line in lines:
            of_run = {metrics["epoch"]: metrics["valid_loss"]
                      for metrics in metrics_of(self.folder / "search" / line["trial"])
                      if "valid_loss" in metrics}
            self.assertEqual(of_run[line["epoch"]], line["valid_loss"])
        self.assertEqual((end["end"], end["best"]["epoch"]), ("finished", 4))

    def test_the_best_is_what_train_makes(self):
        schedule = ["--schedule", "cosine", "--warmup", 5]  # of a length
        self.fixed = [word for word in self.fixed if word not in ("--seq-len", 10)]
        end = self.search("search", *schedule, "--hidden", 12, "--over", "dropout=0.1..0.5",
                          "--over", "seq-len=5,10", *self.over[:2], trials=4)[-1]["best"]
        options = [word for key, value in end["settings"].items()
                   for word in (f"--{key.replace('_', '-')}", value)]
        self.succeed("train", "--run", "plain", "--text", self.text, *self.fixed, "--hidden", 12,
                     *schedule, *options)
        best = self.folder / "search" / end["trial"]
        self.assertEqual((best / "model.safetensors").read_bytes(),
                         (self.folder / "plain" / "model.safetensors").read_bytes())
        self.assertEqual((best / "config.json").read_bytes(),
                         (self.folder / "plain" / "config.json").read_bytes())
        for words in (["sample", "--length", 5], ["info"], ["eval", "--text", self.text]):
            self.succeed(*words, "--run", best)
        self.assertEqual(sorted(path.name for path in best.iterdir()), runs.FILES)

    def test_a_trial_is_the_same_in_any_search(self):
        self.search("five")
        self.search("three", *self.over[2:], *self.over[:2], trials=3)
        five = self.settings_of("five")
        self.assertEqual(self.settings_of("three"), five[:3])
        self.assertEqual(len(set(five)), 5)
        for lr, model, hidden in five:
            self.assertTrue(1e-4 <= lr <= 1e-1 and model in ("gru", "lstm") and 8 <= hidden <= 16)
        self.search("other", *self.over, "--seed", 5, trials=3)
        self.assertNotEqual(self.settings_of("other"), five[:3])

    def test_more_trials_later(self):
        self.search("search", trials=3)
        *lines, end = self.resume("search", "--trials", 6)
        self.assertEqual([line["trial"] for line in lines[:3]], ["trial-004", "trial-005", "trial-006"])
        self.search("whole", trials=6)
        whole, _ = self.result_of("whole")
        self.assertEqual(self.settings_of("search"), self.settings_of("whole"))
        self.assertLessEqual(end["best"]["valid_loss"], whole["best"]["valid_loss"])
        self.refuse(1, "tune", "--resume", "--run", "search", "--trials", 5,
                    says="--trials 5 is less than the 6")

    def test_trials_that_diverge_are_out(self):
        wild = ["--model", "rnn", "--hidden", 12, "--clip", 0, "--optimizer", "sgd", "--over",
                "lr=1e-2..1e30"]
        *lines, end = self.search("search", *wild, trials=6)
        failed = [line for line in lines if "failed" in line]
        self.assertGreater(len(failed), 1)
        self.assertRegex(failed[0]["failed"], r"\Astep \d+: the (loss|norm of the gradient) is ")
        self.assertNotIn("failed", end["best"])
        said = self.succeed("tune", "--resume", "--run", "search").decode()
        for line in failed:
            self.assertRegex(said, fr"(?m)^{line['trial']} .* failed +{re.escape(line['failed'])}$")
        page = Page((self.folder / "search" / "report.html").read_text())
        self.assertIn(failed[0]["failed"], page.text)
        self.refuse_search("all", *wild[:-1], "lr=1e29..1e30", says="every trial failed, the first with")

    def refuse_search(self, run, *more, says):
        done = self.run_it(*self.words(run, *more))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode(), fr"\Achar_lm: {says}[^\n]*\n\Z")

    def test_the_default_ranges(self):
        words = ["--hidden", 12, "--trials", 1, "--epochs", 1]
        said = self.succeed(*self.words("all", *words)).decode()
        for part in ("lr 5e-4..2e-2, log-uniform", "dropout 0..0.5, uniform", "clip 0.5..10, log-uniform"):
            self.assertIn(part, said)
        said = self.succeed(*self.words("one", *words, "--lr", 0.01, "--layers", 1)).decode()
        self.assertRegex(said, r"(?m)^over   clip 0.5..10, log-uniform\ntrain  1 to epoch 1$")
        said = self.succeed(*self.words("value", *words, "--clip-value", 5)).decode()
        self.assertNotIn("clip 0.5..10", said)


class Output(TuneTest):
    def test_lines_and_table(self):
        said = self.succeed(*self.words("search", *self.over)).decode()
        self.assertIn("train  5 to epoch 1, 3 to epoch 2, 2 to epoch 4\n", said)
        self.assertEqual(len([line for line in said.splitlines() if "/4  valid " in line]), 10)
        table = said.split("\n\n")[1].splitlines()
        self.assertEqual(table[0].split(),
                         ["trial", "lr", "model", "hidden", "epochs", "valid", "loss", "time"])
        losses = [(-int(row.split()[4]), float(row.split()[5])) for row in table[1:]]
        self.assertEqual(losses, sorted(losses))
        self.assertLessEqual(max(map(len, table)), 80)
        best = table[1].split()[0]
        self.assertRegex(said, fr"best validation loss [\d.]+ nats/char: {best} after epoch 4; .*\n"
                               fr"  \S*char_lm sample --run search/{best}\n\Z")
        page = Page((self.folder / "search" / "report.html").read_text())
        self.assertIn(["trial", "lr", "model", "hidden", "epochs", "valid loss", "time"], page.rows)
        names = [row[0] for row in page.rows if row[0].startswith("trial-") and len(row) == 7]
        self.assertEqual(names, [row.split()[0] for row in table[1:]])
        self.assertIn("5 runs compared", page.text)
        quiet = self.succeed("tune", "--resume", "--run", "search", "--quiet").decode()
        self.assertRegex(quiet, r"\Abest validation loss [^\n]*\n\Z")

    def test_nobody_reads_it(self):
        read_end, write_end = os.pipe()
        os.close(read_end)
        done = self.run_it(*self.words("search", *self.over, trials=2), stdout=write_end)
        os.close(write_end)
        self.assertEqual(done.returncode, 0, done)


class SameResult(TuneTest):
    def interrupted(self, run, which, delays):
        """A search stopped by `which` after each of the delays; returns how often."""
        stopped = 0
        words = self.words(run, *self.over, "--dropout", 0.2)
        for delay in [*delays, None]:
            process = subprocess.Popen(self.command(*words), stdout=subprocess.DEVNULL, cwd=self.folder,
                                       stderr=subprocess.PIPE, preexec_fn=runs.default_signals)
            if delay is not None:
                time.sleep(delay)
                process.send_signal(which)
            error = process.communicate()[1]
            ways_to_end = {-which} if which == signal.SIGKILL else {128 + which, -which}
            self.assertIn(process.returncode, {0} if delay is None else {0} | ways_to_end, error)
            stopped += process.returncode != 0
            if (self.folder / run / "tune.json").exists():
                words = ["tune", "--resume", "--run", run]
        return stopped

    def test_interrupted_anywhere(self):
        self.fixed = [*self.fixed[:-2], "--batch", 1, "--threads", 1]
        begin = time.monotonic()
        self.search("whole", *self.over, "--dropout", 0.2)
        duration = time.monotonic() - begin
        whole = self.result_of("whole")
        source = random.Random(4)
        for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
            with self.subTest(which):
                delays = [source.uniform(0.01, duration / 3) for _ in range(4)]
                self.assertGreater(self.interrupted(which.name, which, delays), 0)
                self.assertEqual(self.result_of(which.name), whole)

    def test_a_signal_is_answered_at_once(self):
        process = subprocess.Popen(
            self.command(*self.words("search", *self.over, "--epochs", 99999)), cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=runs.default_signals)
        self.addCleanup(process.kill)
        while process.poll() is None and not (self.folder / "search/trial-001/metrics.jsonl").exists():
            time.sleep(0.01)
        self.refuse_in_use()
        process.send_signal(signal.SIGTERM)
        said, error = process.communicate(timeout=60)
        self.assertEqual((process.returncode, error), (143, b""))
        self.assertRegex(said.decode(), r"stopped and saved; go on with\n  \S*char_lm tune --resume "
                                        r"--run search\n\Z")

    def refuse_in_use(self):
        done = self.run_it("tune", "--resume", "--run", "search")
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"search: another process is training in it", done.stderr)

    def test_a_time_budget(self):
        whole = (self.search("whole"), self.result_of("whole"))[1]
        words = self.words("search", "--json", *self.over, "--time-budget", 1e-9)
        end = json.loads(self.succeed(*words))
        self.assertEqual(end, {"end": "stopped", "best": None})
        budget, ends = 0.02, 0
        while end["end"] == "stopped":
            end = self.resume("search", "--time-budget", budget)[-1]
            budget, ends = 1.2 * budget, ends + 1
        self.assertGreater(ends, 1)
        self.assertEqual(self.result_of("search"), whole)


class Refusals(TuneTest):
    def test_ranges(self):
        for over, says in (
                ("lrr=1..2", 'no setting of train; did you mean lr?'),
                ("lr", "SETTING=A..B"), ("lr=", "lr is "), ("lr=1..", "lr is "),
                ("lr=0..1", "a number greater than 0"), ("hidden=1.5..3", "whole number from 1"),
                ("lr=1..1", "empty range"), ("hidden=9..8", "below the second"),
                ("dropout=0..1", "less than 1"), ("model=gru..lstm", "rnn, gru or lstm"),
                ("model=gru,cnn", "rnn, gru or lstm"), ("model=gru", "--model gru"),
                ("model=gru,gru", "gru twice"), ("epochs=1..9", "length of the search"),
                ("train-frac=0.5..0.9", "different texts"), ("seed=1,2", "chance"),
                ("bytes=true,false", "different symbols")):
            with self.subTest(over):
                self.refuse(2, *self.words("new", "--over", over), says=["--over ", says, "tune --help"])

    def test_searches(self):
        for words, says in (
                (["--lr", 1, "--over", "lr=1..2"], "lr is fixed by --lr and searched"),
                (["--over", "lr=1..2", "--over", "lr=1..3"], "--over lr is given twice"),
                (["--train-frac", 1], "leaves no text"),
                (["--trials", 0], "a whole number from 1 to 999"),
                (["--trials", 1000], "a whole number from 1 to 999"),
                (["--time-budget", 0], "--time-budget is"),
                (["--lr", 1, "--dropout", 0, "--clip", 1], "nothing is left to search"),
                (["--over", "model=gru,lstm"], "only 2 different ones"),
                (["--over", "schedule=cosine,constant", "--lr-decay", 0.9],
                 "lr-decay is of --schedule exponential"),
                (["--over", "tbptt-update=2..4", "--over", "tbptt-length=5..9"], "seq-len 10 contradicts")):
            with self.subTest(words):
                self.refuse(2, *self.words("new", *words), says=[says, "tune --help"])
        self.refuse(2, "tune", "--run", "new", says="--trials is required")
        self.refuse(1, *self.words("new", "--over", "tbptt-update=900..999"), says="the text is too short")
        self.refuse(1, *self.words("new", "--over", "warmup=900..9000"), says="is not less than the")
        self.refuse(1, *self.words("new", "--text", "none"), says="none")

    def test_directories(self):
        self.search("search", trials=2)
        self.refuse(1, *self.words("search", *self.over), says="there is a search in it already")
        self.refuse(1, *self.words("search/trial-001", *self.over), says="there is a run in it already")
        self.refuse(1, "tune", "--resume", "--run", "none", says="there is no search in it")
        self.refuse(2, "tune", "--resume", "--run", "search", "--lr", 1, says="--lr is of the search")
        self.refuse(2, "tune", "--resume", "--run", "search", *self.over, says="--over is of the search")
        (self.folder / "some" / "trial-001").mkdir(parents=True)
        self.refuse(1, *self.words("some", *self.over), says="trial-001: it exists already")
        other = self.file("other.txt", runs.small_text(4000))
        self.refuse(1, "tune", "--resume", "--run", "search", "--text", other, says="not the text")
        moved = self.text.rename(self.folder / "moved.txt")
        self.refuse(1, "tune", "--resume", "--run", "search", says="No such file")
        self.resume("search", "--text", moved)
        self.resume("search", "--trials", 3)

    def test_files_that_were_changed(self):
        self.search("search", trials=2)
        tune = self.folder / "search" / "tune.json"
        good = json.loads(tune.read_text())
        for change, says in (
                ("{", "not valid JSON"), ("[]", "not a JSON object"), ("[" * 100000, "tune.json"),
                ({"trials": 0}, 'its "trials" is 0'), ({"trials": "3"}, "not a number"),
                ({"over": {"lrr": "1..2"}}, "no setting of train"), ({"over": []}, 'no object "over"'),
                ({"over": {"lr": 3}}, "not a text"), ({"given": "lr"}, 'no list of names "given"'),
                ({"failed": {"trial-001": 1}}, "not a text"), ({"config": {}}, "it has no "),
                ({"config": {**good["config"], "model": "cnn"}}, "rnn, gru or lstm")):
            with self.subTest(says):
                tune.write_text(change if isinstance(change, str) else json.dumps({**good, **change}))
                self.refuse(1, "tune", "--resume", "--run", "search", says=["tune.json: ", says])
        tune.write_text(json.dumps(good))
        one, two = (self.folder / "search" / f"trial-00{i}" for i in (1, 2))
        shutil.copytree(one, self.folder / "kept")
        shutil.rmtree(one)
        shutil.copytree(two, one)
        self.refuse_kept("not the run of this trial")
        shutil.rmtree(one)
        shutil.copytree(self.folder / "kept", one)
        (one / "metrics.jsonl").write_text("")
        self.refuse_kept("has the validation losses of 0 epochs")
        shutil.rmtree(one)  # trained anew
        self.assertEqual(self.resume("search")[0]["trial"], "trial-001")

    def refuse_kept(self, says):
        done = self.run_it("tune", "--resume", "--run", "search")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode(), fr"\Achar_lm: [^\n]*{says}[^\n]*\n\Z")


if __name__ == "__main__":
    unittest.main()
