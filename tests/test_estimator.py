from sklearn.utils.estimator_checks import parametrize_with_checks

from vilogit import VariationalLogisticRegression


@parametrize_with_checks(
    [
        VariationalLogisticRegression(),
        VariationalLogisticRegression(class_weight="balanced"),
    ]
)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)
