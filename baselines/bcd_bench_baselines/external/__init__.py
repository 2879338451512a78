"""The method `external`: any command that answers pair by pair, and the protocol it speaks."""
