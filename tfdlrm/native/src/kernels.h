// What the processor-specific code offers. kernels_<isa>.cc compile the same sources for one instruction set each;
// kernels() chooses among them once, by what the processor has, so one library runs on any machine.
#pragma once

#include <cstdint>

namespace tfdlrm {

// Rows as they are stored. float32 rows are computed on in place, the others are widened first.
// int8 rows are for lookups: dim bytes of data, then scale and minimum as float32.
enum class RowType : int { kFloat32 = 0, kBfloat16 = 1, kFloat16 = 2, kInt8 = 3 };

enum class OptimizerKind : int { kSgd = 0, kAdagrad = 1, kRowwiseAdagrad = 2, kLazyAdam = 3, kFtrl = 4 };

struct OptimizerOptions {
  OptimizerKind kind;
  float learning_rate;
  float scale;         // multiplies every summed gradient before anything else
  float weight_decay;  // decoupled
  float l2;
  float epsilon;
  bool epsilon_inside_root;
  float beta_1, beta_2;   // LazyAdam
  float bias_correction;  // LazyAdam: sqrt(1 - beta_2^t) / (1 - beta_1^t)
  float l1, beta, power;  // FTRL; power is -learning_rate_power
};

// One id that was looked up: its row, and which pooled gradient it takes, times `coefficient`.
struct Occurrence {
  uint32_t row;
  uint32_t source;
};
struct WeightedOccurrence {
  uint64_t row;
  uint32_t source;
  float coefficient;
};

struct RowArrays {
  void* rows;
  RowType type;
  float* slots[2];
  int64_t slot_width[2];  // 0 where there is no such slot
  int64_t dim;
  uint64_t seed;  // of stochastic rounding: one a step
};

// Bags of `num_columns` features. Ids lie feature by feature, rows of the batch in order; bag f * batch_size + b is
// feature f of row b. Its ids are [splits[bag], splits[bag + 1]), or without splits hotness[f] ids from
// starts[f] + b * hotness[f] on.
struct BagLayout {
  int64_t batch_size;
  int64_t num_columns;
  const int64_t* hotness;
  const int64_t* starts;
  const int64_t* splits;  // or null
};

struct PoolArguments {
  BagLayout bags;
  const void* rows;
  RowType type;
  int64_t num_rows;
  int64_t dim;
  int64_t row_bytes;
  const float* pooling;  // [num_rows] weights of rows, or null
  const float* weights;  // weights of ids, or null
  bool wide_ids;         // ids are int64, else int32
  const void* ids;
  int64_t num_ids;
  int combiner;  // 0 sum, 1 mean, 2 sqrtn
};

// Vectors x [B, D] and e [B, F, D] -> [B, width]: x where `head`, the dot products of all pairs, zeros.
struct InteractionArguments {
  const float* x;
  const float* e;
  int64_t num_features;
  int64_t dim;
  bool head;
  bool itself;
  int64_t width;
};

struct Kernels {
  const char* name;
  // Pools bags [first, last) into out [batch_size, num_columns, dim]. Returns the position of the first id that is not
  // a row, nothing having been read through it, or -1.
  int64_t (*pool)(const PoolArguments&, int64_t first, int64_t last, float* out);
  // Sums runs of equal rows among sorted occurrences and updates each row once. `scratch` holds 4 * dim floats.
  void (*update)(const Occurrence*, int64_t count, const float* gradients, const RowArrays&, const OptimizerOptions&,
                 float* scratch);
  void (*update_weighted)(const WeightedOccurrence*, int64_t count, const float* gradients, const RowArrays&,
                          const OptimizerOptions&, float* scratch);
  // The sum of one run of equal rows into out[dim].
  void (*sum)(const WeightedOccurrence*, int64_t count, const float* gradients, int64_t dim, float* out);
  // Samples [begin, end); see interaction.inc. `scratch` holds interact_scratch_floats(...) floats.
  void (*interact)(const InteractionArguments&, int64_t begin, int64_t end, float* out, float* scratch);
  void (*interact_gradient)(const InteractionArguments&, int64_t begin, int64_t end, const float* upstream, float* dx,
                            float* de, float* scratch);
  int64_t (*interact_scratch_floats)(const InteractionArguments&);
  // See dense.inc.
  void (*activation_gradient)(const float* upstream, const float* y, int64_t rows, int64_t columns, float* out,
                              float* sums);
  // See cross.inc.
  void (*cross)(const float* x0, const float* product, const float* bias, const float* x, int64_t rows,
                int64_t columns, float* y);
  void (*cross_gradient)(const float* upstream, const float* more, const float* before, const float* x0,
                         const float* product, const float* bias, int64_t rows, int64_t columns, float* total,
                         float* dproduct, float* dx0, float* sums);
};

// The best of the processor; the environment variable TFDLRM_NATIVE_ISA (base, avx2, avx512) lowers it.
const Kernels& kernels();

}  // namespace tfdlrm
