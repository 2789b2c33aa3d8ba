// Rows of plain text at memory speed: Criteo's format where it is as it should be. Whatever is not, is left to the
// general reader, which knows what to say about it: nothing here decides that a row is bad.
#include <cmath>
#include <cstdint>
#include <limits>

namespace {

// Value of a hex digit, -1 of anything else.
struct HexDigits {
  int8_t value[256];
  HexDigits() {
    for (int c = 0; c < 256; ++c) value[c] = -1;
    for (int d = 0; d < 10; ++d) value['0' + d] = static_cast<int8_t>(d);
    for (int d = 0; d < 6; ++d) value['a' + d] = value['A' + d] = static_cast<int8_t>(10 + d);
  }
};
const HexDigits kHex;

constexpr int kMostDigits = 15;  // whole numbers of so many digits are exact in float64
constexpr int kMostHexDigits = 8;

}  // namespace

// Lines of one label (0 or 1), `num_dense` whole numbers or nothing, `num_hex` hex numbers of at most 8 digits or
// nothing, tab-separated, a newline after each line.
//
// labels [capacity], dense [num_dense, capacity] (NaN where there is nothing), tokens [num_hex, capacity] (0 where there
// is nothing). Returns the number of lines, or -1 where one is not of that form or there are more than `capacity`.
extern "C" __attribute__((visibility("default"))) int64_t tfdlrm_criteo_rows(
    const char* text, int64_t num_bytes, int64_t num_dense, int64_t num_hex, int64_t capacity, double* labels,
    double* dense, uint32_t* tokens) {
  const unsigned char* at = reinterpret_cast<const unsigned char*>(text);
  const unsigned char* const end = at + num_bytes;
  if (num_bytes == 0) return 0;
  if (end[-1] != '\n' || num_hex < 1) return -1;  // every line then ends within the text, and so does every loop below
  int64_t row = 0;
  while (at < end) {
    if (row == capacity) return -1;
    if (*at != '0' && *at != '1') return -1;
    labels[row] = *at++ - '0';
    for (int64_t column = 0; column < num_dense; ++column) {
      if (*at++ != '\t') return -1;
      const bool negative = *at == '-';
      at += negative;
      const unsigned char* const first = at;
      int64_t number = 0;
      while (*at >= '0' && *at <= '9') {
        if (at - first == kMostDigits) return -1;
        number = number * 10 + (*at++ - '0');
      }
      if (at == first) {
        if (negative) return -1;
        dense[column * capacity + row] = std::numeric_limits<double>::quiet_NaN();
      } else {
        dense[column * capacity + row] = static_cast<double>(negative ? -number : number);
      }
    }
    for (int64_t column = 0; column < num_hex; ++column) {
      if (*at++ != '\t') return -1;
      const unsigned char* const first = at;
      uint32_t number = 0;
      for (int digit; (digit = kHex.value[*at]) >= 0; ++at) {
        if (at - first == kMostHexDigits) return -1;
        number = number << 4 | static_cast<uint32_t>(digit);
      }
      tokens[column * capacity + row] = number;
    }
    if (*at++ != '\n') return -1;
    ++row;
  }
  return row;
}
