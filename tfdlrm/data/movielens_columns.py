"""The columns of MovieLens-100k, as the model sees them."""

from __future__ import annotations

from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec

# The flags of u.item, in its order.
GENRES = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
MISSING_RELEASE_YEAR = 1990
HOURS_PER_DAY = 24


def movielens_feature_spec() -> FeatureSpec:
    """Label, two standardized numbers, six ids and the bag of genres; `user_id` is the key of the grouped AUC.

    Example:
        >>> movielens_feature_spec().feature_names[-1]
        'genres'
    """
    single = ("user_id", "item_id", "gender", "occupation", "zip_code")
    return FeatureSpec(
        labels=("label",),
        dense=(
            DenseColumn(name="log1p_age", transform="standardize"),
            DenseColumn(name="release_year", transform="standardize", missing=MISSING_RELEASE_YEAR),
        ),
        categorical=(
            *(CategoricalColumn(name=name, encoding="vocabulary", id_policy="oov") for name in single),
            CategoricalColumn(name="hour", encoding="integer"),
            CategoricalColumn(name="genres", encoding="vocabulary", id_policy="oov", hotness=None),
        ),
        keys=("user_id",),
        vocabulary_sizes={"hour": HOURS_PER_DAY},
    )
