"""Result stores, one file each."""
