"""File formats that other runtimes read; one file per format, which registers itself."""
