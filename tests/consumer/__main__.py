"""Runs the tests of this folder: python3 tests/consumer [-k NAME]"""
import pathlib
import sys
import unittest

HERE = str(pathlib.Path(__file__).resolve().parent)
unittest.main(module=None, argv=[sys.argv[0], "discover", "-s", HERE, *sys.argv[1:]])
