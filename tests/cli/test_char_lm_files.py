"""char_lm and unusual files: moved, endless, nested, inconsistent, special. Nothing is lost or
hangs."""
import json
import math
import os
import resource
import signal
import struct
import subprocess
import time
import unittest

import runs
from runs import default_signals, metrics_of, read_safetensors, write_safetensors

MEMORY = {} if runs.SANITIZED else {
    "preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))}


class HalfLines(runs.CharLmTest):
    def test_half_a_line_that_a_killed_process_left_is_dropped(self):
        run = self.train("run", "--epochs", 1, "--threads", 1)
        with open(run / "machines.jsonl", "a") as machines:
            machines.write('{"step":0,"proc')
        for threads, epochs in ((2, 2), (1, 3)):
            self.succeed("train", "--resume", "--run", run, "--epochs", epochs, "--threads",
                         threads)
        lines = [json.loads(line) for line in (run / "machines.jsonl").read_text().splitlines()]
        self.assertEqual([line["threads"] for line in lines], [1, 2, 1])


class MovedRun(runs.CharLmTest):
    def test_a_save_goes_where_the_directory_went(self):
        first, moved = self.folder / "m1", self.folder / "m2"
        process = subprocess.Popen(
            self.command("train", "--text", self.text, "--run", first, *self.small, "--epochs",
                         99999, "--threads", 1),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=default_signals)
        try:
            while process.poll() is None and not (first / "metrics.jsonl").exists():
                time.sleep(0.01)
            first.rename(moved)
            second = self.train("m1", "--epochs", 1, "--threads", 1)
            before = runs.hash_of(second)
            steps = metrics_of(moved)[-1]["step"]
            while process.poll() is None and metrics_of(moved)[-1]["step"] == steps:
                time.sleep(0.01)
        finally:
            process.send_signal(signal.SIGINT)
            report, error = process.communicate()
        self.assertEqual((process.returncode, error), (130, b""))
        self.assertEqual(runs.hash_of(second), before)
        header, _ = read_safetensors(moved / "model.safetensors")
        self.assertGreater(int(header["__metadata__"]["run.number.step"]), steps)
        self.assertIn(f"train --resume --run {moved}".encode(), report)
        self.succeed("info", "--run", moved)


class Saving(runs.CharLmTest):
    def test_links_and_modes_are_kept(self):
        run = self.train("run", "--epochs", 1)
        model, config = run / "model.safetensors", run / "config.json"
        elsewhere = self.folder / "elsewhere"
        elsewhere.mkdir()
        model.rename(elsewhere / "weights")
        model.symlink_to("../elsewhere/weights")
        (elsewhere / "weights").chmod(0o600)
        config.chmod(0o640)
        before = (elsewhere / "weights").read_bytes()
        self.succeed("train", "--resume", "--run", run, "--epochs", 2)
        self.assertTrue(model.is_symlink())
        self.assertNotEqual((elsewhere / "weights").read_bytes(), before)
        self.assertEqual([path.name for path in elsewhere.iterdir()], ["weights"])
        self.assertEqual(model.stat().st_mode & 0o777, 0o600)
        self.assertEqual(config.stat().st_mode & 0o777, 0o640)

    def test_a_line_that_cannot_be_written_does_not_lose_the_training(self):
        words = ["--batch", 2]  # 134 steps an epoch
        whole, run = self.train("whole", *words, "--epochs", 3), self.train("run", *words, "--epochs", 1)
        runs.lengthen_metrics(run)
        self.stop_at_next_line(run, "--epochs", 3)
        header, _ = read_safetensors(run / "model.safetensors")
        self.assertEqual(header["__metadata__"]["run.number.step"], "200")
        self.succeed("train", "--resume", "--run", run)
        self.assertEqual((run / "model.safetensors").read_bytes(),
                         (whole / "model.safetensors").read_bytes())
        self.assertEqual([(line["step"], line["train_loss"]) for line in metrics_of(run)],
                         [(line["step"], line["train_loss"]) for line in metrics_of(whole)])


class OddFiles(runs.CharLmTest):
    """Each is refused with one line, quickly and with little memory; nothing changes."""

    def setUp(self):
        super().setUp()
        self.trained = self.train("run", "--epochs", 1)
        self.model = self.trained / "model.safetensors"
        self.config = self.trained / "config.json"

    def refuse_all(self, says, resume_only=False):
        commands = [["train", "--resume", "--run", "run", "--epochs", 5]]
        if not resume_only:
            commands += [["info", "--run", "run"], ["sample", "--run", "run"],
                         ["eval", "--run", "run", "--text", self.text],
                         ["gradcheck", "--run", "run"]]
        for words in commands:
            message = self.refuse(1, *words, says=says, timeout=60, **MEMORY)
            self.assertLess(len(message), 400)
            self.assertNotRegex(message, r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")

    def test_special_files(self):
        metrics = self.trained / "metrics.jsonl"
        for path, resume_only in ((metrics, True), (self.config, False), (self.model, False)):
            content = path.read_bytes()
            path.unlink()
            os.mkfifo(path)
            self.refuse_all([path.name, "it is a pipe, not a regular file"], resume_only=resume_only)
            path.unlink()
            path.symlink_to("/dev/zero")
            self.refuse_all([path.name, "it is a device"], resume_only=resume_only)
            path.unlink()
            path.mkdir()
            self.refuse_all([path.name, "it is a directory"], resume_only=resume_only)
            path.rmdir()
            path.write_bytes(content)

    def test_huge_files(self):
        content = self.config.read_bytes()
        with open(self.config, "wb") as file:
            file.truncate(3 << 30)
        self.refuse_all("bytes are more than")
        self.config.write_bytes(content)
        metrics = self.trained / "metrics.jsonl"
        lines = metrics.read_bytes()
        with open(metrics, "r+b") as file:
            file.truncate(3 << 30)  # an endless line, after those that are kept
        self.succeed("train", "--resume", "--run", "run", **MEMORY)
        self.assertEqual(metrics.read_bytes(), lines)

    def test_values_of_the_config(self):
        good = json.loads(self.config.read_text())
        deep = "[" * 60000 + "]" * 60000
        objects = '{"a":' * 60000 + "1" + "}" * 60000
        text = json.dumps(good)
        letters = json.dumps(good["vocabulary"])
        doubled = json.dumps(good["vocabulary"] + good["vocabulary"][:1])
        backwards = json.dumps(good["vocabulary"][::-1])
        for old, new, says in (
                ('"layers": 2', f'"layers": {deep}', "layers"),
                ('"layers": 2', f'"layers": {objects}', "layers"),
                (text, deep, "not a JSON object"),
                (text, objects, "nested too deeply"),
                ('"layers": 2', f'"layers": "{"x" * 100000}"', "layers is"),
                ('"layers": 2', '"layers": "2"', 'layers is "2", a string'),
                ('"layers": 2', '"layers": true', "layers is true"),
                ('"layers": 2', '"layers": null', "layers is null"),
                ('"layers": 2', '"layers": 2.0', 'layers is "2.0"'),
                ('"lr": 0.002', '"lr": "0.002"', "lr is"),
                ('"bytes": false', '"bytes": "false"', "bytes is"),
                ('"model": "lstm"', '"model": "\\u001b[31m\\u009b"', r"\u001b[31m\u009b"),
                ('"layers": 2', '"layers": 2, "layers": 2', '"layers" occurs twice'),
                ('"bytes": 3', '"bytes": 3, "bytes": 3', "twice"),
                ('"layers": 2', '"layers": 2, "leyers": 2', '"leyers" is unknown'),
                ('"fnv1a": ', '"fnv2": 1, "fnv1a": ', '"fnv2" is unknown'),
                ('"fnv1a": "', '"fnv1a": "0', "fnv1a"),
                (f'"vocabulary": {letters}', f'"vocabulary": {doubled}', '"vocabulary"'),
                (f'"vocabulary": {letters}', f'"vocabulary": {backwards}', '"vocabulary"'),
                (text, text + "\0{", "not valid JSON")):
            with self.subTest(new[:60]):
                self.assertIn(old, text)
                self.config.write_text(text.replace(old, new, 1))
                self.refuse_all([says, "config.json"], resume_only=new != f'"layers": {deep}')

    def test_a_model_too_large_for_its_file_is_not_built(self):
        config = json.loads(self.config.read_text())
        header, data = read_safetensors(self.model)
        for key, value in (("hidden", 1000000), ("layers", 10000), ("embed", 1000000)):
            larger = {**config, key: value}
            self.config.write_text(json.dumps(larger))
            self.refuse_all("not the model of the run")
            identity = {name: value for name, value in larger.items()
                        if name not in ("epochs", "tbptt_update", "tbptt_length")}
            identity["text"] = {name: value for name, value in config["text"].items()
                                if name != "path"}
            metadata = {**header["__metadata__"], "config": json.dumps(
                identity, separators=(",", ":"), ensure_ascii=False)}
            del metadata["run.checksum"]
            write_safetensors(self.model, {**header, "__metadata__": metadata}, data)
            self.refuse_all("model.safetensors: ")
            self.refuse(1, "train", "--resume", "--run", "run", says="tensor", timeout=20, **MEMORY)

    def changed(self, metadata=None, tensors=None, rename=None):
        """Writes the checkpoint with other metadata and other bytes in front of some tensors."""
        header, data = self.checkpoint
        data = bytearray(data)
        for name, content in (tensors or {}).items():
            begin = header[name]["data_offsets"][0]
            data[begin:begin + len(content)] = content
        header = {(rename or {}).get(name, name): entry for name, entry in header.items()}
        texts = {**header["__metadata__"], **(metadata or {})}
        del texts["run.checksum"]
        write_safetensors(self.model, {**header, "__metadata__": texts}, bytes(data))

    def test_state_that_no_training_has(self):
        self.checkpoint = read_safetensors(self.model)
        numbers = {key: value for key, value in self.checkpoint[0]["__metadata__"].items()
                   if key.startswith("run.number.")}
        self.assertEqual(len(numbers), 25)
        for key, values in {"epoch": ["1e15", "0", "3000000"], "step": ["1", "66", "9007199254740991"],
                            "window": ["3"], "best_loss": ["nan", "inf", "-1", "1e7"], "best_epoch": ["0", "2"],
                            "metrics_lines": ["9007199254740991", "0"], "epoch_loss": ["1", "nan"],
                            "recent_loss": ["nan", "-inf", "-1", "1e30"],
                            "grad_norm": ["inf", "-1"], "skipped": ["1", "-1", "1e9"],
                            "epoch_skipped": ["1"], "recent_skipped": ["1"],
                            "skipped_in_row": ["1"], "carried_from": ["1", "nan"],
                            "rate_factor": ["0", "2", "nan"], "rollbacks": ["0.5"],
                            "test_loss": ["nan", "-1", "1e7"], "epoch_clips.clipped": ["1"], "recent_clips.clipped": ["99"],
                            "recent_clips.mean_norm": ["-1"],
                            "recent_clips.largest_norm": ["inf"],
                            "unknown": ["1"]}.items():
            for value in values:
                with self.subTest(f"{key} {value}"):
                    self.changed({f"run.number.{key}": value})
                    self.refuse_all("model.safetensors", resume_only=(key, value) == ("best_loss", "1e7"))
        for key, value in {"run.unknown": "1", "run.rng": "1 2 3"}.items():
            self.changed({key: value})
            self.refuse_all(["model.safetensors", key], resume_only=False)
        steps_of = "run.optimizer.adam.steps.head.b"
        self.changed(tensors={steps_of: struct.pack("<d", 9)})
        self.refuse_all(["model.safetensors", "adam.steps.head.b"])
        self.changed(rename={steps_of: "run.unknown"})
        self.refuse_all(["model.safetensors", "run.unknown"])
        self.changed(rename={steps_of: "run.optimizer.adam.stops.head.b"})
        self.refuse_all(["model.safetensors", "adam.steps.head.b"])
        steps = int(numbers["run.number.step"])  # consistent with each other, but not with the text
        self.changed({"run.number.step": str(2 * steps), "run.number.metrics_lines": "2"})
        self.refuse(1, "train", "--resume", "--run", "run", "--epochs", 5, says="model.safetensors")

    def test_earlier_parameters_that_no_training_has(self):
        (self.folder / "run").rename(self.folder / "first")
        self.train("run", "--epochs", 1, "--batch", 2, "--tbptt-length", 35)
        runs.lengthen_metrics(self.trained)
        self.stop_at_next_line(self.trained, "--epochs", 2)  # at a step within the second epoch
        self.checkpoint = read_safetensors(self.model)
        names = [name for name in self.checkpoint[0] if name.startswith("run.earlier.")]
        self.assertEqual(sorted({name.split(".")[2] for name in names}), ["0", "1", "2"])
        last = "run.earlier.2.head.b"
        self.changed(tensors={last: struct.pack("<f", math.inf)})
        self.refuse_all(["model.safetensors", "head.b"])
        self.changed(rename={last: "run.earlier.4.head.b"})
        self.refuse_all(["model.safetensors", "run.earlier."])
        self.changed(rename={last: "run.earlier.2.head.c"})
        self.refuse_all(["model.safetensors", "head.b"])
        self.changed(rename={name: name.replace("earlier.2", "optimizer.adam") for name in names})
        self.refuse_all(["model.safetensors", "2 earlier updates, not of 3"])
        self.changed()
        self.succeed("info", "--run", "run")

    def test_numbers_that_no_training_has(self):
        self.checkpoint = read_safetensors(self.model)
        for name in ("run.optimizer.adam.m.head.w", "run.optimizer.adam.v.head.b", "head.b"):
            for value in (math.nan, -math.inf):
                self.changed(tensors={name: struct.pack("<f", value)})
                self.refuse(1, "train", "--resume", "--run", "run", "--epochs", 5,
                            says=["model.safetensors", name.removeprefix("run.optimizer.")])
        self.changed(tensors={"run.optimizer.adam.v.head.b": struct.pack("<f", -1)})
        self.refuse(1, "train", "--resume", "--run", "run", "--epochs", 5, says="adam.v.head.b")
        self.changed(tensors={"run.optimizer.adam.m.head.b": struct.pack("<f", -1)})
        self.succeed("train", "--resume", "--run", "run", "--epochs", 2)

    def test_weights_whose_logits_overflow(self):
        self.checkpoint = read_safetensors(self.model)
        largest, hidden = 3.4e38, 12
        self.changed(tensors={"head.b": struct.pack("<2f", largest, largest),
                              "head.w": struct.pack(f"<{2 * hidden}f", *[largest] * hidden,
                                                    *[-largest] * hidden)})
        self.refuse(1, "sample", "--run", "run", "--length", 9, says="the model has diverged")

    def test_names_with_escapes(self):
        self.checkpoint = read_safetensors(self.model)
        for name in ("head.w", "run.optimizer.adam.m.head.w"):
            self.changed(rename={name: f"{name}\x1b[31m\x9b\n"})
            self.refuse_all("model.safetensors", resume_only="optimizer" in name)
        self.refuse(1, "info", "--run", "no\x1b[31m\x9b\n", says=r"no\u001b[31m\u009b\n")
        odd = self.file("\x1b]0;odd\x07.txt", "x" * 9)
        self.refuse(1, "train", "--run", "new", "--text", odd, says=r"\u001b]0;odd\u0007")
        message = self.refuse(2, "train", "--run", "new", "--hidden", "9\x1b[1m" * 9999)
        self.assertLess(len(message), 300)
        message = self.refuse(2, "train", "--" + "x" * 99999)
        self.assertLess(len(message), 300)
        message = self.refuse(1, "sample", "--run", "run",
                              "--prime", "".join(map(chr, range(0x400, 0x4000))))
        self.assertLess(len(message), 400)


class OddTexts(runs.CharLmTest):
    def refuse_text(self, path, says, *words):
        self.refuse(1, "train", "--text", path, "--run", "new", *self.small, *words, says=says,
                    timeout=60, **MEMORY)

    def test_wide_encodings_are_named(self):
        text = "зима, naïve\n" * 300
        for encoding in ("UTF-16", "UTF-32", "UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"):
            path = self.file("wide.txt", text.encode(encoding))
            self.refuse_text(path, f"{encoding} text, not UTF-8; convert it with iconv -f {encoding}")
        for mark, encoding in ((b"\xfe\xff", "UTF-16BE"), (b"\0\0\xfe\xff", "UTF-32BE")):
            path = self.file("wide.txt", mark + "春夏秋冬".encode(encoding) * 300)
            self.refuse_text(path, f"{encoding[:6]} text")

    def test_a_byte_order_mark_is_not_text(self):
        plain = self.train("plain", "--epochs", 1)
        self.text = self.file("marked.txt", b"\xef\xbb\xbf" + self.text.read_bytes())
        marked = self.train("marked", "--epochs", 1)
        self.assertEqual((plain / "model.safetensors").read_bytes(),
                         (marked / "model.safetensors").read_bytes())
        self.succeed("eval", "--run", plain, "--text", self.text)

    def test_texts_without_end(self):
        for device in ("/dev/zero", "/dev/urandom"):
            self.refuse_text(device, "is a device")
            self.refuse_text(device, "is a device", "--bytes")
        with open(self.folder / "sparse", "wb") as file:
            file.truncate(1 << 40)
        self.refuse_text("sparse", "the text is too long", "--level", "word")
        self.refuse_text("sparse", "a binary file")
        if runs.SANITIZED:
            return  # which takes minutes, and more memory, for what follows
        with open(self.folder / "sparse", "wb") as file:
            file.truncate(2 << 30)
        self.refuse_text("sparse", "a binary file", "--level", "word")
        self.refuse_text("sparse", "not enough memory for the text", "--level", "bpe")

    def test_parts_too_small_for_any_text(self):
        for part in ("1e-12", "1e-18", "1e-300", "5e-324", "0.9999999999999999"):
            self.refuse(1, "train", "--text", self.text, "--run", "new", *self.small, "--train-frac",
                        part, says="too short", timeout=20)
        run = self.train("run")
        config = json.loads((run / "config.json").read_text())
        for name in ("model.safetensors", "metrics.jsonl"):
            (run / name).unlink()
        (run / "config.json").write_text(json.dumps({**config, "train_frac": 1e-18}))
        self.refuse(1, "train", "--resume", "--run", run, says="too short", timeout=20)

    def test_a_signal_before_training_ends_it(self):
        os.mkfifo(self.folder / "pipe")
        for which in (signal.SIGINT, signal.SIGTERM):
            process = subprocess.Popen(
                self.command("train", "--text", self.folder / "pipe", "--run", "new"),
                cwd=self.folder, stderr=subprocess.PIPE, preexec_fn=default_signals)
            time.sleep(0.3)  # it blocks on a writer
            process.send_signal(which)
            try:
                process.communicate(timeout=20)
            finally:
                process.kill()
            self.assertEqual(process.returncode, -which)
            self.assertFalse((self.folder / "new").exists())


if __name__ == "__main__":
    unittest.main()
