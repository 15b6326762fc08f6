"""The crash matrix: every way in which a run can end, with what it leaves behind."""
