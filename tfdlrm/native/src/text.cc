// Rows of plain text at memory speed, in Criteo's format: read where they are as they should be, and written. Whatever is
// not as it should be is left to the general reader, which knows what to say: nothing here decides that a row is bad.
#include <cmath>
#include <cstdint>
#include <cstring>
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

// The two hex digits of each byte.
struct HexPairs {
  char text[256][2];
  HexPairs() {
    for (int byte = 0; byte < 256; ++byte) {
      text[byte][0] = "0123456789abcdef"[byte >> 4];
      text[byte][1] = "0123456789abcdef"[byte & 15];
    }
  }
};
const HexPairs kPairs;

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

// Rows as lines: a label, counts [rows, num_counts] and tokens [rows, num_tokens] of 8 hex digits; a count below 0 and a
// token 0 are empty cells. `out` has room for 2 + 11 * num_counts + 9 * num_tokens bytes a row. Returns the bytes written.
extern "C" __attribute__((visibility("default"))) int64_t tfdlrm_criteo_lines(
    int64_t rows, int64_t num_counts, int64_t num_tokens, const uint8_t* labels, const int32_t* counts,
    const uint32_t* tokens, char* out) {
  char* at = out;
  for (int64_t row = 0; row < rows; ++row) {
    *at++ = static_cast<char>('0' + labels[row]);
    for (int64_t k = 0; k < num_counts; ++k) {
      *at++ = '\t';
      const int32_t count = *counts++;
      if (count < 0) continue;
      char digits[10];
      char* first = digits + 10;
      uint32_t rest = static_cast<uint32_t>(count);
      do {
        *--first = static_cast<char>('0' + rest % 10);
        rest /= 10;
      } while (rest > 0);
      const int64_t length = digits + 10 - first;
      std::memcpy(at, first, length);
      at += length;
    }
    for (int64_t k = 0; k < num_tokens; ++k) {
      *at++ = '\t';
      const uint32_t token = *tokens++;
      if (token == 0) continue;
      for (int shift = 24; shift >= 0; shift -= 8, at += 2) std::memcpy(at, kPairs.text[token >> shift & 255], 2);
    }
    *at++ = '\n';
  }
  return at - out;
}
