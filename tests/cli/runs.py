"""Shared by the tests of char_lm: the program, small texts and runs, and access to their files."""
import hashlib
import json
import os
import pathlib
import random
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("REEL_BUILD", ROOT / "build"))
CHAR_LM = os.environ.get("CHAR_LM", str(BUILD / "examples" / "char_lm"))
SANITIZED = b"__asan_init" in pathlib.Path(CHAR_LM).read_bytes()  # slower, and no bad_alloc
LONG = os.environ.get("REEL_LONG") == "1"  # as ./dev test --long sets it
FILES = ["best.safetensors", "config.json", "machines.jsonl", "metrics.jsonl", "model.safetensors",
         "report.html"]
METRIC_KEYS = ["step", "epoch", "train_loss", "valid_loss", "lr", "grad_norm", "chars_per_s",
               "elapsed_s", "clip"]


def small_text(length=3000):
    """Words and lines, always the same ones."""
    source = random.Random(1)
    words = ["the", "cat", "dog", "sat", "on", "a", "mat", "and", "ran", "naïve", "off", "home."]
    text = ""
    while len(text) < length:
        text += source.choice(words) + source.choice("   \n")
    return text[:length]


def hash_of(folder):
    """What is in a directory: a change of any file or name changes it."""
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(folder).rglob("*")):
        digest.update(os.fsencode(path) + b"\0")
        if path.is_file():
            large = path.stat().st_size > 1 << 27  # sparse, not worth reading
            digest.update(b"large" if large else path.read_bytes())
    return digest.hexdigest()


def read_safetensors(path):
    """The header as a dictionary and the data."""
    content = path.read_bytes()
    length, = struct.unpack("<Q", content[:8])
    return json.loads(content[8:8 + length]), content[8 + length:]


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def default_signals():
    """The parent process may ignore signals, which a child would inherit."""
    for which in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU):
        signal.signal(which, signal.SIG_DFL)


def lengthen_metrics(run, length=300000):
    """Makes the first line of metrics.jsonl long, by a key that no one reads."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines()
    lines[0] = json.dumps({**json.loads(lines[0]), "padding": "x" * length})
    path.write_text("\n".join(lines) + "\n")


def metrics_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class CharLmTest(unittest.TestCase):
    """A separate directory with text.txt, and ways to run the program in it."""

    small = ["--hidden", 12, "--embed", 6, "--batch", 4, "--seq-len", 10, "--epochs", 2]

    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="reel-cli-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.text = self.file("text.txt", small_text())

    def file(self, name, content):
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def command(self, *words):
        return [CHAR_LM, *map(str, words)]

    def run_it(self, *words, **options):
        """Runs the program to its end; text comes back as bytes."""
        options = {"cwd": self.folder, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE,
                   "stderr": subprocess.PIPE, "timeout": 300, **options}
        return subprocess.run(self.command(*words), **options)

    def succeed(self, *words, **options):
        done = self.run_it(*words, **options)
        self.assertEqual((done.returncode, done.stderr), (0, b""), done)
        return done.stdout

    def train(self, run, *words, **options):
        """A whole small training; returns its directory."""
        self.succeed("train", "--text", self.text, "--run", self.folder / run, *self.small, *words,
                     **options)
        return self.folder / run

    def stop_at_next_line(self, run, *words):
        """Resumes a training that ends, its state saved, at its next line of metrics.jsonl, which
        cannot be written: that file may not become longer. It has to be longer than the model."""
        size = (run / "metrics.jsonl").stat().st_size
        done = self.run_it("train", "--resume", "--run", run, *words, preexec_fn=lambda:
                           resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, size + 20)))
        self.assertEqual(done.returncode, 1, done)
        self.assertRegex(done.stderr, rb"\Achar_lm: [^\n]*metrics.jsonl: cannot write: File too large\n\Z")
        self.assertEqual((run / "metrics.jsonl").stat().st_size, size)

    def refuse(self, code, *words, says=(), **options):
        """Checks that the program fails with one clear line, and changes nothing in the
        directory."""
        before = hash_of(self.folder)
        done = self.run_it(*words, **options)
        message = (done.stderr or b"").decode()
        self.assertEqual(done.returncode, code, message)
        self.assertRegex(message, r"\Achar_lm: [^\n]+\n\Z")
        self.assertNotRegex(message, r"\.(cpp|h):\d", "users have no source")
        for part in [says] if isinstance(says, str) else says:
            self.assertIn(part, message)
        self.assertEqual(hash_of(self.folder), before, "something was changed")
        return message
