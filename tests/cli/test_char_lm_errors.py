"""char_lm answers bad input with one clear line and the right exit code, and damages nothing."""
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import unittest

import runs
from runs import CHAR_LM, read_safetensors, write_safetensors


class CommandLine(runs.CharLmTest):
    def test_help(self):
        for words in ([], ["train"], ["tune"], ["sample"], ["eval"], ["info"], ["report"],
                      ["gradcheck"]):
            text = self.succeed(*words, "--help").decode()
            self.assertLessEqual(max(map(len, text.splitlines())), 80)
        text = self.succeed("train", "--help").decode()
        for part in ("--hidden N", "[128]", "--seq-len", "--batch", "[0.002]", "[0.97]", "[123]"):
            self.assertIn(part, text)

    def test_usage_errors(self):
        run = ["--run", self.folder / "new"]
        for words, says in (
                ([], "a command is missing"),
                (["trian"], "unknown command trian"),
                (["--bogus"], "unknown option --bogus"),
                (["train"], "--run is required"),
                (["train", *run, "--hiden", 3], "unknown option --hiden"),
                (["train", *run, "extra"], "unknown argument extra"),
                (["train", *run, "--hidden"], "--hidden takes a value"),
                (["train", *run, "--model", "transformer"], "rnn, gru or lstm"),
                (["train", *run, "--optimizer", "lbfgs"], "adadelta, lion or sgd"),
                (["train", *run, "--schedule", "linear"], "cosine or plateau"),
                (["train", *run, "--schedule", "cosine", "--lr-decay", 0.9],
                 "--lr-decay is of --schedule exponential; leave it out with cosine"),
                (["train", *run, "--schedule", "plateau", "--train-frac", 1],
                 "--schedule plateau follows the validation loss"),
                (["train", *run, "--ema", 1], "a number from 0 to less than 1"),
                (["train", *run, "--dtype", "f16"], "f32 or f64"),
                (["train", *run, "--matmul", "f16"], "f32 or bf16"),
                (["train", *run, "--matmul", "bf16", "--dtype", "f64"],
                 "matmul bf16 rounds f32, and contradicts dtype f64"),
                (["train", *run, "--text", ""], "--text is empty"),
                (["eval", *run], "--text or --part is required"),
                (["eval", *run, "--part", "all"], "train, valid or test"),
                (["info"], "--run is required"),
                (["gradcheck", "--model", "cnn"], "rnn, gru or lstm"),
                (["gradcheck", "--dtype", "f32"], "unknown option --dtype"),
                (["gradcheck", "--epochs", 3], "unknown option --epochs")):
            with self.subTest(words):
                self.refuse(2, *words, says=[says, "--help"])

    def test_lengths_that_contradict_each_other(self):
        new = ["train", "--run", "new", "--text", self.text]
        self.refuse(2, *new, "--seq-len", 50, "--tbptt-update", 10, "--tbptt-length", 40,
                    says=["--seq-len 50 contradicts tbptt-update 10 and tbptt-length 40", "leave out"])
        self.refuse(1, *new, "--tbptt-update", 1, "--tbptt-length", 100000,
                    says=["--tbptt-length 100000 looks back over 99999 updates", "fit"])
        self.refuse(1, *new, "--tbptt-update", 5000, says=["too short", "a smaller --tbptt-update"])
        run = self.train("run", "--epochs", 1, "--tbptt-length", 25)
        for words in (["--tbptt-length", 30], ["--tbptt-update", 5], ["--seq-len", 25]):
            self.refuse(1, "train", "--resume", "--run", run, *words,
                        says=f"{words[0]} {words[1]} contradicts the run")
        self.succeed("train", "--resume", "--run", run, "--tbptt-update", 10, "--tbptt-length", 25,
                     "--epochs", 2)

    def test_numbers_out_of_range(self):
        for option in ("layers", "hidden", "seq-len", "batch", "epochs", "threads",
                       "tbptt-update", "tbptt-length"):
            for value in ("0", "-3", "1.5", "x", "", "99999999999999999999"):
                self.refuse(2, "train", "--run", "new", f"--{option}", value, says=f"--{option} is")
        for option, values in {"lr": ["0", "-1", "nan", "inf"], "dropout": ["1", "-0.1"],
                               "clip": ["-1", "nan"], "train-frac": ["0", "1.01"],
                               "embed": ["-1", "1.5", "x"], "test-frac": ["1", "-0.1"],
                               "clip-value": ["-1", "nan"], "init-uniform": ["-1", "inf"],
                               "decay-rate": ["1", "-0.1"],
                               "lr-decay": ["0"], "seed": ["-1", "1e3"]}.items():
            for value in values:
                self.refuse(2, "train", "--run", "new", f"--{option}", value, says=f"--{option} is")
        for option, values in {"length": ["0"], "temperature": ["-1", "nan"], "top-k": ["-1"],
                               "top-p": ["0", "2"], "min-p": ["-0.1", "1.1", "nan"],
                               "repetition-penalty": ["0", "-1", "inf"], "seed": ["x"]}.items():
            for value in values:
                self.refuse(2, "sample", "--run", "new", f"--{option}", value,
                            says=f"--{option} is")
        for option, values in {"order": ["0", "4", "x"], "vocabulary": ["0"], "layers": ["0"],
                               "dropout": ["1"]}.items():
            for value in values:
                self.refuse(2, "gradcheck", f"--{option}", value, says=f"--{option} is")


