"""Where weights come from: bundled, packaged, GGUF files, folders and the hub."""
