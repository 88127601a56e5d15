"""The command line: parser.py defines the commands, the other modules carry them out."""
