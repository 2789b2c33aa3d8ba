// Columns of a file as packed rows.
#include <cstdint>
#include <cstring>

namespace {

// Rows are turned in pieces that stay in the processor's cache while column after column is written into them.
constexpr int64_t kPieceRows = 512;

template <typename From, typename To>
void turn(const void* column, int64_t start, int64_t rows, int64_t width, To* out, int64_t stride) {
  const From* from = static_cast<const From*>(column) + start * width;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t k = 0; k < width; ++k) out[row * stride + k] = static_cast<To>(from[row * width + k]);
  }
}

template <typename To>
bool turn_kind(int32_t kind, const void* column, int64_t start, int64_t rows, int64_t width, To* out, int64_t stride) {
  switch (kind) {
    case 0: turn<uint8_t, To>(column, start, rows, width, out, stride); return true;
    case 1: turn<uint16_t, To>(column, start, rows, width, out, stride); return true;
    case 2: turn<int32_t, To>(column, start, rows, width, out, stride); return true;
    case 3: turn<int64_t, To>(column, start, rows, width, out, stride); return true;
    case 4: turn<float, To>(column, start, rows, width, out, stride); return true;
    default: return false;
  }
}

template <typename To>
bool turn_all(int64_t num_columns, const void* const* columns, const int32_t* kinds, const int64_t* widths,
              int64_t start, int64_t rows, To* out, int64_t stride) {
  for (int64_t piece = 0; piece < rows; piece += kPieceRows) {
    const int64_t count = rows - piece < kPieceRows ? rows - piece : kPieceRows;
    int64_t at = 0;
    for (int64_t c = 0; c < num_columns; ++c) {
      if (!turn_kind(kinds[c], columns[c], start + piece, count, widths[c], out + piece * stride + at, stride)) {
        return false;
      }
      at += widths[c];
    }
  }
  return true;
}

}  // namespace

// Rows [start, start + rows) of columns that have `available` rows -> out [rows, sum of widths].
// kinds: 0 uint8, 1 uint16, 2 int32, 3 int64, 4 float32; out_kind: 2, 3 or 4 of these. Returns 0, or -1 where the
// rows are not there or a kind is unknown.
extern "C" __attribute__((visibility("default"))) int64_t tfdlrm_pack_rows(
    int64_t num_columns, const void* const* columns, const int32_t* kinds, const int64_t* widths, int64_t available,
    int64_t start, int64_t rows, int32_t out_kind, void* out) {
  if (start < 0 || rows < 0 || start > available || rows > available - start) return -1;
  int64_t stride = 0;
  for (int64_t c = 0; c < num_columns; ++c) {
    if (widths[c] < 1) return -1;
    stride += widths[c];
  }
  bool known = false;
  switch (out_kind) {
    case 2:
      known = turn_all(num_columns, columns, kinds, widths, start, rows, static_cast<int32_t*>(out), stride);
      break;
    case 3:
      known = turn_all(num_columns, columns, kinds, widths, start, rows, static_cast<int64_t*>(out), stride);
      break;
    case 4:
      known = turn_all(num_columns, columns, kinds, widths, start, rows, static_cast<float*>(out), stride);
      break;
  }
  return known ? 0 : -1;
}

namespace {

constexpr int64_t kAhead = 24;  // rows between a prefetch and its use

template <typename From, typename To>
bool gather(int64_t num_parts, const void* const* parts, const int64_t* part_rows, int64_t width, int64_t count,
            const int32_t* part_of, const int32_t* row_of, To* out, int64_t stride) {
  for (int64_t i = 0; i < count; ++i) {
    if (i + kAhead < count) {
      const int64_t part = part_of[i + kAhead];  // checked here, too: a pointer is read
      if (part >= 0 && part < num_parts) {
        __builtin_prefetch(static_cast<const From*>(parts[part]) + static_cast<int64_t>(row_of[i + kAhead]) * width);
      }
    }
    const int64_t part = part_of[i], row = row_of[i];
    if (part < 0 || part >= num_parts || row < 0 || row >= part_rows[part]) return false;
    const From* from = static_cast<const From*>(parts[part]) + row * width;
    for (int64_t k = 0; k < width; ++k) out[i * stride + k] = static_cast<To>(from[k]);
  }
  return true;
}

template <typename To>
bool gather_kind(int32_t kind, int64_t num_parts, const void* const* parts, const int64_t* part_rows, int64_t width,
                 int64_t count, const int32_t* part_of, const int32_t* row_of, To* out, int64_t stride) {
  switch (kind) {
    case 0: return gather<uint8_t, To>(num_parts, parts, part_rows, width, count, part_of, row_of, out, stride);
    case 1: return gather<uint16_t, To>(num_parts, parts, part_rows, width, count, part_of, row_of, out, stride);
    case 2: return gather<int32_t, To>(num_parts, parts, part_rows, width, count, part_of, row_of, out, stride);
    case 3: return gather<int64_t, To>(num_parts, parts, part_rows, width, count, part_of, row_of, out, stride);
    case 4: return gather<float, To>(num_parts, parts, part_rows, width, count, part_of, row_of, out, stride);
    default: return false;
  }
}

}  // namespace

// Any rows of one column that lies in parts: row row_of[i] of part part_of[i] -> out[i * stride ...]. Kinds as above.
// Returns 0, or -1 where a row is not there or a kind is unknown.
extern "C" __attribute__((visibility("default"))) int64_t tfdlrm_gather_rows(
    int64_t num_parts, const void* const* parts, const int64_t* part_rows, int32_t kind, int64_t width, int64_t count,
    const int32_t* part_of, const int32_t* row_of, int32_t out_kind, void* out, int64_t stride) {
  if (width < 1 || stride < width || count < 0) return -1;
  bool good = false;
  switch (out_kind) {
    case 2:
      good = gather_kind(kind, num_parts, parts, part_rows, width, count, part_of, row_of, static_cast<int32_t*>(out),
                         stride);
      break;
    case 3:
      good = gather_kind(kind, num_parts, parts, part_rows, width, count, part_of, row_of, static_cast<int64_t*>(out),
                         stride);
      break;
    case 4:
      good = gather_kind(kind, num_parts, parts, part_rows, width, count, part_of, row_of, static_cast<float*>(out),
                         stride);
      break;
  }
  return good ? 0 : -1;
}
