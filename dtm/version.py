"""The version of dtm, where modules of any layer can read it."""

VERSION = "1.0.0.dev0"
