"""The version of dtm."""

VERSION = "1.0.0.dev0"
