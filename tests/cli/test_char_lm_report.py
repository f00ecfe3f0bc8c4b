"""The reports of char_lm: one page that holds everything, whatever the files of a run hold."""
import html
import json
import math
import os
import re
import resource
import shutil
import subprocess
import tempfile
import unittest

import runs
from pages import Page, contrast
from runs import metrics_of

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class ReportTest(runs.CharLmTest):
    def report(self, *words):
        """The page of `char_lm report`."""
        path = self.succeed("report", *words).decode().rstrip("\n")
        return (self.folder / path).read_text(encoding="utf-8")


class Content(ReportTest):
    def test_training_writes_the_same_page(self):
        run = self.train("run", "--sample-every", 30, "--diagnose")
        written = (run / "report.html").read_bytes()
        self.assertEqual(self.succeed("report", run).decode(), f"{run}/report.html\n")
        self.assertEqual((run / "report.html").read_bytes(), written)
        self.succeed("report", "run", "--output", "page.html")
        self.assertEqual((self.folder / "page.html").read_bytes(), written)

    def test_it_shows_the_run(self):
        run = self.train("run", "--batch", 2, "--sample-every", 30, "--diagnose", "--clip", 0.2)
        page = Page(self.report(run))
        metrics = metrics_of(run)
        best = min(line["valid_loss"] for line in metrics if "valid_loss" in line)
        self.assertIn(f"{best:.4f} nats, {best / math.log(2):.4f} bits per character", page.text)
        rows = {row[0]: row[1:] for row in page.rows}
        config = json.loads((run / "config.json").read_text())
        for key in ("hidden", "batch", "optimizer", "clip", "tbptt_length"):
            self.assertEqual(rows[key], [str(config[key])])
        self.assertEqual(rows["vocabulary"], [f"{len(config['vocabulary'])} symbols"])
        info = self.succeed("info", "--run", run).decode()
        for name, shape, count, norm in re.findall(r"(?m)^(\S+) +(\[.*\]) +([\d,]+) +(\S+)$", info):
            self.assertEqual(rows[name], [shape, count, norm])
        machine = json.loads((run / "machines.jsonl").read_text())
        for key in ("processor", "compiler", "instructions", "reel"):
            self.assertIn(machine[key], page.text)
        for sample in map(json.loads, (run / "samples.jsonl").read_text().splitlines()[:2]):
            self.assertIn(f"After step {sample['step']}, in epoch {sample['epoch']}", page.text)
            self.assertIn(sample["text"], page.text)
        for line in metrics:
            if line["step"] % 100 == 0:
                self.assertIn(f"{line['train_loss']:.6g}", page.text)
        last = metrics[-1]["diagnostics"]["layers"][1]
        self.assertEqual(rows["rnn.1"][1], f"{last['time_constants']['median']:.4g}")
        for title in ("Loss", "Learning rate", "Norm of the gradient", "Clipped steps",
                      "Speed of training", "Gradient through time", "rnn.0: values of the gates",
                      "rnn.1: saturated gates"):
            self.assertIn(f"{title} as numbers", page.text)

    def test_time_by_op(self):
        self.train("run", "--epochs", 1)
        page = Page(self.report("run", "--profile"))
        rows = [row for row in page.rows if len(row) == 5 and row[4].endswith(" %")]
        self.assertIn(["lstm", "2"], [row[:2] for row in rows])
        times = [float(row[2]) + float(row[3]) for row in rows]
        self.assertEqual(times, sorted(times, reverse=True))
        self.assertGreater(times[0], 0)
        self.assertAlmostEqual(sum(float(row[4].rstrip(" %")) for row in rows), 100, delta=1)
        self.assertNotIn("Time by op", self.report("run"))

    def test_accessible_and_alone(self):
        run = self.train("run", "--sample-every", 30, "--diagnose")
        text = self.report(run)
        page = Page(text)
        self.assertEqual(page.elements[0], ("html", {"lang": "en"}))
        self.assertEqual(page.loaded, ["data:,"])
        self.assertNotRegex(text, r"<script|@import|url\(|https?:|javascript:")
        for tag in ("header", "nav", "main", "footer", "h1"):
            self.assertEqual(page.count(tag), 1, tag)
        links = [values for tag, values in page.elements if tag == "a"]
        self.assertEqual(links[0], {"class": "skip", "href": "#main"})
        pictures = [values for tag, values in page.elements if tag == "svg"]
        self.assertEqual(page.count("figure"), sum(p.get("role") == "img" for p in pictures))
        self.assertEqual(page.count("figure"), page.count("figcaption"))
        self.assertEqual(page.count("figure"), page.count("desc"))
        self.assertGreater(page.count("figure"), 8)
        self.assertEqual(page.count("figure"), page.count("details"))
        for values in pictures:
            self.assertTrue(values.get("aria-hidden") == "true" or "aria-labelledby" in values)
        self.assertIn("prefers-color-scheme: dark", page.styles)
        self.assertIn("@media print", page.styles)
        # Curves are told apart by dashes and marks, not by colour alone.
        for figure in text.split("<figure>")[1:]:
            legend = figure.split("</svg>\n<ul")[1].split("</ul>")[0]
            looks = [(re.findall(r'stroke-dasharray="([^"]*)"', item),
                      re.findall(r"<(circle|polygon)", item), 'class="raw' in item)
                     for item in legend.split("<li>")[1:]]
            self.assertEqual(len(looks), len(set(map(str, looks))), looks)

    def test_contrast(self):
        styles = Page(self.report(self.train("run", "--epochs", 1))).styles
        palettes = re.findall(r":root \{([^}]*)\}", styles)
        self.assertEqual(len(palettes), 3)  # light, dark and print
        for palette in palettes:
            colours = dict(re.findall(r"--(\w+): (#\w+);", palette))
            for ground in (colours["page"], colours["panel"]):
                for name in ("ink", "quiet", "link", *(f"c{i}" for i in range(6))):
                    self.assertGreaterEqual(contrast(colours[name], ground), 4.5, (name, ground))

    def test_several_runs(self):
        one, two = self.train("one"), self.train("two", "--hidden", 16, "--model", "gru")
        before = runs.hash_of(one), runs.hash_of(two)
        text = self.report("one", two, "--output", "both.html")
        self.assertEqual((runs.hash_of(one), runs.hash_of(two)), before)
        page = Page(text)
        rows = {row[0]: row[1:] for row in page.rows}
        self.assertEqual(rows["hidden"], ["12", "16", "differs"])
        self.assertEqual(rows["embed"], ["6", "6", ""])
        for title in ("Training loss", "Validation loss", "Validation loss by time"):
            self.assertIn(f"{title} as numbers", page.text)
        self.assertEqual(self.report("one", "two", "--output", "again.html"), text)
        self.succeed("report", "one", "two")  # in the first
        self.assertEqual((one / "report.html").read_text(), text)
        shutil.copytree(one, self.folder / "copies" / "one")
        self.assertIn("copies/one", Page(self.report("one", "copies/one", "--output", "c")).text)

    def test_more_curves_than_colours(self):
        run = self.train("run", "--epochs", 1)
        for i in range(24):
            shutil.copytree(run, self.folder / f"run{i}")
        Page(self.report(*(f"run{i}" for i in range(24)), "--output", "all.html"))
        self.refuse(2, "report", *(f"run{i}" for i in range(24)), "run",
                    says="25 runs are more than the 24")