class Texts(runs.CharLmTest):
    def refuse_text(self, content, says, *words):
        path = self.file("bad.txt", content) if content is not None else self.folder / "nothing"
        self.refuse(1, "train", "--text", path, "--run", "new", *self.small, *words, says=says)
        self.assertFalse((self.folder / "new").exists())

    def test_unusable(self):
        self.refuse_text(None, ["nothing", "No such file"])
        self.refuse_text(b"", "empty")
        self.refuse_text(b"some text\0 and more" * 99, ["NUL at byte 9", "--bytes"])
        self.refuse_text(b"hello \xff world" * 99, ["UTF-8 at byte 6", "--bytes"])
        self.refuse_text(b"x" * 500 + "é".encode()[:1], ["UTF-8 at byte 500", "--bytes"])
        self.refuse(1, "train", "--text", ".", "--run", "new", says="is a directory")

    def test_too_short_says_how_long_it_must_be(self):
        for words in ([], ["--train-frac", 0.5], ["--train-frac", 1], ["--train-frac", 0.037]):
            text = self.file("bad.txt", "ab" * 20)
            base = ["train", "--text", text, *self.small, "--epochs", 1, *words]
            message = self.refuse(1, *base, "--run", "new", says=["too short", "40 characters"])
            least = int(re.search(r"takes at least (\d+)", message)[1])
            self.file("bad.txt", ("ab" * least)[:least - 1])
            self.refuse(1, *base, "--run", "new", says=f"at least {least}")
            self.file("bad.txt", ("ab" * least)[:least])
            self.succeed(*base, "--run", f"enough{least}")

    @unittest.skipIf(runs.SANITIZED, "the sanitizer ends the program instead")
    def test_sizes_no_memory_has_room_for(self):
        self.refuse(1, "train", "--text", self.text, "--run", "new", *self.small, "--hidden",
                    1000000, says="not enough memory")

    def test_prime_and_eval_outside_the_vocabulary(self):
        run = self.train("run", "--epochs", 1)
        self.refuse(1, "sample", "--run", run, "--prime", "the Ω\tmat!",
                    says=["--prime", "'Ω' (U+03A9)", "U+0009", "'!' (U+0021)"])
        self.refuse(1, "sample", "--run", run, "--prime", b"the \xff".decode(errors="surrogateescape"),
                    says=["--prime", "UTF-8 at byte 4"])
        odd = self.file("odd.txt", "the cat\nΩ")
        self.refuse(1, "eval", "--run", run, "--text", odd, says=["odd.txt", "'Ω'", "byte 8"])
        one = self.file("one.txt", "t")
        self.refuse(1, "eval", "--run", run, "--text", one, says=["one.txt", "too short"])
        self.refuse(1, "eval", "--run", run, "--text", "nothing", says="No such file")


