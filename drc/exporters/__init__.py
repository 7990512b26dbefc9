"""Networks as files that other runtimes read; one file per format, which registers itself."""
