"""char_lm on texts of bytes, words and byte pairs, in normal forms, and larger than memory."""
import json
import os
import random
import re
import signal
import subprocess
import unicodedata
import unittest

import runs
from runs import metrics_of, read_safetensors

LARGE = 64 << 20  # from this size on a text stays in its file


def words_of(text):
    """The words of a text and the ends of its lines."""
    return text.replace("\n", " <eos> ").split()


class Levels(runs.CharLmTest):
    def trained(self, level, *words):
        return self.train(level, "--level", level, "--sample-every", 20, "--sample-length", 30, *words)

    def evaluated(self, run, *words):
        return json.loads(self.succeed("eval", "--run", run, "--text", self.text, "--json", *words))

    def test_units(self):
        for level, unit, name in (("char", "char", "character"), ("byte", "byte", "byte"),
                                  ("word", "word", "word"), ("bpe", "token", "token")):
            with self.subTest(level):
                log = self.succeed("train", "--run", level, "--text", self.text, "--level", level,
                                   *self.small, "--epochs", 1).decode()
                self.assertRegex(log, rf"text   .*: [\d,]+ {name}s, \d+ different")
                self.assertRegex(log, rf"  [\d,]+ {unit}s/s  ")
                self.assertRegex(log, rf"best validation loss [\d.]+ nats/{unit}, after")
                lines = self.succeed("eval", "--run", level, "--text", self.text).decode()
                bytes_too = r"[\d.]+ bits/byte\n" if level == "bpe" else ""
                self.assertRegex(lines, rf"\A[\d.]+ nats/{unit}\n[\d.]+ bits/{unit}\n"
                                        rf"[\d.]+ perplexity\n{bytes_too}\Z")
                self.assertIn(f"nats/{unit}, after epoch 1", self.succeed("info", "--run", level).decode())
                page = (self.folder / level / "report.html").read_text()
                for part in (f"nats per {name}", f"{name}s per second", f"{name}-level"):
                    self.assertIn(part, page)
        self.succeed("report", "char", "byte", "--output", "both.html")
        page = (self.folder / "both.html").read_text()
        self.assertIn("nats per symbol", page)
        self.assertIn("bits per byte", page)

    def test_words(self):
        run = self.trained("word")
        vocabulary = set(words_of(runs.small_text()))
        first, *lines = (run / "vocabulary.txt").read_text().splitlines()
        self.assertEqual(first, f"words {len(lines)}")
        self.assertEqual({line.split("\t")[0] for line in lines}, vocabulary | {"<unk>"})
        written = self.succeed("sample", "--run", run, "--length", 50).decode()
        self.assertEqual(len(words_of(written)), 50)
        self.assertLessEqual(set(words_of(written)), vocabulary | {"<unk>"})
        self.assertNotRegex(written, r"  | \n|\n ")
        samples = [json.loads(line)["text"] for line in (run / "samples.jsonl").read_text().splitlines()]
        self.assertGreater(len(samples), 0)
        for sample in samples:
            self.assertEqual(len(words_of(sample)), 30)
        result = self.evaluated(run, "--per-char")
        self.assertEqual(result["chars"], len(words_of(runs.small_text() + "\n")) - 1)
        counts = {row["character"]: row["count"] for row in result["per_char"]}
        self.assertEqual(counts["cat"], words_of(runs.small_text())[1:].count("cat"))
        table = self.succeed("eval", "--run", run, "--text", self.text, "--per-char").decode()
        self.assertRegex(table, r'(?m)^word +count .*\n(.*\n)*"cat" ')

    def test_words_to_begin_with(self):
        run = self.trained("word", "--lr", 0.05)
        for prime, then in (("the cat", " "), ("the cat\n", ""), ("the cat ", "")):
            written = self.succeed("sample", "--run", run, "--length", 3, "--prime", prime).decode()
            self.assertTrue(written.startswith(prime + then), written)
            self.assertEqual(len(words_of(written)), len(words_of(prime)) + 3, written)
        # A line that goes on is not one that ends.
        then = [words_of(self.succeed("sample", "--run", run, "--length", 40, "--temperature", 1, "--prime",
                                      prime).decode())[-40:] for prime in ("the cat", "the cat\n")]
        self.assertNotEqual(*then)
        self.refuse(1, "sample", "--run", run, "--prime", "the bird and the fish",
                    says='--prime: the model has never seen "bird", "fish"')
        talk = self.succeed("sample", "--run", run, "--length", 4, "--interactive",
                            input=b"the cat\nthe bird\n", stdin=None).decode().splitlines()
        self.assertTrue(talk[0].startswith("the cat"))
        self.assertIn('the model has never seen "bird"', talk)

    def test_rare_words_are_unknown(self):
        self.text = self.file("text.txt", runs.small_text() + " bird")
        run = self.trained("word", "--min-count", 2)
        self.assertNotIn("bird", (run / "vocabulary.txt").read_text())
        self.succeed("sample", "--run", run, "--prime", "the fish", "--length", 3)
        few = self.train("few", "--level", "word", "--vocabulary-size", 5)
        self.assertEqual(json.loads(self.succeed("info", "--run", few, "--json"))["vocabulary"], 5)

    def test_byte_pairs(self):
        self.text = self.file("text.txt", b"\xff\0 " + runs.small_text().encode())
        run = self.trained("bpe", "--vocabulary-size", 300)
        self.assertLessEqual(json.loads(self.succeed("info", "--run", run, "--json"))["vocabulary"], 300)
        result = self.evaluated(run)
        size = result["bits_per_char"] * result["chars"] / result["bits_per_byte"]
        self.assertAlmostEqual(size, self.text.stat().st_size - 1, places=3)  # all but the first, 0xFF
        written = self.succeed("sample", "--run", run, "--prime", "the c", "--length", 20)
        self.assertTrue(written.startswith(b"the c"))
        (run / "samples.jsonl").read_text(encoding="utf-8")

    def test_resumed_to_the_same_bits(self):
        for level in ("word", "bpe"):
            with self.subTest(level):
                whole = self.train(f"whole-{level}", "--level", level, "--vocabulary-size", 300,
                                   "--sample-every", 10)
                run = self.train(f"run-{level}", "--level", level, "--vocabulary-size", 300,
                                 "--sample-every", 10, "--epochs", 1)
                self.succeed("train", "--resume", "--run", run, "--epochs", 2, "--sample-every", 10,
                             "--level", level)
                for name in ("model.safetensors", "samples.jsonl", "vocabulary.txt"):
                    self.assertEqual((run / name).read_bytes(), (whole / name).read_bytes(), name)

    def test_a_damaged_vocabulary(self):
        for level in ("word", "bpe"):
            run = self.trained(level, "--epochs", 1)
            file = run / "vocabulary.txt"
            good = file.read_text()
            lines = good.splitlines(keepends=True)
            swapped = {"word": good.replace("cat", "cot", 1), "bpe": good.replace(lines[-1], "1 2\n")}
            commands = (["train", "--resume", "--run", run, "--epochs", 2], ["info", "--run", run],
                        ["sample", "--run", run], ["eval", "--run", run, "--text", self.text],
                        ["report", run])
            for content, says in ((swapped[level], "not the vocabulary that the run was begun with"),
                                  (good.replace(lines[0], ""), "line 1"), ("", "empty"),
                                  ("".join(lines[:-1]), "cut off"), (None, "No such file")):
                file.unlink()
                if content is not None:
                    file.write_text(content)
                for words in commands:
                    self.refuse(1, *words, says=["vocabulary.txt: ", says])
                file.write_text(good)
            self.succeed("train", "--resume", "--run", run, "--epochs", 2)

    def test_runs_from_before_levels(self):
        for name, words in (("chars", []), ("bytes", ["--bytes"])):
            whole = self.train(f"whole-{name}", *words)
            run = self.train(name, *words, "--epochs", 1)
            config = json.loads((run / "config.json").read_text())
            for key in ("level", "min_count", "vocabulary_size", "normalize"):
                del config[key]
                self.assertNotIn(key, read_safetensors(run / "model.safetensors")[0]["__metadata__"]["config"])
            (run / "config.json").write_text(json.dumps(config))
            self.succeed("info", "--run", run)
            self.succeed("train", "--resume", "--run", run, "--epochs", 2, *words)
            self.assertEqual((run / "model.safetensors").read_bytes(),
                             (whole / "model.safetensors").read_bytes())
        self.assertEqual((self.train("level", "--level", "byte") / "model.safetensors").read_bytes(),
                         (whole / "model.safetensors").read_bytes())

    def test_what_a_level_does_not_have(self):
        new = ["train", "--run", "new", "--text", self.text]
        for words, says in (
                (["--bytes", "--level", "word"], "--bytes contradicts level word"),
                (["--bytes", "--level", "char"], "--bytes contradicts level char"),
                (["--level", "line"], "char, byte, word or bpe"),
                (["--min-count", 2], "--min-count is of --level word; leave it out with --level char"),
                (["--min-count", 2, "--level", "bpe"], "leave it out with --level bpe"),
                (["--vocabulary-size", 500, "--bytes"],
                 "--vocabulary-size is of --level word and bpe; leave it out with --level byte"),
                (["--vocabulary-size", 100, "--level", "bpe"], "a token for every byte; give 256 or more"),
                (["--vocabulary-size", 2, "--level", "word"], "give 3 or more"),
                (["--normalize", "nfc", "--level", "byte"], "normalize nfc is for characters"),
                (["--normalize", "nfd"], "none, nfc or nfkc")):
            with self.subTest(words):
                message = self.refuse(2, *new, *words, says=[says, "--help"])
                self.assertNotIn("----", message)
        self.refuse(1, "train", "--run", "new", "--text", self.file("spaces", " \n" * 999), "--level",
                    "word", says=["spaces", "no words"])
        run = self.train("run", "--epochs", 1)
        for words in (["--level", "word"], ["--bytes"], ["--min-count", 2], ["--normalize", "nfc"]):
            self.refuse(1, "train", "--resume", "--run", run, *words, says="contradicts the run")


