"""Networks as files for other runtimes, proved there before they are kept."""
