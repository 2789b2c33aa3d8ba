"""Hypothesis strategies for schemas and configs: the valid combinations that the round trips must survive."""

from __future__ import annotations

from hypothesis import strategies as st

from tfdlrm.config import (
    DataConfig,
    DLRMConfig,
    ExperimentConfig,
    FeatureConfig,
    LearningRateConfig,
    MixedDimensionConfig,
    ParameterServerConfig,
    QuotientRemainderConfig,
    SyntheticConfig,
    TableConfig,
    TrainConfig,
)
from tfdlrm.embeddings import initializers, optimizers
from tfdlrm.schema import CategoricalColumn, DenseColumn, FeatureSpec

# YAML's traps are among the names: numbers, booleans, nulls, dates, indicators, other scripts.
TRAPS = [
    "1e-3",
    "0x1f",
    "007",
    "1_000",
    "no",
    "Null",
    "~",
    "2026-01-01",
    "a: b",
    "- a",
    "#x",
    "é",
    "用户",
    "1:30",
    ".5",
]
NAMES = st.sampled_from(TRAPS) | st.text("abcXYZ_0189.-", min_size=1, max_size=6)
FINITE = st.floats(allow_nan=False, allow_infinity=False)
POSITIVE = st.floats(min_value=1e-12, max_value=1e6)
SIZES = st.integers(1, 10**12)


def names(min_size: int = 0, max_size: int = 4) -> st.SearchStrategy[list[str]]:
    return st.lists(NAMES.filter(lambda name: name != "dense"), min_size=min_size, max_size=max_size, unique=True)


@st.composite
def dense_columns(draw: st.DrawFn, name: str) -> DenseColumn:
    transform = draw(st.sampled_from(["log1p", "standardize", "identity", "clip"]))
    fields = {}
    if transform == "standardize" and draw(st.booleans()):
        fields = {"mean": draw(FINITE), "std": draw(POSITIVE)}
    if transform == "clip":
        low, high = sorted([draw(FINITE), draw(FINITE)])
        fields = draw(st.sampled_from([{"minimum": low}, {"maximum": high}, {"minimum": low, "maximum": high}]))
    return DenseColumn(name=name, transform=transform, missing=draw(st.none() | FINITE), **fields)


@st.composite
def categorical_columns(draw: st.DrawFn, name: str, tables: list[str]) -> CategoricalColumn:
    return CategoricalColumn(
        name=name,
        table=draw(st.sampled_from(["", *tables])),
        hotness=draw(st.none() | st.integers(1, 100)),
        id_policy=draw(st.sampled_from(["error", "clip", "modulo", "oov", "hash"])),
        encoding=draw(st.sampled_from(["integer", "vocabulary", "hex", "hash"])),
        separator=draw(st.sampled_from([" ", "|", ",", "\t", ": "])),
        weights=draw(st.sampled_from(["", "w"])),
    )


@st.composite
def feature_specs(draw: st.DrawFn) -> FeatureSpec:
    columns = draw(names(min_size=1, max_size=8))
    num_labels = draw(st.integers(1, len(columns)))
    num_dense = draw(st.integers(0, len(columns) - num_labels))
    labels, dense, categorical = (
        columns[:num_labels],
        columns[num_labels : num_labels + num_dense],
        columns[num_labels + num_dense :],
    )
    spec = FeatureSpec(
        labels=tuple(labels),
        dense=tuple(draw(dense_columns(name)) for name in dense),
        categorical=tuple(draw(categorical_columns(name, categorical)) for name in categorical),
        keys=tuple(draw(names())),
    )
    tables = draw(st.lists(st.sampled_from(spec.table_names), unique=True)) if spec.table_names else []
    return spec.with_vocabulary_sizes({table: draw(SIZES) for table in tables})


INITIALIZERS = st.one_of(
    st.just(initializers.ScaledUniform()),
    st.builds(initializers.Normal, mean=FINITE, stddev=POSITIVE),
    st.builds(initializers.Constant, value=FINITE),
    st.tuples(FINITE, FINITE).map(lambda pair: initializers.Uniform(low=min(pair), high=max(pair))),
)
RATES = st.none() | POSITIVE
ROW_OPTIMIZERS = st.one_of(
    st.builds(optimizers.SGD, RATES, weight_decay=POSITIVE, clipnorm=RATES),
    st.builds(optimizers.Adagrad, RATES, epsilon_placement=st.sampled_from(["outside", "inside"])),
    st.builds(optimizers.RowwiseAdagrad, RATES, l2=POSITIVE, initial_accumulator_value=POSITIVE),
    st.builds(optimizers.LazyAdam, RATES, beta_1=st.floats(0, 0.99), epsilon=POSITIVE),
    st.builds(optimizers.FTRL, RATES, l1=POSITIVE, beta=POSITIVE, learning_rate_power=st.floats(-1, 0)),
)
QUOTIENT_REMAINDER = st.builds(
    QuotientRemainderConfig,
    collisions=SIZES,
    operation=st.sampled_from(["mult", "add", "concat"]),
    threshold=st.integers(0, 10**6),
    initializer=st.sampled_from(["paper", "reference"]),
)
COMBINERS = st.sampled_from(["sum", "mean", "sqrtn"])


