"""char_lm prints a man page and what bash and zsh complete, with every option of its help."""
import os
import pty
import re
import select
import shutil
import subprocess
import time
import unittest

import runs

COMMANDS = ["train", "tune", "sample", "eval", "info", "report", "export", "import",
            "gradcheck"]
READ_ELSEWHERE = {"REEL_LONG"}  # by checks of ops, which char_lm does not call

# What makes a shell complete the line that is typed, and print it with control-g.
SHELLS = {
    "bash": (["--norc", "--noprofile", "-i"],
             "PS1=; bind 'set bell-style none'; source ./script; "
             "bind -x '\"\\C-g\": echo \"<$READLINE_LINE>\"'"),
    "zsh": (["-f", "-i"],
            "PS1=; unsetopt beep; autoload -Uz compinit; compinit -u -D; source ./script; "
            "show() { print -r -- \"<$BUFFER>\" }; zle -N show; bindkey '^G' show"),
}


class Shell:
    """An interactive shell in a folder with the completion as `script`."""

    def __init__(self, name, folder):
        words, setup = SHELLS[name]
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(shutil.which(name), [name, *words], {**os.environ, "TERM": "dumb", "HISTFILE": "",
                                                           "LC_ALL": "C", "HOME": str(folder)})
        self.send(setup + "; echo rea''dy\n")
        self.until(r"ready\r?\n")

    def send(self, text):
        os.write(self.terminal, text.encode())

    def until(self, pattern):
        text, end = "", time.monotonic() + 60
        while not (found := re.search(pattern, text)):
            if not select.select([self.terminal], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"no {pattern} in {text!r}")
            text += os.read(self.terminal, 4096).decode(errors="replace")
        return found

    def completed(self, line):
        """The line after Tab; then it is erased."""
        self.send(line + "\t\x07")
        line = self.until(r"<([^<>\n]*)>")[1]
        self.send("\x05\x15")
        return line

    def close(self):
        os.close(self.terminal)
        os.waitpid(self.pid, 0)


class Printed(runs.CharLmTest):
    def printed(self, what):
        return self.succeed("--print", what).decode()

    def options(self, command):
        """Of a command, as its help tells: name and placeholder."""
        text = self.succeed(*command, "--help").decode()
        found = re.findall(r"(?m)^  (?:-h,)?(--[a-z-]+)(?: ([^ \n]+))?(?=  |$)", text)
        self.assertIn("--help", dict(found))
        return found

    def test_every_command_and_option_is_in_the_man_page(self):
        page = self.printed("man").replace("\\-", "-")
        for command in ([], *([name] for name in COMMANDS)):
            for name, placeholder in self.options(command):
                value = f" \\fI{placeholder}\\fR" if placeholder else ""
                self.assertIn(f"\\fB{name}\\fR{value}\n", page)
        for name in COMMANDS:
            self.assertIn(f"\n.SS char_lm {name}\n", page)
        words = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", page))
        self.assertLessEqual(words, {name for command in ([], *([name] for name in COMMANDS))
                                     for name, _ in self.options(command)})

    def test_the_man_page_is_free_of_warnings(self):
        groff = shutil.which("groff")
        if not groff:
            self.skipTest("groff is not installed")
        done = subprocess.run([groff, "-man", "-ww", "-Tutf8", "-Z"], input=self.succeed("--print", "man"),
                              capture_output=True)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_exit_codes_of_the_man_page_are_those_of_the_conventions(self):
        section = self.printed("man").replace("\\-", "-").split(".SH EXIT STATUS\n")[1].split(".SH ")[0]
        codes = re.findall(r"\.TP\n\\fB(.*)\\fR\n(.*)\n", section)
        conventions = (runs.ROOT / "docs/conventions.md").read_text(encoding="utf-8")
        table = conventions.split("## Exit codes\n")[1].split("\n## ")[0]
        rows = re.findall(r"(?m)^\| ([0-9, ]+) \| (.*) \|$", table)
        self.assertEqual(codes, [(code, meaning.replace("`", "")) for code, meaning in rows])
        self.assertGreater(len(codes), 3)

    def test_environment_variables_that_are_read_are_in_the_man_page(self):
        read = set()
        for folder in ("autograd", "nn", "optim", "datasets", "examples/char_lm", "examples/support"):
            for path in (runs.ROOT / folder).rglob("*.cpp"):
                read.update(re.findall(r'getenv\("(\w+)"\)', path.read_text(encoding="utf-8")))
        section = self.printed("man").split(".SH ENVIRONMENT\n")[1].split(".SH ")[0]
        self.assertEqual(set(re.findall(r"\\fB(\w+)\\fR", section)), read - READ_ELSEWHERE)

    def test_what_cannot_be_printed(self):
        self.refuse(2, "--print", "fish", says=["--print is \"fish\"", "man, bash or zsh", "--help"])