class NormalForms(runs.CharLmTest):
    def setUp(self):
        super().setUp()
        composed = runs.small_text().replace("cat", "caf\u00e9").replace("dog", "\ufb01sh")
        self.composed = self.file("composed.txt", composed)
        self.text = self.file("decomposed.txt", unicodedata.normalize("NFD", composed))
        probe = self.run_it("train", "--run", "probe", "--text", self.text, "--normalize", "nfc",
                            *self.small, "--epochs", 1)
        if b"libutf8proc" in probe.stderr:
            self.skipTest("built without utf8proc")

    def test_equivalent_texts_are_the_same(self):
        decomposed = self.train("decomposed", "--normalize", "nfc")
        self.text = self.composed
        composed = self.train("composed", "--normalize", "nfc")
        plain = self.train("plain")
        weights = [read_safetensors(run / "model.safetensors")[1] for run in (decomposed, composed, plain)]
        self.assertEqual(weights[0], weights[1])
        self.assertEqual(weights[0], weights[2])
        evals = [self.succeed("eval", "--run", decomposed, "--text", self.folder / name)
                 for name in ("composed.txt", "decomposed.txt")]
        self.assertEqual(*evals)
        written = self.succeed("sample", "--run", decomposed, "--prime", "cafe\u0301", "--length", 5)
        self.assertTrue(written.decode().startswith("caf\u00e9"))
        self.refuse(1, "sample", "--run", plain, "--prime", "cafe\u0301", says="U+0301")
        talk = self.succeed("sample", "--run", decomposed, "--interactive", "--length", 5, stdin=None,
                            input="cafe\u0301\n".encode())
        self.assertTrue(talk.decode().startswith("caf\u00e9"))

    def test_compatible_characters(self):
        run = self.train("run", "--normalize", "nfkc", "--epochs", 1)
        self.assertNotIn("\ufb01", json.loads((run / "config.json").read_text())["vocabulary"])
        self.succeed("eval", "--run", run, "--text", self.text)
        self.succeed("train", "--resume", "--run", run, "--epochs", 2, "--normalize", "nfkc")


