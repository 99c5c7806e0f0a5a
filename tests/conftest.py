"""For all tests: Ctrl-C means what it means in a terminal."""

import signal

# a shell's background job ignores it, and so would every process that a test starts
signal.signal(signal.SIGINT, signal.default_int_handler)
