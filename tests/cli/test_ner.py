"""Names of several words, with a softmax for each word and with a conditional random field."""
import unittest

from programs import ProgramTest, results

INVALID = "% of sentences with an impossible label, by a gru with a {}"
F1 = "F1 of names in %, by a gru with a {}"


class Ner(ProgramTest):
    program = "ner"

    def test_a_random_field_labels_no_impossible_sequence(self):
        words = ["--fast", "--cell", "gru", "--epochs", 3]
        softmax, field = results(self.succeed(*words)), results(self.succeed(*words, "--crf"))
        self.assertGreater(softmax[INVALID.format("softmax")], 5)
        self.assertEqual(field[INVALID.format("CRF")], 0)
        for found in (softmax[F1.format("softmax")], field[F1.format("CRF")]):
            self.assertTrue(50 < found < 85, found)

    def test_use(self):
        self.assert_help()
        self.assert_resumes("--fast", "--sentences", 40, "--crf")


if __name__ == "__main__":
    unittest.main()
