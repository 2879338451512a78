"""The method `external`: any command that processes one pair at a time, and the protocol it uses."""
