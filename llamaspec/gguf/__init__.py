"""GGUF files: headers read with distrust, model and pair checks, and the facts for showing and fitting."""
