"""Keras's own tests of its recurrent layers, as they are, with the layers computed by Reel."""
import contextlib
import io
import os
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

from reel_driver import package

os.environ["KERAS_BACKEND"] = "torch"
for needed in ("torch", "pytest", "absl", "keras"):
    package(needed)
import pytest  # noqa: E402
from keras.src import layers, testing  # noqa: E402

import keras_by_reel  # noqa: E402

FILES = ["simple_rnn", "gru", "lstm", "rnn", "stacked_rnn_cells", "bidirectional",
         "time_distributed", "dropout_rnn_cell"]  # the others are convolutions

# Defines a cell with the class that Keras has for dropout in cells.
KERAS_ALONE = {"DropoutRNNCellTest::test_basics"}


class Plugin:
    """Counts, test by test, what Reel computed, and the comparisons of values there."""

    def __init__(self):
        self.counts = keras_by_reel.Counts()
        self.by_reel, self.by_keras, self.without, self.skipped, self.failed = [], [], [], [], []
        self.comparisons = self.compared = self.collected = 0

    def pytest_collection_finish(self, session):
        self.collected = len(session.items)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item):
        self.counts.reel = self.counts.keras = self.compared = 0
        result = yield
        if self.counts.keras:
            self.by_keras.append(item.nodeid)
        elif self.counts.reel:
            self.by_reel.append(item.nodeid)
            self.comparisons += self.compared
        else:
            self.without.append(item.nodeid)
        return result

    def pytest_runtest_logreport(self, report):
        if report.failed:
            self.failed.append(f"{report.nodeid}: {report.longreprtext}")
        if report.skipped:
            self.skipped.append(report.nodeid)


class Keras(unittest.TestCase):
    def test_recurrent_layers(self):
        folder = pathlib.Path(layers.__file__).parent / "rnn"
        plugin, output = Plugin(), io.StringIO()
        compare = testing.TestCase.assertAllClose

        def counted(case, *values, **options):
            plugin.compared += 1
            return compare(case, *values, **options)

        with tempfile.TemporaryDirectory() as root, keras_by_reel.replaced(plugin.counts), \
                mock.patch.object(testing.TestCase, "assertAllClose", counted), \
                contextlib.redirect_stdout(output):
            pytest.main(["-q", "-p", "no:cacheprovider", "-W", "ignore", "--rootdir", root,
                         *(str(folder / f"{name}_test.py") for name in FILES)], plugins=[plugin])
        self.assertEqual(plugin.failed, [])
        skipped = set(plugin.skipped)  # also those that say so once they run
        without = [test for test in plugin.without if test not in skipped]
        self.assertEqual(len(plugin.by_reel) + len(plugin.by_keras) + len(without) + len(skipped),
                         plugin.collected)
        self.assertGreater(len(plugin.by_reel), 0, output.getvalue())
        print(f"Keras: {len(plugin.by_reel)} of {plugin.collected} tests with {plugin.comparisons} "
              f"comparisons of values, all layers by Reel; {len(without)} without a call of a layer;"
              f" {len(skipped)} skipped by Keras", file=sys.stderr)
        for test in plugin.by_keras:
            print(f"Keras: without {test.lstrip(':')}", file=sys.stderr)
        self.assertLessEqual({test.lstrip(":") for test in plugin.by_keras}, KERAS_ALONE)


if __name__ == "__main__":
    unittest.main()
