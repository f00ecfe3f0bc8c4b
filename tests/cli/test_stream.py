"""A network in real time."""
import pathlib
import subprocess
import tempfile
import unittest

from programs import ProgramTest, results
from runs import BUILD


class Stream(ProgramTest):
    program = "stream"

    def test_learns_an_amplifier(self):
        output = self.succeed("--fast")
        (error,) = results(output).values()
        self.assertLess(error, 0.05)
        self.assertRegex(output, r"\n[0-9.]+ µs a sample, at worst [0-9.]+ µs; at 48 kHz")

    def test_plays_samples_as_they_come(self):
        with tempfile.TemporaryDirectory(prefix="reel-cli-") as folder:
            save = pathlib.Path(folder, "amplifier.safetensors")
            self.succeed("--fast", "--steps", 5, "--epochs", 1, "--save", save)
            words = [BUILD / "examples" / "stream", "--save", save, "--input"]
            with subprocess.Popen([*words, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE, text=True) as playing:
                outputs = []
                for sample in ("0.5", "-0.25", "1e-3"):  # each is answered before the next one
                    playing.stdin.write(sample + "\n")
                    playing.stdin.flush()
                    outputs.append(playing.stdout.readline())
                rest, times = playing.communicate()
            self.assertEqual((playing.returncode, rest), (0, ""))
            self.assertIn("µs a sample", times)
            self.assertEqual(len(set(map(float, outputs))), 3)
            file = pathlib.Path(folder, "samples.txt")
            file.write_text("0.5 -0.25 1e-3\n")
            done = subprocess.run([*words, file], capture_output=True, text=True, check=True)
            self.assertEqual(done.stdout, "".join(outputs))
            file.write_text("0.5 loud\n")
            done = subprocess.run([*words, file], capture_output=True, text=True, check=False)
            self.assertEqual((done.returncode, done.stdout, done.stderr),
                             (1, outputs[0], f"stream: {file}: after 1 samples: not a number\n"))

    def test_use(self):
        self.assert_help()
        self.assert_resumes("--fast", "--steps", 5)
        self.assert_fails(["--input", "-"], "--input is for a trained network: name its file by "
                          "--save", 1)
        self.assert_fails(["--window", 7], "--window: '7' is not a whole number from 8 on; "
                          "see --help", 2)


if __name__ == "__main__":
    unittest.main()
