"""The program that labels words with their parts of speech."""
import pathlib
import random
import tempfile
import unittest

from programs import ProgramTest, data_file, results, run

COLUMNS = "{}\t{}\t_\t{}\t_\t_\t_\t_\t_\t_"


def small_treebank(folder, sentences=60):
    """Sentences in which "can" and "fish" are what their neighbours make of them."""
    source = random.Random(1)
    text = ""
    for _ in range(sentences):
        subject = source.choice([["they/PRON"], ["the/DET", "fish/NOUN"], ["a/DET", "can/NOUN"]])
        rest = source.choice([["can/AUX", "fish/VERB"], ["fish/VERB"], ["can/VERB", "the/DET", "fish/NOUN"]])
        for i, word in enumerate(subject + rest, 1):
            text += COLUMNS.format(i, *word.split("/")) + "\n"
        text += "\n"
    path = pathlib.Path(folder, "small.conllu")
    path.write_text(text, encoding="utf-8")
    return path


class Tagger(ProgramTest):
    program = "tagger"

    def test_a_treebank_is_learned(self):
        output = self.succeed("--fast", "--train", data_file("en_ewt-ud-dev.conllu"))
        (what, right), = results(output).items()
        self.assertEqual(what, "% of the test's words with the right tag, by a bi-directional lstm")
        self.assertTrue(74 < right < 90, right)
        self.assertRegex(output, r"\nVERB( +\d+){17}( +[01]\.\d{3}){3}\n")

    def test_both_directions_are_needed_and_new_text_is_tagged(self):
        with tempfile.TemporaryDirectory(prefix="reel-cli-") as folder:
            words = ["--fast", "--train", small_treebank(folder), "--epochs", 8, "--batch", 4]
            save = pathlib.Path(folder, "tagger.safetensors")
            both, = results(self.succeed(*words, "--cell", "gru", "--save", save)).values()
            one, = results(self.succeed(*words, "--cell", "gru", "--one-way")).values()
            self.assertEqual(both, 100)
            self.assertLess(one, 100)
            text = pathlib.Path(folder, "text.txt")
            text.write_text("they can fish\n\nthe fish can the fish\n", encoding="utf-8")
            tagged = self.succeed(*words, "--cell", "gru", "--save", save, "--tag", text)
            self.assertEqual(tagged, "they/PRON can/AUX fish/VERB\n"
                                     "the/DET fish/NOUN can/VERB the/DET fish/NOUN\n")

    def test_use(self):
        self.assert_help("--train", "x")
        with tempfile.TemporaryDirectory(prefix="reel-cli-") as folder:
            small = small_treebank(folder)
            self.assert_resumes("--fast", "--train", small)
            bad = pathlib.Path(folder, "bad.conllu")
            bad.write_text(small.read_text().replace("1\tthey\t", "1\tthey ", 1))
            done = run("tagger", "--train", bad)
            self.assertEqual((done.returncode, done.stdout), (1, ""))
            self.assertRegex(done.stderr, rf"^tagger: {bad}: line \d+: 9 columns between tabs, not 10")
            self.assert_fails(["--train", small, "--tag", small],
                              "--tag takes the --save of a training")
        self.assert_fails([], "--train is required; see --help", 2)


if __name__ == "__main__":
    unittest.main()