@st.composite
def tables(draw: st.DrawFn, name: str, width: int) -> TableConfig:
    option = draw(st.sampled_from(["none", "quotient_remainder", "output_dim", "pooling_weights"]))
    return TableConfig(
        name=name,
        vocabulary_size=draw(SIZES),
        embedding_dim=draw(st.integers(1, 64)) if option == "output_dim" else width,
        combiner=draw(COMBINERS),
        initializer=draw(INITIALIZERS),
        optimizer=draw(st.none() | ROW_OPTIMIZERS),
        quotient_remainder=draw(QUOTIENT_REMAINDER) if option == "quotient_remainder" else None,
        output_dim=width if option == "output_dim" else None,
        pooling_weights=draw(st.sampled_from(["fixed", "learned"])) if option == "pooling_weights" else None,
        trainable=draw(st.booleans()),
    )


@st.composite
def model_configs(draw: st.DrawFn) -> DLRMConfig:
    width = draw(st.sampled_from([2, 8, 16]))
    widths = st.lists(st.integers(1, 64), max_size=2)
    table_names = draw(names())
    extra = draw(names()) if table_names else []
    features = [FeatureConfig(name=name) for name in table_names]
    features += [
        FeatureConfig(name=name, table=draw(st.sampled_from(table_names)), hotness=draw(st.none() | st.integers(1, 9)))
        for name in extra
        if name not in table_names
    ]
    return DLRMConfig(
        architecture=draw(st.sampled_from(["dlrm", "dcnv2"])),
        num_dense=draw(st.integers(0, 20)),
        tables=tuple(draw(tables(name, width)) for name in table_names),
        features=tuple(features),
        embedding_dim=width,
        bottom_mlp=(*draw(widths), width),
        top_mlp=(*draw(widths), 1),
        interaction=draw(st.sampled_from(["dot", "cat"])),
        interact_itself=draw(st.booleans()),
        interaction_padding=draw(st.integers(1, 64)),
        mixed_dimension=draw(st.none() | st.builds(MixedDimensionConfig, alpha=st.floats(0, 2))),
        combiner=draw(COMBINERS),
        dropout=draw(st.floats(0, 0.99)),
        normalization=draw(st.sampled_from([None, "batch", "layer"])),
        tasks=tuple(draw(names(min_size=1))),
        seed=draw(st.integers(0, 2**31)),
    )


@st.composite
def train_configs(draw: st.DrawFn) -> TrainConfig:
    warmup = draw(st.integers(0, 100))
    clipnorm = draw(st.none() | POSITIVE)
    return TrainConfig(
        optimizer=draw(st.sampled_from(["sgd", "adagrad", "adam"])),
        learning_rate=draw(POSITIVE),
        row_optimizer=draw(st.none() | ROW_OPTIMIZERS),
        schedule=draw(
            st.none()
            | st.builds(
                LearningRateConfig,
                warmup_steps=st.just(warmup),
                decay_start_step=st.integers(warmup, 1000),
                num_decay_steps=st.integers(0, 1000),
            )
        ),
        loss=draw(st.sampled_from(["bce", "mse", "wbce"])),
        loss_weights=(draw(POSITIVE), draw(POSITIVE)),
        probability_clamp=draw(st.floats(0, 0.49)),
        global_clipnorm=clipnorm,
        steps_per_execution=draw(st.just("auto") | st.integers(1, 10)),
        checkpoint_every_minutes=draw(st.none() | POSITIVE),
        monitor=draw(NAMES),
        group_by=draw(st.none() | NAMES),
        strategy=draw(st.sampled_from(["local", "parameter_server"])),
        parameter_server=draw(
            st.builds(
                ParameterServerConfig,
                synchronous=st.booleans() if clipnorm is None else st.just(False),
                max_staleness=st.integers(1, 1024),
                wire_dtype=st.sampled_from(["float32", "bfloat16"]),
                permute=st.none() | st.booleans() | st.dictionaries(NAMES, st.booleans(), max_size=3),
                min_shard_bytes=st.integers(0, 10**9),
            )
        ),
    )


@st.composite
def data_configs(draw: st.DrawFn) -> DataConfig:
    if draw(st.booleans()):
        sizes = draw(st.lists(SIZES, min_size=1, max_size=4))
        hotness = draw(st.integers(1, 9) | st.tuples(*[st.integers(1, 9)] * len(sizes)))
        return DataConfig(
            format="synthetic",
            split="time",
            synthetic=SyntheticConfig(num_rows=draw(SIZES), vocabulary_sizes=tuple(sizes), hotness=hotness),
        )
    return DataConfig(
        format=draw(st.sampled_from(["criteo", "csv", "parquet", "movielens"])),
        path=draw(st.none() | NAMES),
        schema=draw(st.none() | feature_specs()),
        id_modulo=draw(st.none() | SIZES),
        max_rows=draw(st.none() | SIZES),
    )


EXPERIMENTS = st.builds(ExperimentConfig, model=model_configs(), train=train_configs(), data=data_configs())