class RunDirectories(runs.CharLmTest):
    def setUp(self):
        super().setUp()
        self.trained = self.train("run", "--epochs", 1)
        self.model = self.trained / "model.safetensors"

    def refuse_everywhere(self, says, run="run"):
        self.refuse(1, "sample", "--run", run, says=says)
        self.refuse(1, "eval", "--run", run, "--text", self.text, says=says)
        self.refuse(1, "info", "--run", run, says=says)
        self.refuse(1, "gradcheck", "--run", run, says=says)
        self.refuse(1, "train", "--resume", "--run", run, "--epochs", 5, says=says)

    def test_none_there(self):
        self.refuse_everywhere("no such directory", "nothing")
        (self.folder / "empty").mkdir()
        self.refuse_everywhere("no config.json", "empty")

    def test_one_there_already(self):
        self.refuse(1, "train", "--text", self.text, "--run", "run", *self.small,
                    says=["there is a run in it already", "--resume"])
        self.refuse(1, "train", "--text", self.text, "--run", "text.txt", *self.small,
                    says="not a directory")

    def test_resume_with_other_settings(self):
        for option, value in (("hidden", 13), ("model", "gru"), ("seed", 1), ("lr", 0.1),
                              ("batch", 5), ("dtype", "f64"), ("matmul", "bf16"),
                              ("train-frac", 0.8)):
            self.refuse(1, "train", "--resume", "--run", "run", "--epochs", 5, f"--{option}", value,
                        says=f"--{option} {value} contradicts")
        self.refuse(1, "train", "--resume", "--run", "run", "--bytes", says="--bytes")
        self.succeed("train", "--resume", "--run", "run", "--hidden", 12, "--lr", "2e-3",
                     "--threads", 1)

    def test_resume_with_another_text(self):
        other = self.file("other.txt", runs.small_text()[::-1])
        self.refuse(1, "train", "--resume", "--run", "run", "--text", other,
                    says=["other.txt", "not the text"])
        self.text.write_text(runs.small_text() + "a")
        self.refuse(1, "train", "--resume", "--run", "run", says=["text.txt", "not the text"])

    def test_two_at_once(self):
        words = ["train", "--resume", "--run", self.trained, "--epochs", 9999]
        with subprocess.Popen(self.command(*words), stdout=subprocess.PIPE,
                              preexec_fn=runs.default_signals) as first:
            try:
                while first.stdout.readline().startswith((b"text", b"model", b"run")):
                    pass
                done = self.run_it(*words)
                self.assertEqual(done.returncode, 1)
                self.assertIn(b"another process is training", done.stderr)
            finally:
                first.send_signal(signal.SIGINT)
                first.communicate()
        self.assertEqual(first.returncode, 130)

    def test_truncated(self):
        content = self.model.read_bytes()
        for length in (0, 4, 8, 100, len(content) // 2, len(content) - 1):
            with self.subTest(length):
                self.model.write_bytes(content[:length])
                self.refuse_everywhere("model.safetensors")

    def test_a_changed_byte(self):
        content = self.model.read_bytes()
        for place in (0, 5, 20, 200, 1000, len(content) // 2, len(content) - 1):
            with self.subTest(place):
                changed = bytearray(content)
                changed[place] ^= 0x10
                self.model.write_bytes(changed)
                self.refuse_everywhere("model.safetensors")

    def test_foreign(self):
        header, data = read_safetensors(self.model)
        write_safetensors(self.model, {name: entry for name, entry in header.items()
                                       if name != "__metadata__"}, data)
        self.refuse_everywhere("not a checkpoint")
        self.model.write_bytes(struct.pack("<Q", 2) + b"{}")
        self.refuse_everywhere("not a checkpoint")
        self.model.write_bytes(b"PK\x03\x04" + os.urandom(500))
        self.refuse_everywhere("model.safetensors")
        other = self.train("other", "--seed", 9)
        shutil.copy(other / "model.safetensors", self.model)
        self.refuse_everywhere("not the model of the run")
        self.model.unlink()
        self.refuse_everywhere("No such file")

    def test_state_that_does_not_fit(self):
        header, data = read_safetensors(self.model)
        for key, value in (("run.number.step", "-1"), ("run.number.window", "999999"),
                           ("run.number.epoch", "0.5"), ("run.rng", "1 2")):
            with self.subTest(key):
                metadata = {**header["__metadata__"], key: value}
                del metadata["run.checksum"]
                write_safetensors(self.model, {**header, "__metadata__": metadata}, data)
                self.refuse(1, "train", "--resume", "--run", "run", "--epochs", 5,
                            says="model.safetensors")

    def test_a_broken_config(self):
        config = self.trained / "config.json"
        content = config.read_text()
        for old, new, says in (("{", "", "not valid JSON"), (content, "[]", "not a JSON object"),
                               ('"hidden": 12', '"hidden": 0', "hidden is"),
                               ('"hidden": 12', '"hiden": 12', '"hidden"'),
                               ('"model": "lstm"', '"model": 7', "model is"),
                               ('"vocabulary"', '"letters"', '"vocabulary"'),
                               ('"hidden": 12', '"hidden": 13', "not the model of the run"),
                               (content, "\x00", "config.json")):
            with self.subTest(new):
                config.write_text(content.replace(old, new, 1))
                self.refuse_everywhere([says, "config.json"])

    def test_not_a_number(self):
        words = ["train", "--text", self.text, "--run", self.folder / "wild", *self.small,
                 "--optimizer", "sgd", "--clip", 0, "--model", "rnn", "--lr", "1e38"]
        done = self.run_it(*words)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode(), r"\Achar_lm: step \d+: the .* is (nan|inf|\S+e\+\d+), "
                                               r"so training stopped; nothing was saved yet; "
                                               r"[^\n]*\n\Z")
        self.assertFalse((self.folder / "wild").exists())
        done = self.run_it(*words[:-1], 0.1, "--lr-decay", "1e38", "--lr-decay-after", 1)
        self.assertRegex(done.stderr.decode(), r"\Achar_lm: step \d+: the .* is (nan|inf|\S+e\+\d+), "
                                               r"so training stopped; .*model.safetensors keeps the "
                                               r"state of step 67; [^\n]*\n\Z")
        self.assertIn(b"total", self.succeed("info", "--run", "wild"))
        self.succeed("sample", "--run", "wild")


class FullDisks(runs.CharLmTest):
    def test_output_that_takes_nothing(self):
        run = self.train("run", "--epochs", 1)
        for words in (["sample", "--run", run], ["info", "--run", run], ["--help"],
                      ["eval", "--run", run, "--text", self.text]):
            with open("/dev/full", "wb") as full:
                self.refuse(1, *words, stdout=full, says="No space left")

    def limited(self, size):
        """Limits the size of files to `size` bytes, as `ulimit -f` does."""
        return {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))}

    def test_no_room_for_a_checkpoint(self):
        run = self.train("run", "--epochs", 1)
        size = (run / "model.safetensors").stat().st_size
        before = (run / "model.safetensors").read_bytes()
        done = self.run_it("train", "--resume", "--run", run, "--epochs", 3,
                           **self.limited(size // 2))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr.decode(), r"\Achar_lm: [^\n]*best.safetensors: cannot write"
                                               r": File too large\n\Z")
        self.assertEqual((run / "model.safetensors").read_bytes(), before)
        self.assertEqual(len(list(run.iterdir())), len(runs.FILES))
        self.succeed("train", "--resume", "--run", run, "--epochs", 2)
        self.assertEqual(runs.metrics_of(run), sorted(runs.metrics_of(run),
                                                      key=lambda line: line["step"]))

    def test_no_room_for_metrics(self):
        self.small = [*self.small, "--hidden", 1, "--embed", 1, "--layers", 1, "--batch", 1]
        run = self.train("run", "--epochs", 1, "--optimizer", "sgd")
        for _ in range(40):
            size = max(path.stat().st_size for path in run.iterdir()
                       if path.suffix != ".html")
            if (run / "metrics.jsonl").stat().st_size == size:
                break
            epochs = len([line for line in runs.metrics_of(run) if "valid_loss" in line])
            self.succeed("train", "--resume", "--run", run, "--epochs", epochs + 3)
        kept = (run / "metrics.jsonl").read_bytes()
        done = self.run_it("train", "--resume", "--run", run, "--epochs", 999,
                           **self.limited(size + 50))
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, rb"\Achar_lm: [^\n]*metrics.jsonl: cannot write: [^\n]*\n\Z")
        self.assertEqual((run / "metrics.jsonl").read_bytes(), kept)

    def test_a_disk_that_is_too_small(self):
        script = 'mount -t tmpfs -o size=64k none "$0" && cd "$0" && exec "$@"'
        disk = self.folder / "disk"
        disk.mkdir()
        unshare = ["unshare", "--mount", "--map-root-user", "sh", "-c", script, str(disk)]
        try:
            subprocess.run([*unshare, "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            self.skipTest("no small disk can be mounted here")
        words = ["train", "--text", self.text, "--run", "run", *self.small, "--hidden", 64]
        done = subprocess.run([*unshare, *self.command(*words)], capture_output=True, timeout=300)
        self.assertEqual(done.returncode, 1, done)
        self.assertRegex(done.stderr, rb"\Achar_lm: run/model.safetensors: cannot write: No space "
                                      rb"left on device\n\Z")


class ReadOnly(runs.CharLmTest):
    def test_directories(self):
        run = self.train("run", "--epochs", 1)
        program = shutil.copy(CHAR_LM, self.folder / "char_lm")
        self.folder.chmod(0o755)
        as_user = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
        run.chmod(0o555)
        self.folder.chmod(0o555)
        self.addCleanup(self.folder.chmod, 0o755)
        self.addCleanup(run.chmod, 0o755)
        for words in (["--run", self.folder / "new", *self.small, "--text", self.text],
                      ["--run", run, "--resume", "--epochs", 2]):
            before = runs.hash_of(self.folder)
            done = subprocess.run([program, "train", *map(str, words)], capture_output=True,
                                  cwd="/", **as_user)
            self.assertEqual(done.returncode, 1, done)
            self.assertRegex(done.stderr, rb"\Achar_lm: [^\n]*Permission denied\n\Z")
            self.assertEqual(runs.hash_of(self.folder), before)
        done = subprocess.run([program, "sample", "--run", str(run)], capture_output=True, cwd="/",
                              **as_user)
        self.assertEqual((done.returncode, done.stderr), (0, b""))


if __name__ == "__main__":
    unittest.main()
