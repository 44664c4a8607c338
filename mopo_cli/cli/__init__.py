"""The command line: parse, find the run and its settings, call the stage, print its result."""
