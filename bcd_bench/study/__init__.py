"""User studies: people rate the outputs of several methods, blinded and in balanced order."""
