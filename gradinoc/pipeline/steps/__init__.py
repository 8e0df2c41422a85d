"""The stages of a study: each computes the files of one step into a folder."""
