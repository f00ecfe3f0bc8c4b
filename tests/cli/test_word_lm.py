"""The language model of words."""
import pathlib
import tempfile
import unittest

from programs import ProgramTest, data_file, results
from runs import small_text


class WordLm(ProgramTest):
    program = "word_lm"

    def test_a_text_is_learned(self):
        output = self.succeed("--fast", "--words", 2000, "--train",
                              data_file("tinyshakespeare.txt"), "--hidden", 20)
        self.assertIn("193624 words, of 2000 different ones; 24401 to validate", output)
        self.assertTrue(100 < results(output)["validation perplexity"] < 200, output)

    def test_use(self):
        self.assert_help("--train", "x")
        with tempfile.TemporaryDirectory(prefix="reel-cli-") as folder:
            text, test = pathlib.Path(folder, "text.txt"), pathlib.Path(folder, "test.txt")
            text.write_text(small_text(20000), encoding="utf-8")
            test.write_text(small_text(500), encoding="utf-8")
            self.assert_resumes("--fast", "--train", text, "--cell", "gru")
            by_name = results(self.succeed("--fast", "--train", text, "--recipe", "zaremba-small"))
            by_hand = results(self.succeed("--fast", "--train", text, "--layers", 2, "--dropout", 0,
                                           "--steps", 20, "--optimizer", "sgd",
                                           "--learning-rate", 1))
            self.assertEqual(by_name, by_hand)
            self.assertLess(by_name["test perplexity"], 15)
            save = pathlib.Path(folder, "tied.safetensors")
            tied = results(self.succeed("--fast", "--train", text, "--tied", "--save", save))
            self.assertLess(tied["test perplexity"], 15)
            self.assertIn(b'head.b"', save.read_bytes())
            self.assertNotIn(b'head.w"', save.read_bytes())
            own = results(self.succeed("--fast", "--train", text, "--valid", test, "--test", test))
            self.assertEqual(own["validation perplexity"], own["test perplexity"])
            self.assert_fails(["--train", text, "--valid", test],
                              "--valid and --test go together; without both the text is split")
            short = pathlib.Path(folder, "short.txt")
            short.write_text("one line\n", encoding="utf-8")
            self.assert_fails(["--train", short], f"{short} has too few lines to be split; give "
                                                  "--valid and --test")
        self.assert_fails(["--train", "/nowhere"],
                          "/nowhere: cannot read: No such file or directory")
        self.assert_fails(["--train", "x", "--recipe", "none"],
                          "--recipe: 'none' is none of zaremba-small; see --help", 2)


if __name__ == "__main__":
    unittest.main()
