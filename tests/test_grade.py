"""`rllab grade`: what a submission is worth, and that the same command says the same."""

from graded import Course


def test_each_kind_of_submission_is_graded(course: Course) -> None:
    course.recorded("ann", right=21)
    course.model("bob")
    course.adapter("cho")
    grades = course.grade()
    assert {g["status"] for g in grades.values()} == {"graded"}, grades
    assert grades["ann"]["points"] == 7.0 and grades["ann"]["parts"]["sums"]["value"] == 0.7
    assert course.rows()["ann"]["points"] == "7.0"