class LargeTexts(runs.CharLmTest):
    """Texts that stay in their files, beside the same ones shorter by a byte, which do not."""

    # Streams of both texts have one length with this batch.
    settings = ["--hidden", 8, "--embed", 4, "--layers", 1, "--batch", 5, "--seq-len", 10]

    def first_hundred(self, run, *words):
        """Trains 100 steps and stops; returns the line of metrics and the most memory in MB."""
        process = subprocess.Popen(self.command("train", "--run", run, "--json", *words),
                                   cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   preexec_fn=runs.default_signals)
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        errors = process.stderr.read().decode()
        process.stdout.close()
        process.stderr.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual((process.returncode, errors), (130, ""))
        values = {key: value for key, value in json.loads(line).items()
                  if key not in ("chars_per_s", "elapsed_s")}
        return values, usage.ru_maxrss / 1024

    def write(self, name, piece, size=LARGE):
        with open(self.folder / name, "wb") as file:
            for _ in range(size // len(piece)):
                file.write(piece)
            file.write(piece[:size % len(piece)])

    def check(self, piece, *words):
        """Trains on a large text and on the same one in memory."""
        self.write("large", piece)
        self.write("small", piece, LARGE - 1)
        large, memory = self.first_hundred("of-large", "--text", "large", *self.settings, *words)
        small, _ = self.first_hundred("of-small", "--text", "small", *self.settings, *words)
        self.assertEqual(large, small)
        text = json.loads((self.folder / "of-large/config.json").read_text())["text"]
        self.assertEqual((text["bytes"], "fnv1a" in text, "fnv1a_of_parts" in text), (LARGE, False, True))
        if not runs.SANITIZED:
            self.assertLess(memory, 60)

    def test_bytes(self):
        piece = bytes(range(256)) + random.Random(1).randbytes((1 << 16) - 256)
        self.check(piece, "--level", "byte")
        run = self.folder / "of-large"
        self.assertEqual(len(json.loads((run / "config.json").read_text())["vocabulary"]), 256)
        # Resumed, to the second line.
        self.first_hundred("of-large", "--resume")
        self.first_hundred("of-small", "--resume")
        lines = [[{**line, "chars_per_s": 0, "elapsed_s": 0} for line in metrics_of(self.folder / name)][:2]
                 for name in ("of-large", "of-small")]
        self.assertEqual(*lines)
        # Another text is recognised, wherever its first or last bytes or its length differ.
        for offset, content in ((0, b"X"), (LARGE - 1, b"X"), (LARGE, b"more")):
            with open(self.folder / "large", "r+b") as file:
                file.seek(offset)
                before = file.read(1)
                file.seek(offset)
                file.write(content)
            self.refuse(1, "train", "--resume", "--run", run, says="not the text that the run")
            with open(self.folder / "large", "r+b") as file:
                file.seek(offset)
                file.write(before)
                file.truncate(LARGE)
        self.write("large", piece, 1000)
        self.refuse(1, "train", "--resume", "--run", run, says="not the text that the run")

    @unittest.skipIf(runs.SANITIZED, "reading all characters takes minutes")
    def test_characters(self):
        self.check(runs.small_text().encode())  # ends within a word
        self.succeed("sample", "--run", "of-large", "--length", 20)
        for content, says in ((b"\xff", "UTF-8 at byte"), (b"\0", "NUL at byte")):
            with open(self.folder / "large", "r+b") as file:
                file.seek(LARGE // 2)
                file.write(content)
            self.refuse(1, "train", "--run", "new", "--text", "large", *self.settings,
                        says=[f"{says} {LARGE // 2}", "--bytes"])


if __name__ == "__main__":
    unittest.main()
