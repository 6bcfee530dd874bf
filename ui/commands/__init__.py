"""One file per command of ``crossmodal``; what a command needs is imported when it runs."""