class Odd(ReportTest):
    """Hostile files: everything is escaped, bounded, or refused with the line."""

    def setUp(self):
        super().setUp()
        self.trained = self.train("run", "--sample-every", 60)

    def test_markup_in_files(self):
        evil = "</pre><script>alert(1)</script>&amp;\"'\x00\x1b[31m\ud7ff\ufffe<!--"
        (self.trained / "samples.jsonl").write_text(
            json.dumps({"step": 60, "epoch": 1, "text": evil}) + "\n")
        machine = json.loads((self.trained / "machines.jsonl").read_text())
        (self.trained / "machines.jsonl").write_text(
            json.dumps({**machine, "processor": evil}) + "\n")
        config = json.loads((self.trained / "config.json").read_text())
        config["text"]["path"] = "/" + evil.replace("\0", "")
        (self.trained / "config.json").write_text(json.dumps(config))
        renamed = self.trained.rename(self.folder / "<b>&'\"")
        page = Page(self.report(renamed))
        self.assertEqual(page.count("script") + page.count("b"), 0)
        self.assertIn("</pre><script>alert(1)</script>&amp;\"'\ufffd\ufffd[31m\ud7ff\ufffd<!--",
                      page.text)
        self.assertIn("Run <b>&'\"", page.text)
        self.assertNotRegex(page.text, r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

    def test_damaged_lines_are_named(self):
        for name, lines in (
                ("metrics.jsonl", ("{", "[]", "3", "null", '{"step": -1}', '{"step": 1e400}',
                                   '{"step": 1, "epoch": 1}', "[" * 100000, '{"a":' * 100000,
                                   '{"step": "1"}', "\0", "")),
                ("samples.jsonl", ("{}", '{"step": 1, "epoch": 1, "text": 3}')),
                ("machines.jsonl", ("{}", '{"step": 1, "processor": []}'))):
            path = self.trained / name
            content = path.read_text()
            for line in lines:
                with self.subTest(line[:30]):
                    path.write_text(content + line + "\n")
                    number = content.count("\n") + 1
                    self.refuse(1, "report", "run", says=[name, f": line {number}: "], timeout=20)
            path.write_text(content + '{"half a line')
            self.report("run")
            path.write_text(content)

    def test_numbers_at_the_ends_of_their_range(self):
        path = self.trained / "metrics.jsonl"
        line = json.loads(path.read_text().splitlines()[0])
        for values in ((1e308, -1e308), (5e-324, 0), (1e-300, 1e300), (-1, -2), (1e15, 1e15 + 1)):
            for key in ("train_loss", "valid_loss", "lr", "grad_norm", "chars_per_s", "elapsed_s"):
                path.write_text("".join(json.dumps({**line, "step": 100 * i, key: value}) + "\n"
                                        for i, value in enumerate(values, 1)))
                text = self.report("run")
                Page(text)
                self.assertNotRegex(text, r'="[^"]*(nan|inf)\b[^"]*"')

    def test_long_files_make_a_page_of_bounded_size(self):
        path = self.trained / "metrics.jsonl"
        line = json.loads(path.read_text().splitlines()[0])
        lines = 20_000 if runs.SANITIZED else 200_000
        with open(path, "w") as file:
            for step in range(100, 100 * lines + 100, 100):
                file.write(json.dumps({**line, "step": step}) + "\n")
        limit = {} if runs.SANITIZED else {"preexec_fn": lambda: resource.setrlimit(
            resource.RLIMIT_AS, (1 << 30, 1 << 30))}
        patience = 600 if runs.SANITIZED else 60
        self.succeed("report", "run", timeout=patience, **limit)
        self.assertLess((self.trained / "report.html").stat().st_size, 300000)
        with open(path, "w") as file:
            file.truncate(3 << 30)  # a line without end
        self.refuse(1, "report", "run", says="line 1 has more than the", timeout=patience,
                    **limit)

    def test_refusals(self):
        self.refuse(2, "report", says="RUN is required")
        self.refuse(2, "report", "", says="RUN is empty")
        self.refuse(1, "report", "none", says="there is no such directory")
        self.refuse(1, "report", "run", "--output", "no/where.html", says="no/where.html")
        os.mkfifo(self.folder / "pipe")
        self.refuse(1, "report", "run", "--output", "pipe", says="pipe")

    def test_a_report_that_cannot_be_written_does_not_stop_training(self):
        (self.trained / "report.html").unlink()
        (self.trained / "report.html").mkdir()
        said = self.succeed("train", "--resume", "--run", "run", "--epochs", 3).decode()
        self.assertRegex(said, r"(?m)^note   there is no new report: .*report.html: ")
        self.assertEqual(metrics_of(self.trained)[-1]["epoch"], 3)

    def test_a_report_of_somebody_else_is_not_overwritten(self):
        (self.folder / "new").mkdir()
        (self.folder / "new" / "report.html").write_text("mine")
        self.refuse(1, "train", "--text", self.text, "--run", "new", *self.small,
                    says="there is a run in it already")


@unittest.skipUnless(CHROMIUM, "there is no chromium")
class Browser(ReportTest):
    def browse(self, *words):
        with tempfile.TemporaryDirectory() as profile:
            done = subprocess.run(
                [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu",
                 f"--user-data-dir={profile}", "--enable-logging=stderr", *words], timeout=120,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=True)
        self.assertNotIn("CONSOLE", done.stderr)
        return done.stdout

    def test_it_is_shown_and_printed(self):
        run = self.train("run", "--sample-every", 30, "--diagnose")
        page = (run / "report.html").as_uri()
        shown = self.browse("--dump-dom", page)
        self.assertIn("<h1>Run run</h1>", shown)
        sample = json.loads((run / "samples.jsonl").read_text().splitlines()[0])["text"]
        self.assertIn(sample, html.unescape(shown))
        self.assertEqual(Page((run / "report.html").read_text()).count("polyline"),
                         len(re.findall("<polyline", shown)))
        self.browse(f"--print-to-pdf={self.folder / 'page.pdf'}", page)
        self.assertTrue((self.folder / "page.pdf").read_bytes().startswith(b"%PDF"))


if __name__ == "__main__":
    unittest.main()