class Completion:
    """What both shells do; SHELL is the name of one."""
    SHELL = ""

    def setUp(self):
        super().setUp()
        if not shutil.which(self.SHELL):
            self.skipTest(f"{self.SHELL} is not installed")
        self.file("script", self.succeed("--print", self.SHELL))

    def test_its_syntax(self):
        done = subprocess.run([self.SHELL, "-n", self.folder / "script"], capture_output=True)
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_every_option_is_in_it(self):
        for command in ([], *([name] for name in COMMANDS)):
            part = self.part_of(command)
            for name, _ in Printed.options(self, command):
                self.assertRegex(part, rf"(?<![\w-]){name}(?![\w-])")

    def test_lines_that_are_typed(self):
        (self.folder / "runs of text").mkdir()
        self.file("runs.txt", "no directory")
        shell = Shell(self.SHELL, self.folder)
        self.addCleanup(shell.close)
        for line, whole in (("char_lm tra", "char_lm train "),
                            ("char_lm --vers", "char_lm --version "),
                            ("char_lm --print z", "char_lm --print zsh "),
                            ("char_lm train --hid", r"char_lm train --hidden[ =]"),
                            ("char_lm train --model g", "char_lm train --model gru "),
                            ("char_lm train --model=g", "char_lm train --model=gru "),
                            ("char_lm train --hidden 3 --optimizer adag",
                             "char_lm train --hidden 3 --optimizer adagrad "),
                            ("char_lm tune --schedule c", "char_lm tune --schedule co"),
                            ("char_lm tune --recipe k", "char_lm tune --recipe karpathy "),
                            ("char_lm eval --part v", "char_lm eval --part valid "),
                            ("char_lm sample --checkpoint b", "char_lm sample --checkpoint best "),
                            ("char_lm train --hidden tex", "char_lm train --hidden tex"),
                            ("char_lm train --text tex", "char_lm train --text text.txt "),
                            ("char_lm train --run ru", r"char_lm train --run runs\\ of\\ text/"),
                            ("char_lm report ru", r"char_lm report runs\\ of\\ text/"),
                            ("char_lm report --prof", "char_lm report --profile ")):
            with self.subTest(line):
                self.assertRegex(shell.completed(line), rf"\A{whole}\Z")


class Bash(Completion, runs.CharLmTest):
    SHELL = "bash"

    def part_of(self, command):
        """What it offers after a command and before an option, as a list of words."""
        self.file("ask", f"source ./script; COMP_WORDS=(char_lm {' '.join(command)} --); "
                         f"COMP_CWORD={len(command) + 1}; _char_lm; echo ${{COMPREPLY[*]}}")
        return subprocess.run(["bash", "ask"], cwd=self.folder, capture_output=True, text=True,
                              check=True).stdout


class Zsh(Completion, runs.CharLmTest):
    SHELL = "zsh"

    def part_of(self, command):
        text = (self.folder / "script").read_text()
        return text.split(f"{command[0]}) _arguments" if command else "_arguments -C")[1].split("&& found=0")[0]


if __name__ == "__main__":
    unittest.main()
