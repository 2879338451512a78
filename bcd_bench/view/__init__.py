"""The gallery of run folders: a static page with the leaderboard and synchronised players of every pair."""
