"""Grades the submissions of an assignment: `assignment` says what is asked, `grading` goes through the submissions."""
